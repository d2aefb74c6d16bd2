"""Compilation with little memory."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

P = ParamSpec("P")
T = TypeVar("T")

# The newer generators of kernels for processors keep a megabyte for each kernel until the whole
# program is compiled, and a fit has hundreds; those before them make fits as fast, but chains that
# run side by side a tenth slower.
_FOR_PROCESSORS = {"xla_cpu_use_fusion_emitters": False}


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function like `equinox.filter_jit`, on processors with less memory and time.

    Inside a transformation of the caller's it is `equinox.filter_jit`, because JAX takes options
    of compilation from the outermost function alone.
    """
    filter_jit: Callable[..., Any] = eqx.filter_jit
    inside = filter_jit(function)
    outside = functools.cache(lambda: filter_jit(function, compiler_options=_options()))

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        leaves = jax.tree.leaves((args, kwargs, jnp.zeros(())))
        is_inside = any(isinstance(x, jax.core.Tracer) for x in leaves)
        return (inside if is_inside else outside())(*args, **kwargs)

    return call


@functools.cache
def _options() -> dict[str, bool] | None:
    """The options that this version of JAX and its default device take."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(jnp.negative, compiler_options=_FOR_PROCESSORS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError as exc:
        if "No such compile option" not in str(exc):
            raise
        return None
    return _FOR_PROCESSORS
