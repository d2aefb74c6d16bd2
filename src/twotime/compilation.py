"""Compilation with little memory."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from twotime import programs
from twotime.kinds import checked

P = ParamSpec("P")
T = TypeVar("T")

# On jax 0.10.2 the first fit of two components, 1 x 100, compiles with 12 instead of 20 s of CPU
# time and 0.41 instead of 0.94 GB (laminar flow, 10 x 400: 11 instead of 17 s, 0.42 instead of
# 0.92 GB): the newer kernel generators keep a megabyte for each of hundreds of kernels until the
# whole program is compiled. Evaluations are as fast for one angle, and of 10 x 400 slower by a
# third at most. jax 0.12 has the newer generators alone (16 to 19 s, 0.9 GB) and no such option.
_FOR_CPUS = {"xla_cpu_use_fusion_emitters": False}


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function like `equinox.filter_jit`, on CPUs with less memory and time.

    Inside a transformation it is `equinox.filter_jit`, because JAX takes options
    of compilation from the outermost function alone. A command takes the program
    from the disk where an earlier one left it, see `twotime.programs`.
    """
    filter_jit: Callable[..., Any] = eqx.filter_jit
    inside = filter_jit(function)
    outside = functools.cache(lambda: filter_jit(function, compiler_options=_options()))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        leaves = jax.tree.leaves((args, kwargs, jnp.zeros(())))
        if any(isinstance(x, jax.core.Tracer) for x in leaves):
            return inside(*args, **kwargs)
        if (key := programs.key_of(function, (args, kwargs))) is not None:
            return programs.call(key, function, (args, kwargs), _options)
        return outside()(*args, **kwargs)

    return call


def verb(function: Callable[P, T]) -> Callable[P, T]:
    """Run a function that users call under JAX's usual rules, whatever those of the host program.

    A host may have promotion of ranks or types raise, or disallow implicit transfers, to find slips
    in its own code. These hold again when the function returns. Arguments must be of the kinds that
    the function's annotations name, see `twotime.kinds`, and a `key` a random key.
    """
    told = checked(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        key = kwargs.get("key")
        if key is not None and not hasattr(key, "dtype"):
            raise TypeError(f"key is {key!r}; expected a random key: jax.random.key(0).")
        with (
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.transfer_guard("allow"),
        ):
            return told(*args, **kwargs)

    return call


def check_is_outside(verb: str, tree: Any, instead: str) -> None:
    """Refuse traced values in a function that decides on the host.

    Raises:
        TypeError: If there are any; it says what the traceable part is called.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree)):
        raise TypeError(
            f"{verb} decides on the host, so its arguments cannot be traced: call it outside of "
            f"jit, vmap and grad. {instead}"
        )


def constant_by(value: T, by: Any, sentence: str) -> T:
    """A value of which the derivatives by a tree are not known, unchanged.

    Raises:
        TypeError: If the tree is differentiated and the value is not: zero would be wrong. It says
            the sentence.
    """
    is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(by))
    return _guarded(value, by, sentence) if is_traced else value


@eqx.filter_custom_jvp
def _guarded(value: Any, by: Any, sentence: str) -> Any:
    del by, sentence
    return value


@_guarded.def_jvp
def _(primals: Any, tangents: Any) -> Any:
    changes, by, _ = (jax.tree.leaves(x) for x in tangents)
    if by and not changes:
        raise TypeError(primals[2])
    return primals[0], tangents[0]


@functools.cache
def _options() -> dict[str, bool] | None:
    """The options that this version of JAX and its default device take."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(jnp.negative, compiler_options=_FOR_CPUS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError as exc:
        if "No such compile option" not in str(exc):
            raise
        return None
    return _FOR_CPUS
