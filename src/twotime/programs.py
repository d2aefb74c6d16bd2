"""Compiled programs on disk, found without tracing them.

JAX's own cache looks for a program by its text, which takes seconds to trace. Here it is found by
what it is made from: the sources of this package, the versions of the libraries, and structure,
words and shapes of the arguments. Numbers in arrays do not count. Arguments with classes or
functions of other packages, whose sources are not known, and arrays on several devices have no key.
"""

import contextlib
import dataclasses
import enum
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from twotime.disk import replacing

_log = logging.getLogger(__name__)

_PACKAGES = "equinox", "jax", "jaxlib", "lineax", "numpy", "optimistix"
_KNOWN = {"twotime", "builtins", "jaxtyping", *_PACKAGES}
_SWITCH = "jax_enable_compilation_cache"
_WORDS = type(None), bool, int, float, complex, str, bytes


class _Place(NamedTuple):
    """Where an array of the answer comes from."""

    number: int


class _Program(NamedTuple):
    """A compiled function of arrays, and its answer with places for them."""

    run: Any
    answer: Any


class _Kept(NamedTuple):
    folder: Path
    version: str
    programs: dict[str, _Program]


_kept: _Kept | None = None


class _UnknownError(Exception):
    """An argument holds what has no key."""


def keep(folder: Path) -> None:
    """Keep programs in a folder from now on, and look for them there.

    For commands alone: functions that are replaced while a process runs do not change the key.
    """
    global _kept
    is_one_cpu = jax.default_backend() == "cpu" and jax.process_count() == 1
    if not (is_one_cpu and jax.config.values[_SWITCH]):
        return
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    options = sorted((k, repr(v)) for k, v in jax.config.values.items() if "cache" not in k)
    facts = versions, platform.python_version(), os.environ.get("XLA_FLAGS"), options
    digest.update(repr(facts).encode())
    _kept = _Kept(folder, digest.hexdigest(), {})
    # JAX makes the routines of LAPACK known to programs when it first lowers one of them.
    jax.jit(jax.lax.linalg.cholesky).lower(jax.ShapeDtypeStruct((1, 1), float))


def key_of(function: Callable[..., Any], arguments: Any) -> str | None:
    """What a program is kept as; None where it is not."""
    if _kept is None:
        return None
    try:
        parts = [_kept.version, *_description(function, True), *_description(arguments, False)]
    except _UnknownError as exc:
        _log.debug("%s is traced: %s", function.__qualname__, exc)
        return None
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def call(key: str, function: Callable[..., Any], arguments: Any, options: Callable[[], Any]) -> Any:
    """Call a function by its program; one that is not kept yet is compiled."""
    assert _kept is not None
    arrays, rest = eqx.partition(arguments, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    program = _kept.programs.get(key) or _read(_kept.folder / key, len(leaves))
    if program is None:

        def whole(*leaves: Any) -> tuple[list[Any], Any]:
            args, kwargs = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
            return _parts(function(*args, **kwargs))

        program = _compiled(whole, leaves, options)
        _write(_kept.folder / key, program)
    _kept.programs[key] = program
    found = program.run(*leaves)

    def put(x: Any) -> Any:
        return found[x.number] if isinstance(x, _Place) else x

    return jax.tree.map(put, program.answer, is_leaf=lambda x: isinstance(x, _Place))


def _parts(answer: Any) -> tuple[list[Any], Any]:
    """Arrays of an answer, and the answer with their places instead."""
    leaves, structure = jax.tree.flatten(answer)
    arrays = [x for x in leaves if eqx.is_array(x)]
    places = iter(map(_Place, range(len(arrays))))
    named = [next(places) if eqx.is_array(x) else x for x in leaves]
    return arrays, jax.tree.unflatten(structure, named)


def _compiled(
    whole: Callable[..., tuple[list[Any], Any]],
    leaves: list[Any],
    options: Callable[[], Any],
) -> _Program:
    answers = []

    def run(*leaves: Any) -> list[Any]:
        arrays, answer = whole(*leaves)
        answers.append(answer)
        return arrays

    lowered = jax.jit(run, compiler_options=options()).lower(*leaves)
    with _without_cache():
        return _Program(lowered.compile(), answers[-1])


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Leave JAX's own cache alone: programs from there miss their kernels when they are kept."""
    jax.config.update(_SWITCH, False)
    reset_cache()
    try:
        yield
    finally:
        jax.config.update(_SWITCH, True)
        reset_cache()


def _write(path: Path, program: _Program) -> None:
    """Keep a program; a disk that cannot be written to costs the next process its time only."""
    payload, _, made = serialize_executable.serialize(program.run)
    content = zlib.compress(pickle.dumps((payload, made.num_leaves, program.answer)), 1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
    except OSError as exc:
        _log.debug("a program is not kept: %s", exc)


def _read(path: Path, count: int) -> _Program | None:
    """A kept program of so many arrays; None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    payload, made, answer = pickle.loads(zlib.decompress(content))
    taken = jax.tree.structure(((0,) * count, {}))
    run = serialize_executable.deserialize_and_load(payload, taken, jax.tree.structure([0] * made))
    return _Program(run, answer)


def _description(x: Any, is_static: bool) -> Iterator[str]:
    """Lines that tell apart whatever gives another program.

    Args:
        x: An argument or a part of one.
        is_static: Whether it is no part of the tree of arrays, so that numbers in arrays count.

    Raises:
        _UnknownError: If it holds what cannot be described.
    """
    if eqx.is_array(x) and not is_static:
        yield _array(x)
    elif isinstance(x, _WORDS):
        yield repr(x)
    elif isinstance(x, enum.Enum):
        yield f"{_name(type(x))} {x.name}"
    elif isinstance(x, type | types.FunctionType):
        yield _name(x)
    elif isinstance(x, dict | types.MappingProxyType | tuple | list) or dataclasses.is_dataclass(x):
        yield f"{_name(type(x))} ("
        for name, value, is_aside in _members(x):
            yield name
            yield from _description(value, is_static or is_aside)
        yield ")"
    else:
        raise _UnknownError(f"{type(x)} is not kept")


def _array(x: Any) -> str:
    if isinstance(x, jax.Array) and x.devices() != {jax.devices()[0]}:
        raise _UnknownError("an array is not on the first device alone")
    aval = jax.typeof(x)
    return f"{aval.str_short()} {aval.weak_type}"


def _members(x: Any) -> Iterator[tuple[str, Any, bool]]:
    """Parts by name, and whether each is no part of the tree of arrays."""
    if isinstance(x, tuple | list):
        yield from (("", value, False) for value in x)
    elif isinstance(x, dict | types.MappingProxyType):
        yield from ((repr(k), v, not isinstance(x, dict)) for k, v in x.items())
    else:
        is_tree = isinstance(x, eqx.Module)
        for field in dataclasses.fields(x):
            is_aside = not is_tree or field.metadata.get("static", False)
            yield field.name, getattr(x, field.name), is_aside


def _name(x: Any) -> str:
    """Module and name of a class or function.

    Raises:
        _UnknownError: If it is of another package, or made within a function.
    """
    if x.__module__.split(".")[0] not in _KNOWN or "<" in x.__qualname__:
        raise _UnknownError(f"{x.__module__}.{x.__qualname__} may change")
    return f"{x.__module__}.{x.__qualname__}"
