"""Time of sampling: draws, effective samples and gradients per second. Prints its figures.

`python benchmarks/sampling.py [frames] [draws]`; XLA_FLAGS=--xla_force_host_platform_device_count=2
for two devices. The plain dense density differs by its likelihood alone: the correlation of the
whole plane and its residuals, differentiated by JAX.
"""

import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import twotime as tt
from twotime.gram import choose_evaluator
from twotime.models.correlation import pairs
from twotime.models.scaling import resolve_mode
from twotime.sample.density import NOISES, Posterior, make_posterior
from twotime.sample.shards import position_of_fit

VALUES = {
    "D0_ref": 3e3, "alpha_ref": 0.2, "D_offset_ref": 0.0,
    "D0_sample": 1e4, "alpha_sample": -0.2, "D_offset_sample": 0.0,
    "v0": 800.0, "beta": -0.1, "v_offset": 0.0,
    "f0": 0.45, "f1": -0.4, "f2": 0.0, "f3": 0.1, "phi0": 0.0,
}  # fmt: skip
FIXED = ("f2", "phi0", "D_offset_ref", "D_offset_sample", "v_offset")


class Dense(eqx.Module):
    """Moments from the whole plane at once, as a density written down plainly has them."""

    data: tt.TwoTimeData
    shift: jax.Array
    n_points: jax.Array

    def moments(self, model, params, varying):
        d = self.data
        upper = jnp.triu(jnp.ones(d.c2.shape[1:]), 1)

        def one(phi, c2):
            channels = model.channels(params, d.t, t=d.t, q=d.q, phi=phi)
            values = model.correlation(pairs(channels))
            basis = jnp.stack([c2 - self.shift, jnp.ones_like(values), values])
            return jnp.einsum("iab,jab,ab->ij", basis, basis, upper)

        return jax.vmap(one)(d.phi, d.c2)


def case(frames):
    t = jnp.arange(1, frames + 1) * (10.0 / frames)
    model = tt.TwoComponent()
    data = tt.simulate(
        model, jnp.asarray(list(VALUES.values())), t=t, q=0.01, phi=jnp.zeros(1), contrast=0.3,
        offset=1.0, noise=0.02, key=jax.random.key(0),
    )  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": "two_component"})
    space = space.with_values(VALUES).with_vary({name: name not in FIXED for name in VALUES})
    return model, data, space


def seconds_per_gradient(posterior, position, chains=2, repeats=10):
    density = eqx.filter_jit(lambda p, v: jax.vmap(jax.value_and_grad(p.log_density))(v))
    v = jnp.tile(jnp.asarray(position), (chains, 1))
    jax.block_until_ready(density(posterior, v))
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(density(posterior, v))
        times.append(time.perf_counter() - begun)
    return min(times) / chains


def main(frames=500, draws=1000):
    jax.config.update("jax_enable_x64", True)
    print(f"devices: {jax.devices()}")
    model, data, space = case(frames)
    fit = tt.fit_nlsq(model, data, space)
    plain, evaluator = choose_evaluator(model, data, "auto")
    posterior = make_posterior(
        model,
        plain,
        space,
        resolve_mode(fit.per_angle_mode, (0,)),
        evaluator,
        scaling="marginal",
        noise=NOISES["sampled"],
    )
    position, _ = position_of_fit(posterior, fit)
    source = Dense(plain, posterior.source.shift, posterior.source.n_points)
    fields = {f: getattr(posterior, f) for f in posterior.__dataclass_fields__}
    dense = Posterior(**(fields | {"source": source}))
    fast, slow = (seconds_per_gradient(p, position) for p in (posterior, dense))
    print(f"a gradient, two chains at once: {evaluator.word} {1e3 * fast:.2f} ms, plain dense "
          f"{1e3 * slow:.2f} ms, {slow / fast:.1f} times", flush=True)  # fmt: skip
    for n_shards in (1, 8):
        begun = time.perf_counter()
        post = tt.fit_cmc(
            model, data, space, key=jax.random.key(1), start=fit, n_shards=n_shards,
            n_samples=draws, devices=jax.devices(),
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        ess = min(post.ess_bulk.values())
        print(f"{n_shards} shards: {seconds:.1f} s with compilation, {ess:.0f} effective draws, "
              f"{ess / seconds:.1f} per second, {float(post.n_gradients) / seconds:.0f} gradients "
              f"per second; {post.status}", flush=True)  # fmt: skip
        print({n: (float(np.mean(x)), float(np.std(x))) for n, x in post.samples.items()})


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
