"""The density that `fit_cmc` samples, for samplers and optimisers of other programs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from twotime.compilation import check_is_outside, compiled, constant_by, verb
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.data.scales import check_names
from twotime.fit import check_inputs
from twotime.fit.implicit import constant
from twotime.models.base import AbstractTwoTimeModel, are_known
from twotime.models.scaling import Individual, resolve_mode
from twotime.results.nlsq import NLSQResult
from twotime.sample import chains, cmc, combine, density, inputs, shards
from twotime.sample.coordinates import Coordinates, interval_to_real, logarithms
from twotime.sample.width import WIDTHS, Independent
from twotime.tables import Table, Tabled, number_table

Position = Float[Array, " coordinate"]
_CONSTANT = (
    "Draws have no derivatives by the density that they are of: sample "
    "`jax.lax.stop_gradient(density)`, or differentiate the density itself."
)


class LogDensity(Tabled, eqx.Module):
    """A posterior density on the whole of space: a function of a position, and its bijection.

    A PyTree of arrays: pass it through `jit`, differentiate it, batch it over positions. Contrast
    and offset are integrated out, or coordinates by the name of the first angle that each is of.

    Attributes:
        posterior: What is evaluated.
        start: The position of the fit.
        shape: The mode, and the shape about it, from which `sample` begins.
        names: Name of each coordinate: parameters, contrasts and offsets, noise.
    """

    posterior: density.Posterior
    start: Position
    shape: shards.Shape
    names: tuple[str, ...] = eqx.field(static=True)

    def _shown(self) -> Table | None:
        if not are_known(self) or np.ndim(self.start) != 1:
            return None
        values = self.to_params(self.start).values()
        columns = {"name": self.names, "position of the fit": self.start, "value": values}
        return number_table(f"LogDensity of {len(self.names)} coordinates", columns)

    @verb
    def __call__(self, position: Position) -> Float[Array, ""]:
        """Log density of the posterior in the coordinates, up to a constant."""
        return self.posterior.log_density(jnp.asarray(position))

    @verb
    def log_likelihood(self, params: dict[str, Any]) -> Float[Array, ""]:
        """The same without priors and change of coordinates, for priors of another program.

        Args:
            params: What `to_params` returns: the value of each name [its unit].
        """
        return self.posterior.log_likelihood(self.from_params(params))

    @verb
    def to_params(self, position: Position) -> dict[str, Float[Array, ""]]:
        """Parameters, contrasts and offsets by name [their units], and the noise level."""
        z, zs, log_noise = self.posterior.split(jnp.asarray(position))
        values = [self.posterior.coordinates.to_values(z)]
        if self.posterior.scaling.sampled is not None:
            values.append(self.posterior.scaling.sampled.to_values(zs))
        if self.posterior.noise.size:
            values.append(jnp.exp(log_noise)[None])
        return dict(zip(self.names, jnp.concatenate(values), strict=True))

    @verb
    def from_params(self, params: dict[str, Any]) -> Position:
        """The position of parameters: the inverse of `to_params`.

        Raises:
            ValueError: If a name is missing or unknown.
        """
        wrong = sorted({*params} ^ {*self.names})
        if wrong:
            raise ValueError(
                f"The density is of {', '.join(self.names)}; of those given {', '.join(wrong)} is "
                "missing or unknown."
            )
        values = jnp.stack([jnp.asarray(params[name], float) for name in self.names])
        x, scaling, noise = self.posterior.split(values)
        parts = [_real(self.posterior.coordinates, x)]
        if self.posterior.scaling.sampled is not None:
            parts.append(_real(self.posterior.scaling.sampled, scaling))
        if self.posterior.noise.size:
            parts.append(jnp.log(noise)[None])
        return jnp.concatenate(parts)

    @verb
    def sample(
        self, key: PRNGKeyArray, sampler: chains.AbstractSampler = inputs.NUTS
    ) -> tuple[dict[str, Float[Array, "chain draw"]], chains.Trace]:
        """Draws of chains as `fit_cmc` makes them, adaptation included, as one traceable program.

        Batch it over keys, and over densities of equal shape that are stacked. It looks at nothing
        between draws: no judgement, no progress, nothing kept on disk.

        Args:
            key: Random key.
            sampler: `Nuts` or `Hmc`, with the numbers of chains, warm-up draws and draws.

        Returns:
            Parameters by name [their units] of each draw that is kept, and facts about these.

        Raises:
            TypeError: If the draws are differentiated: they have no derivatives by the density.
        """
        with jax.ensure_compile_time_eval():
            import blackjax  # noqa: F401  loading it computes what must not be traced
        return _sample(self, key, sampler)


@compiled
def _sample(
    density: LogDensity, key: PRNGKeyArray, sampler: chains.AbstractSampler
) -> tuple[dict[str, Array], chains.Trace]:
    known = constant(density)
    mode, root = map(jnp.asarray, known.shape)
    trace = chains.whole_run(known.posterior, mode, root, key, sampler)
    trace = constant_by(trace, density, _CONSTANT)
    return jax.vmap(jax.vmap(known.to_params))(trace.position), trace


def _real(coordinates: Coordinates, values: Float[Array, " free"]) -> Float[Array, " free"]:
    """Coordinates of values inside the domain."""
    s = logarithms(values, coordinates.is_log)
    return interval_to_real(s, coordinates.low, coordinates.high)


@verb
def log_density(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    start: NLSQResult | None = None,
    per_angle_mode: str | Individual = "auto",
    evaluator: str = "auto",
    scaling: str = "auto",
    noise: str = "sampled",
    width: Independent | str = "curvature",
    prior_from_fit: float | None = None,
) -> LogDensity:
    """The density that `fit_cmc` samples with the same arguments.

    This is a host verb: a fit decides how contrast and offset are treated and how wide the
    likelihood is. What it returns is traceable.

    Args:
        model: The model.
        data: The data.
        space: Bounds, priors and which parameters vary.
        start: A fit, about which the likelihood is corrected; None fits first.
        per_angle_mode: As in `fit_cmc`, and all that follow.
        evaluator: What computes the likelihood.
        scaling: Contrast and offset "marginal", "sampled" or "auto".
        noise: An unknown noise level "sampled" or "marginal".
        width: Correction of the likelihood for noise that points share.
        prior_from_fit: Replace priors by normals about the fit.

    Raises:
        TypeError: If values are traced by JAX.
        ValueError: If a value cannot be used.
    """
    check_names(model, space)
    check_is_outside("log_density", (model, data, space), "The density it returns is traceable.")
    mode = resolve_mode(per_angle_mode, data.ring)
    space = check_inputs(model, data, space, mode)
    inputs.check_space(data, space)
    job = cmc.Job(
        model, data, space, jax.random.key(0), start, inputs.NUTS, inputs.WHOLE, inputs.LIMITS,
        mode, evaluator, scaling, prior_from_fit,
        inputs.resolved("noise", noise, density.NOISES), inputs.resolved("width", width, WIDTHS),
        inputs.resolved("combine", inputs.WHOLE.combine, combine.COMBINATIONS),
    )  # fmt: skip
    ready = cmc.prepare(job)
    names = cmc.coordinate_names(ready.posterior)
    place, deviations = shards.position_of_fit(ready.posterior, ready.fit)
    shape = shards.find_shape(ready.posterior, place, deviations)
    known = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, ready.whole)
    return LogDensity(known, jnp.asarray(place), shards.Shape(*map(jnp.asarray, shape)), names)
