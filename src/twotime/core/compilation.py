"""Compilation of fits and samplers with little memory."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

P = ParamSpec("P")
T = TypeVar("T")

# The newer generators of kernels for processors keep a megabyte for each kernel until the whole
# program is compiled, and a fit has hundreds; those before them make programs as fast.
_FOR_PROCESSORS = {"xla_cpu_use_fusion_emitters": False}


def compiled(function: Callable[P, T], jit: Callable[..., Any] = eqx.filter_jit) -> Callable[P, T]:
    """Compile a function, on processors with less memory and time than `jit` alone takes.

    Inside a transformation of the caller's it is `jit`, because JAX takes options of compilation
    from the outermost function alone.

    Args:
        function: The function.
        jit: `equinox.filter_jit`, or `jax.jit` with its settings.
    """
    inside = jit(function)
    outside = functools.cache(lambda: jit(function, compiler_options=_options()))

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
    except jax.errors.JaxRuntimeError:  # the option is gone, and what it chose with it
        return None
    return _FOR_PROCESSORS
