"""Log densities of posteriors, from the same Gram matrices that fits use.

The likelihood is Gaussian in the points with t1 < t2. For a model C its chi-squared is a
quadratic form of contrasts and offsets whose matrices are sums of products of (data, 1, C):
the corner of the Gram matrix. The other columns of it are the exact derivative, so one
evaluation gives density and gradient, and no derivative runs back through the points.

Contrast and offset are integrated out in closed form (normal prior, bounds left aside) or
sampled; an unknown noise level is sampled by its logarithm or integrated out, its prior 1/noise.
"""

from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.gram import Evaluator, Prepared
from twotime.gram.pairs import DATA, FIRST, MODEL, ONE
from twotime.gram.problem import make_problem
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import pairs
from twotime.models.rates import AnyArray
from twotime.models.scaling import Individual
from twotime.sample.coordinates import (
    Coordinates,
    LinearScaling,
    System,
    linear_scaling,
    parameter_coordinates,
)

Real = Float[AnyArray, ""]


class Plane(eqx.Module):
    """All usable points of the data, evaluated by their Gram matrices."""

    data: TwoTimeData
    shift: Float[Array, ""]
    n_points: Float[AnyArray, ""]
    prepared: Prepared
    evaluator: Evaluator

    def moments(
        self, model: AbstractTwoTimeModel, params: Float[Array, " param"], varying: tuple[bool, ...]
    ) -> Float[Array, "angle 3 3"]:
        """Weighted sums of products of (data, 1, model) of each angle."""
        index = np.flatnonzero(varying)
        others = jax.lax.stop_gradient(params)

        def rows(x: Array, free: tuple[bool, ...]) -> Array:
            at = others.at[index].set(x)
            settings = model, self.data, at, free, self.shift, self.prepared
            return self.evaluator.gram(*settings, with_normal=False)

        @jax.custom_jvp
        def corner(x: Array) -> Array:
            return rows(x, (False,) * len(varying))

        @corner.defjvp
        def corner_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
            gram = rows(primals[0], varying)
            by = gram[:, :, FIRST:] @ tangents[0]
            zero = jnp.zeros_like(by[:, 0])
            changes = (
                (zero, zero, by[:, DATA]),
                (zero, zero, by[:, ONE]),
                (by[:, DATA], by[:, ONE], 2 * by[:, MODEL]),
            )
            change = jnp.stack([jnp.stack(row, axis=-1) for row in changes], axis=-2)
            return gram[:, :, :FIRST], change

        return corner(params[index])


class PointList(eqx.Module):
    """Some points of each angle, one after the other; those of weight 0 fill the lists up.

    Attributes:
        t: Frame times [s].
        q: Wavevector [1/Å].
        phi: Detector angles [degree].
        early: Frame of t1.
        late: Frame of t2.
        c2: Data less their shift.
        weight: 1/sigma², or 1 where sigma is not known.
        n_points: Points that count.
    """

    t: Float[AnyArray, " time"]
    q: Float[AnyArray, ""]
    phi: Float[AnyArray, " angle"]
    early: Int[AnyArray, "angle point"]
    late: Int[AnyArray, "angle point"]
    c2: Float[AnyArray, "angle point"]
    weight: Float[AnyArray, "angle point"]
    n_points: Float[AnyArray, ""]

    def moments(
        self, model: AbstractTwoTimeModel, params: Float[Array, " param"], varying: tuple[bool, ...]
    ) -> Float[Array, "angle 3 3"]:
        """Weighted sums of products of (data, 1, model) of each angle."""
        del varying

        def one(k: Array) -> Array:
            channels = model.channels(params, self.t, t=self.t, q=self.q, phi=self.phi[k])
            values = model.correlation(
                pairs(channels, self.early[k], self.late[k], by_products=True)
            )
            basis = jnp.stack([self.c2[k], jnp.ones_like(values), values])
            return (basis * self.weight[k]) @ basis.T

        return jax.lax.map(one, jnp.arange(self.phi.shape[0]))


@dataclass(frozen=True)
class KnownNoise:
    """Weights are 1/sigma²."""

    word: ClassVar[str] = "known"
    size: ClassVar[int] = 0

    def log_likelihood(self, chi2: Array, log_noise: Array, power: Real, count: Real) -> Real:
        """Logarithm of the likelihood to a power, but the normalisation by a sampled noise."""
        return -0.5 * power * jnp.exp(-2 * log_noise) * chi2

    def draw(self, chi2: Real, log_noise: Array, count: Real, key: PRNGKeyArray) -> Array:
        """Coordinates of the noise in completed draws; `count` points have this chi-squared."""
        return jnp.zeros(0)


@dataclass(frozen=True)
class SampledNoise(KnownNoise):
    """An unknown noise level, sampled by its logarithm."""

    word = "sampled"
    size = 1

    def draw(self, chi2: Real, log_noise: Array, count: Real, key: PRNGKeyArray) -> Array:
        return log_noise[None]


@dataclass(frozen=True)
class MarginalNoise(KnownNoise):
    """An unknown noise level integrated out in closed form."""

    word = "marginal"

    def log_likelihood(self, chi2: Array, log_noise: Array, power: Real, count: Real) -> Real:
        return -0.5 * power * count * jnp.log(chi2)

    def draw(self, chi2: Real, log_noise: Array, count: Real, key: PRNGKeyArray) -> Array:
        precision = jax.random.gamma(key, 0.5 * count) / (0.5 * chi2)
        return jnp.asarray(-0.5 * jnp.log(precision)[None])


NOISES = {noise.word: noise for noise in (SampledNoise(), MarginalNoise())}


class Guide(eqx.Module):
    """A Gaussian by which a shard's density is multiplied: it stands for the other shards.

    A shard alone may hardly determine the parameters. Guided it is sampled where all of them
    meet; the guide is divided out when shards are combined, so that it changes no posterior.
    """

    centre: Float[AnyArray, " coordinate"]
    precision: Float[AnyArray, "coordinate coordinate"]

    def log_density(self, position: Float[Array, " coordinate"]) -> Float[Array, ""]:
        """Logarithm of the Gaussian, up to a constant."""
        away = position - jnp.asarray(self.centre)
        return -0.5 * away @ (jnp.asarray(self.precision) @ away)


class Posterior(eqx.Module):
    """A posterior, or one shard's part of it, as a density on the whole of space.

    A position is (coordinates of the parameters, of the scaling where it is sampled, logarithm
    of the noise where that is sampled).

    Attributes:
        model: The model.
        source: The points.
        start: All parameters; those of the free ones do not matter.
        coordinates: Coordinates and prior of the free parameters.
        scaling: Contrasts and offsets.
        share: Power of the prior: 1 / shards.
        power: Power of the likelihood: 1, or less where it is tempered.
        varying: Which parameters are free.
        noise: How the noise level is treated.
        guide: What a shard is multiplied by, if anything.
    """

    model: AbstractTwoTimeModel
    source: Plane | PointList
    start: Float[AnyArray, " param"]
    coordinates: Coordinates
    scaling: LinearScaling
    share: Float[AnyArray, ""]
    power: Float[AnyArray, ""]
    varying: tuple[bool, ...] = eqx.field(static=True)
    noise: KnownNoise = eqx.field(static=True)
    guide: Guide | None = None

    @property
    def plane(self) -> Plane:
        """The source of a posterior of all points."""
        assert isinstance(self.source, Plane)
        return self.source

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Lengths of the parts of a position: parameters, scaling, noise."""
        sampled = self.scaling.sampled
        return (
            len(self.coordinates.names),
            0 if sampled is None else len(sampled.names),
            self.noise.size,
        )

    @property
    def place(self) -> Int[np.ndarray, " coordinate"]:
        """Where the coordinates of a position stand in what `complete` gives."""
        n, m, k = self.sizes
        return np.r_[: n + m, n + sum(self.scaling.free) : n + sum(self.scaling.free) + k]

    def log_density(self, position: Float[Array, " coordinate"]) -> Float[Array, ""]:
        """Log density up to a constant; -inf where it is not finite."""
        z, zs, log_noise = self._split(position)
        value = self.share * self.coordinates.log_prior(z)
        system = self.system(z)
        if self.scaling.sampled is None:
            value += self._marginal(system, log_noise)
        else:
            value += self.share * self.scaling.sampled.log_prior(zs)
            chi2 = system.chi2(self.scaling.values(zs))
            value += self.noise.log_likelihood(chi2, log_noise, self.power, self.source.n_points)
        value -= self.power * self.source.n_points * log_noise
        if self.guide is not None:
            value += self.guide.log_density(position)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def complete(
        self, position: Float[Array, " coordinate"], key: PRNGKeyArray
    ) -> Float[Array, " joint"]:
        """A draw of everything: what was integrated out is drawn given what was sampled.

        Args:
            position: A draw of the sampled coordinates.
            key: Random key.

        Returns:
            (coordinates of the parameters, of the free scaling, log noise where not known);
            scaling that was integrated out is its own coordinate.
        """
        z, zs, log_noise = self._split(position)
        system = self.system(z)
        if self.scaling.sampled is None:
            factor, best = self._conditional(system, log_noise)
            white = jax.random.normal(key, best.shape, best.dtype)
            zs = best + jax.scipy.linalg.solve_triangular(factor.T, white, lower=False)
        chi2 = self.power * system.chi2(self.scaling.values(zs))
        noise = self.noise.draw(chi2, log_noise, self.power * self.source.n_points, key)
        return jnp.concatenate([z, zs, noise])

    def params(self, z: Float[Array, " free"]) -> Float[Array, " param"]:
        """All parameters from the coordinates of the free ones."""
        index = np.flatnonzero(self.varying)
        return jnp.asarray(self.start).at[index].set(self.coordinates.to_values(z))

    def system(self, z: Float[Array, " free"]) -> System:
        """Chi-squared as a function of contrasts and offsets."""
        moments = self.source.moments(self.model, self.params(z), self.varying)
        return self.scaling.system(moments)

    def _split(self, position: Array) -> tuple[Array, Array, Array]:
        n, m, k = self.sizes
        return position[:n], position[n : n + m], position[n + m] if k else jnp.zeros(())

    def _conditional(self, system: System, log_noise: Array) -> tuple[Array, Array]:
        """Cholesky factor of the precision of the scaling given the rest, and its mean."""
        tau = self.power * jnp.exp(-2 * log_noise)
        prior = self.share * self.scaling.precision
        factor = jnp.linalg.cholesky(tau * system.normal + jnp.diag(prior))
        pull = tau * system.linear + prior * self.scaling.centre
        return factor, jax.scipy.linalg.cho_solve((factor, True), pull)

    def _marginal(self, system: System, log_noise: Array) -> Array:
        """Log of the likelihood with the scaling integrated out."""
        factor, best = self._conditional(system, log_noise)
        away = best - self.scaling.centre
        tau = self.power * jnp.exp(-2 * log_noise)
        misfit = tau * system.chi2(best)
        misfit += self.share * jnp.sum(self.scaling.precision * away**2)
        return jnp.asarray(-0.5 * misfit - jnp.sum(jnp.log(jnp.diag(factor))))


def make_posterior(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: Individual,
    evaluator: Evaluator,
    *,
    scaling: str,
    noise: KnownNoise,
) -> Posterior:
    """The posterior of all points.

    Args:
        model: The model.
        data: The data, as `choose_evaluator` returns them.
        space: Bounds, priors and what varies.
        mode: How contrast and offset are shared between angles.
        evaluator: What computes the Gram matrices.
        scaling: "marginal" or "sampled".
        noise: How an unknown noise level is treated; without effect where the data have sigma.

    Raises:
        ValueError: If contrast and offset cannot be treated as asked.
    """
    problem = make_problem(model, data, space, mode, evaluator)
    treatment = noise if data.sigma is None else KnownNoise()
    linear = linear_scaling(problem.scaling, space, problem.shift, scaling)
    if treatment == MarginalNoise() and linear.sampled is None:
        raise ValueError(
            "noise='marginal' cannot go with scaling='marginal': with a normal prior of contrast "
            "and offset the two have no closed form together; sample one of them."
        )
    count = problem.n_points.astype(float)
    return Posterior(
        model=model,
        source=Plane(data, problem.shift, count, problem.prepared, evaluator),
        start=problem.start,
        coordinates=parameter_coordinates(space),
        scaling=linear,
        share=jnp.ones(()),
        power=jnp.ones(()),
        varying=problem.varying,
        noise=treatment,
    )
