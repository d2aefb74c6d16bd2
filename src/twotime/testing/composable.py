"""Whether a function composes with JAX's transformations: `check_composable`."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.sharding import AxisType, PartitionSpec

VALUE, SLOPE = 1e-10, 1e-4
"""Largest relative difference of values and of derivatives."""
_STEP = 1e-5

Verb = Callable[..., Any]


def check_composable(
    verb: Verb,
    args: Sequence[Any],
    *,
    only: Sequence[str] = (),
    refusals: tuple[type[Exception], ...] = (TypeError, ValueError),
    step: float = _STEP,
    tolerance: float = VALUE,
) -> dict[str, str]:
    """Hold a function under every transformation of JAX against the plain call.

    Values must be equal to `tolerance` of their size, derivatives to central differences to 1e-4. A
    function that cannot be transformed must say so in one sentence of its own, and not by an error
    of JAX about tracers: `refusals` are what it may raise.

    Args:
        verb: Returns a PyTree of arrays; the first argument is differentiated, all are batched.
        args: Its arguments, arrays of floats.
        only: Names of the transformations to try; left out: all of `TRANSFORMATIONS`.
        refusals: Errors by which it may refuse.
        step: Step of the differences, relative to the size of the first argument.
        tolerance: Largest relative difference of values, 1e-10 if nothing amplifies rounding.

    Returns:
        What came of each transformation: "equal", or the sentence of the refusal.

    Raises:
        AssertionError: If a transformation gives other numbers, or fails without a sentence.
    """
    args = tuple(jnp.asarray(x) for x in args)

    def flat(*args: Any) -> Any:
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(verb(*args))])

    plain = np.asarray(flat(*args))
    found = dict[str, str]()
    for name in only or TRANSFORMATIONS:
        transformed, is_derivative = TRANSFORMATIONS[name], name in DERIVATIVES
        try:
            got = np.asarray(transformed(flat, args))
        except refusals as exc:
            if isinstance(exc, _OF_JAX) or "\n" in str(exc).strip():
                raise AssertionError(f"{name} fails without a sentence: {exc}") from exc
            found[name] = str(exc)
            continue
        want = _differences(flat, args, name, step) if is_derivative else plain
        _compare(name, got, want, SLOPE if is_derivative else tolerance)
        found[name] = "equal"
    return found


_OF_JAX = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.UnexpectedTracerError,
)


def _compare(name: str, got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    size = np.max(np.abs(want), initial=0.0) if name in DERIVATIVES else np.abs(want)
    error = np.max(np.abs(got - want) / np.maximum(size, 1e-300), initial=0.0)
    if got.shape != want.shape or not error <= tolerance:
        raise AssertionError(f"{name} differs by {error:.1e} of the plain call's numbers.")


def _differences(flat: Verb, args: tuple[Any, ...], name: str, step: float) -> np.ndarray:
    """Central differences along the first argument, as the transformation gives derivatives."""
    compiled, (x, *rest) = jax.jit(flat), args
    size = step * float(np.max(np.abs(x)))

    def difference(function: Verb, x: Any) -> np.ndarray:
        ends = (np.asarray(function(x + s * size * jnp.ones_like(x))) for s in (1, -1))
        return np.subtract(*ends) / (2 * size)

    if name == "hessian":
        slope = jax.jit(jax.jacfwd(lambda a: _along(flat, (x, *rest), a)))
        ends = (np.asarray(slope(jnp.asarray(s * size))) for s in (1, -1))
        return np.subtract(*ends) / (2 * size)
    found = difference(lambda x: compiled(x, *rest), x)
    return np.asarray(found.sum()) if name == "grad" else found


def _along(flat: Verb, args: tuple[Any, ...], a: Any) -> Any:
    """The function with the first argument moved by `a` in all its elements."""
    return flat(args[0] + a, *args[1:])


def _first(x: Any) -> Any:
    return x[0]


def _stacked(args: tuple[Any, ...], count: int = 2) -> tuple[Any, ...]:
    return tuple(jnp.stack([x] * count) for x in args)


def _scan(flat: Verb, args: tuple[Any, ...]) -> Any:
    return jax.jit(lambda a: jax.lax.scan(lambda c, x: (c, flat(*x)), 0, a)[1])(_stacked(args))[0]


def _cond(flat: Verb, args: tuple[Any, ...]) -> Any:
    def branch(is_asked: Any, args: tuple[Any, ...]) -> Any:
        other = jax.eval_shape(flat, *args)
        return jax.lax.cond(is_asked, flat, lambda *a: jnp.zeros(other.shape, other.dtype), *args)

    return jax.jit(branch)(jnp.asarray(True), args)


def _shard_map(flat: Verb, args: tuple[Any, ...]) -> Any:
    mesh = jax.make_mesh((1,), ("one",), axis_types=(AxisType.Auto,))
    share = PartitionSpec("one")
    mapped = jax.shard_map(
        lambda *a: flat(*map(_first, a))[None],
        mesh=mesh, in_specs=share, out_specs=share, check_vma=False,
    )  # fmt: skip
    return mapped(*_stacked(args, 1))[0]


def _export(flat: Verb, args: tuple[Any, ...]) -> Any:
    """Exported and called; by way of its bytes where flatbuffers, which these need, is there."""
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args]
    exported = export.export(jax.jit(flat))(*shapes)
    if importlib.util.find_spec("flatbuffers") is not None:
        exported = export.deserialize(exported.serialize())
    return exported.call(*args)


def _hessian(flat: Verb, args: tuple[Any, ...]) -> Any:
    along = jax.jacfwd(jax.jacfwd(lambda a: _along(flat, args, a)))
    return jax.jit(along)(jnp.zeros(()))


TRANSFORMATIONS: dict[str, Callable[[Verb, tuple[Any, ...]], Any]] = {
    "jit": lambda f, a: jax.jit(f)(*a),
    "vmap": lambda f, a: jax.vmap(f)(*_stacked(a))[0],
    "vmap of jit": lambda f, a: jax.vmap(jax.jit(f))(*_stacked(a))[0],
    "jit of vmap": lambda f, a: jax.jit(jax.vmap(f))(*_stacked(a))[0],
    "grad": lambda f, a: jnp.sum(jax.jit(jax.grad(lambda *x: jnp.sum(f(*x))))(*a)),
    "jacfwd": lambda f, a: jax.jit(jax.jacfwd(lambda s: _along(f, a, s)))(jnp.zeros(())),
    "jacrev": lambda f, a: jax.jit(jax.jacrev(lambda s: _along(f, a, s)))(jnp.zeros(())),
    "hessian": _hessian,
    "scan": _scan,
    "cond": _cond,
    "checkpoint": lambda f, a: jax.jit(jax.checkpoint(f))(*a),
    "shard_map": _shard_map,
    "pmap": lambda f, a: jax.pmap(f)(*_stacked(a, 1))[0],
    "export": _export,
}
"""How a function of arrays is transformed and called, by name."""
DERIVATIVES = ("grad", "jacfwd", "jacrev", "hessian")
