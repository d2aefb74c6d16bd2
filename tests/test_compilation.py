import jax
import jax.numpy as jnp
import pytest

from twotime import compilation
from twotime.compilation import compiled


@pytest.fixture(params=["known", "unknown"])
def square(request, monkeypatch):
    """A compiled function, where JAX knows the option of compilation and where it does not."""
    if request.param == "unknown":
        monkeypatch.setattr(compilation, "_FOR_CPUS", {"xla_cpu_no_such_option": False})
    compilation._options.cache_clear()
    yield compiled(lambda x: jnp.sin(x) ** 2)
    compilation._options.cache_clear()


@pytest.mark.parametrize(
    "use",
    [
        lambda f: f,
        jax.jit,
        jax.vmap,
        lambda f: jax.vmap(jax.grad(f)),
        lambda f: jax.vmap(jax.jacfwd(jax.grad(f))),
        lambda f: lambda x: jax.lax.map(f, x),
        lambda f: jax.jit(lambda x: x + f(jnp.arange(3.0))),  # of values known inside a trace
    ],
)
def test_a_compiled_function_can_be_transformed(square, use):
    x = jnp.array([0.1, 0.2, 0.3])
    got, want = use(square)(x), use(lambda x: jnp.sin(x) ** 2)(x)
    assert jnp.allclose(got, want, rtol=1e-12)
