"""Log densities of posteriors, from the same Gram matrices that fits use.

The likelihood is Gaussian in the points with t1 < t2. For a model C its chi-squared is a
quadratic form of contrasts and offsets whose matrices are sums of products of (data, 1, C):
the corner of the Gram matrix. The other columns of it are the exact derivative, so one
evaluation gives density and gradient, and no derivative runs back through the points.

Contrast and offset are integrated out in closed form (normal prior, bounds left aside) or
sampled; an unknown noise level is sampled by its logarithm or integrated out, its prior 1/noise.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.gram import Evaluator, Prepared
from twotime.gram.pairs import DATA, FIRST, MODEL, ONE
from twotime.gram.problem import Problem, make_problem
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import pairs
from twotime.models.rates import AnyArray
from twotime.models.scaling import Individual
from twotime.sample import coordinates as coords
from twotime.sample.coordinates import Coordinates, Free, Values
from twotime.sample.width import Adjustment, System

Real = Float[AnyArray, ""]
Params = Float[Array, " param"]
Flags = tuple[bool, ...]
Moments = Float[Array, "angle 3 3"]
Position = Float[Array, " coordinate"]


@runtime_checkable
class Density(Protocol):
    """A density on the whole of space, as a PyTree of arrays; `Posterior` is one."""

    def log_density(self, position: Position) -> Float[Array, ""]:
        """Log density up to a constant."""

    def complete(self, position: Position, key: PRNGKeyArray) -> Float[Array, " joint"]:
        """A draw of everything, of what was integrated out given the position."""


class Plane(eqx.Module):
    """All usable points of the data, evaluated by their Gram matrices."""

    data: TwoTimeData
    shift: Float[Array, ""]
    n_points: Real
    prepared: Prepared
    evaluator: Evaluator

    def moments(self, model: AbstractTwoTimeModel, params: Params, varying: Flags) -> Moments:
        """Weighted sums of products of (data, 1, model) of each angle."""
        index = np.flatnonzero(varying)
        others = jax.lax.stop_gradient(params)

        def rows(x: Array, free: Flags) -> Array:
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
            half = jnp.zeros_like(gram[:, :, :FIRST]).at[:, :, MODEL].set(by)
            return gram[:, :, :FIRST], half + half.swapaxes(1, 2)

        return corner(params[index])


class PointList(eqx.Module):
    """Some points of each angle, one after the other; those of weight 0 fill the lists up.

    `early` and `late` are the frames of t1 and t2, `c2` the data less their shift.
    """

    t: Float[AnyArray, " time"]
    q: Float[AnyArray, " angle"]
    phi: Float[AnyArray, " angle"]
    early: Int[AnyArray, "angle point"]
    late: Int[AnyArray, "angle point"]
    c2: Float[AnyArray, "angle point"]
    weight: Float[AnyArray, "angle point"]
    n_points: Real

    def moments(self, model: AbstractTwoTimeModel, params: Params, varying: Flags) -> Moments:
        def one(k: Array) -> Array:
            channels = model.channels(params, self.t, t=self.t, q=self.q[k], phi=self.phi[k])
            at = pairs(channels, self.early[k], self.late[k], by_products=True)
            values = model.correlation(at)
            basis = jnp.stack([self.c2[k], jnp.ones_like(values), values])
            return (basis * self.weight[k]) @ basis.T

        return jax.lax.map(one, jnp.arange(self.phi.shape[0]))


class LinearScaling(eqx.Module):
    """Contrasts and offsets as coefficients on which the data depend linearly.

    Coefficients stand in the order (contrasts, offsets); offsets are less the data's shift.

    Attributes:
        basis: Contrast (or offset) of each angle = basis @ coefficients.
        fixed: Values of all coefficients; those of free ones do not matter.
        centre: Mean of the normal prior of the free coefficients.
        precision: Inverse of its variances.
        sampled: Coordinates of the free coefficients where they are sampled, offsets whole.
        shift: What was subtracted from the free coefficients.
        free: Which coefficients are free.
    """

    basis: Float[AnyArray, "angle coefficient"]
    fixed: Float[AnyArray, " all"]
    centre: Free
    precision: Free
    sampled: Coordinates | None
    shift: Free
    free: tuple[bool, ...] = eqx.field(static=True)

    def system(self, moments: Moments) -> System:
        """Chi-squared as a quadratic form of the free coefficients."""
        b = jnp.asarray(self.basis)
        mm, m1, n, dm, d1 = (
            moments[:, i, j]
            for i, j in ((MODEL, MODEL), (MODEL, ONE), (ONE, ONE), (DATA, MODEL), (DATA, ONE))
        )
        cross = b.T @ (m1[:, None] * b)
        normal = jnp.block([[b.T @ (mm[:, None] * b), cross], [cross, b.T @ (n[:, None] * b)]])
        linear = jnp.concatenate([b.T @ dm, b.T @ d1])
        square = jnp.sum(moments[:, DATA, DATA])
        free, fixed = np.flatnonzero(self.free), np.flatnonzero(~np.asarray(self.free, bool))
        f = jnp.asarray(self.fixed)[fixed]
        square = square - 2 * linear[fixed] @ f + f @ normal[np.ix_(fixed, fixed)] @ f
        linear = linear[free] - normal[np.ix_(free, fixed)] @ f
        return System(square, linear, normal[np.ix_(free, free)])

    def values(self, zs: Values) -> Values:
        """Free coefficients (less the shift) from their part of a completed draw."""
        return zs if self.sampled is None else self.sampled.to_values(zs) - self.shift

    def per_angle(self, free: Values) -> Float[Array, "*draw angle 2"]:
        """Contrast and offset (less the shift) of each angle from the free coefficients."""
        all_ = jnp.broadcast_to(jnp.asarray(self.fixed), (*free.shape[:-1], len(self.free)))
        all_ = all_.at[..., np.flatnonzero(self.free)].set(free)
        n = len(self.free) // 2
        both = [jnp.asarray(x) @ jnp.asarray(self.basis).T for x in (all_[..., :n], all_[..., n:])]
        return jnp.stack(both, axis=-1)


def linear_scaling(problem: Problem, space: ParameterSpace, how: str) -> LinearScaling:
    """Contrasts and offsets "marginal" or "sampled"; without effect where nothing is free."""
    scaling, shift = problem.scaling, problem.shift
    lower, upper = (np.asarray(x).T.reshape(-1) for x in (scaling.lower, scaling.upper))
    free = lower < upper
    n = lower.shape[0] // 2
    kinds = tuple(np.repeat(("contrast", "offset"), n)[free].tolist())
    moved = np.where(np.asarray(kinds) == "offset", float(shift), 0.0)
    centre = precision = np.zeros(len(kinds))
    sampled = None
    if how == "sampled" or not kinds:
        sampled = coords.make_coordinates(space, kinds)
    else:
        # Waves along the angles have no share in the mean of contrast and offset.
        is_wave = np.tile(scaling.mode.waves(n), 2)[free]
        loc, scale = np.asarray([coords.normal_prior(space, kind) for kind in kinds]).T
        moved = np.where(is_wave, 0.0, moved)
        centre, precision = np.where(is_wave, 0.0, loc - moved), scale**-2.0
    fixed, mean, weight, shift = (jnp.asarray(x) for x in (lower, centre, precision, moved))
    return LinearScaling(scaling.basis, fixed, mean, weight, sampled, shift, tuple(free.tolist()))


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

    def log_density(self, position: Position) -> Float[Array, ""]:
        """Logarithm of the Gaussian, up to a constant."""
        away = position - jnp.asarray(self.centre)
        return -0.5 * away @ (jnp.asarray(self.precision) @ away)


class Posterior(eqx.Module):
    """A posterior, or one shard's part of it, as a density on the whole of space.

    A position is (coordinates of the parameters, of the scaling where it is sampled, logarithm
    of the noise where that is sampled).

    Attributes:
        start: All parameters; those of the free ones do not matter.
        share: Power of the prior: 1 / shards.
        power: Power of the likelihood: 1, or less where it is tempered.
        guide: What a shard is multiplied by, if anything.
        adjustment: Where the likelihood is evaluated in place of a position, if elsewhere.
    """

    model: AbstractTwoTimeModel
    source: Plane | PointList
    start: Float[AnyArray, " param"]
    coordinates: Coordinates
    scaling: LinearScaling
    share: Real
    power: Real
    varying: Flags = eqx.field(static=True)
    noise: KnownNoise = eqx.field(static=True)
    guide: Guide | None = None
    adjustment: Adjustment | None = None

    @property
    def plane(self) -> Plane:
        """The source of a posterior of all points."""
        assert isinstance(self.source, Plane)
        return self.source

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Lengths of the parts of a position: parameters, scaling, noise."""
        sampled = () if self.scaling.sampled is None else self.scaling.sampled.names
        return len(self.coordinates.names), len(sampled), self.noise.size

    @property
    def place(self) -> Int[np.ndarray, " coordinate"]:
        """Where the coordinates of a position stand in what `complete` gives."""
        n, m, k = self.sizes
        first = n + sum(self.scaling.free)
        return np.r_[: n + m, first : first + k]

    def log_density(self, position: Position) -> Float[Array, ""]:
        """Log density up to a constant; -inf where it is not finite."""
        z, zs, _ = self.split(position)
        value = self.share * self.coordinates.log_prior(z) + self.log_likelihood(position)
        if self.scaling.sampled is not None:
            value += self.share * self.scaling.sampled.log_prior(zs)
        if self.guide is not None:
            value += self.guide.log_density(position)
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    def log_likelihood(self, position: Position) -> Float[Array, ""]:
        """Log likelihood up to a constant, contrast and offset integrated out if not sampled."""
        z, zs, log_noise = self.split(position)
        system, count = self.system(z), self.source.n_points
        if self.scaling.sampled is None:
            value: Real = self._marginal(system, log_noise)
        else:
            chi2 = system.chi2(self.scaling.values(zs))
            value = self.noise.log_likelihood(chi2, log_noise, self.power, count)
        return jnp.asarray(value - self.power * count * log_noise)

    def complete(self, position: Position, key: PRNGKeyArray) -> Float[Array, " joint"]:
        """A draw of everything: what was integrated out is drawn given what was sampled.

        It is (coordinates of the parameters, of the free scaling, log noise where not known);
        scaling that was integrated out is its own coordinate.
        """
        z, zs, log_noise = self.split(position)
        system = self.system(z)
        if self.scaling.sampled is None:
            factor, best = self._conditional(system, log_noise)
            white = jax.random.normal(key, best.shape, best.dtype)
            zs = best + jax.scipy.linalg.solve_triangular(factor.T, white, lower=False)
        chi2 = self.power * system.chi2(self.scaling.values(zs))
        noise = self.noise.draw(chi2, log_noise, self.power * self.source.n_points, key)
        return jnp.concatenate([z, zs, noise])

    def system(self, z: Float[Array, " free"]) -> System:
        """Chi-squared as a function of contrasts and offsets."""
        s = self.coordinates.to_logarithms(z)
        there = s if self.adjustment is None else self.adjustment.parameters(s)
        values = self.coordinates.without_logarithms(there)
        params = jnp.asarray(self.start).at[np.flatnonzero(self.varying)].set(values)
        system = self.scaling.system(self.source.moments(self.model, params, self.varying))
        if self.adjustment is None:
            return system
        return self.adjustment.system(system, s, self.share)

    def split(self, position: Array) -> tuple[Array, Array, Array]:
        """Coordinates of the parameters, of the scaling, and logarithm of the noise."""
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
    linear = linear_scaling(problem, space, scaling)
    if treatment == MarginalNoise() and linear.sampled is None:
        raise ValueError(
            "noise='marginal' cannot go with scaling='marginal': with a normal prior of contrast "
            "and offset the two have no closed form together; sample one of them."
        )
    count, one = problem.n_points.astype(float), jnp.ones(())
    source = Plane(data, problem.shift, count, problem.prepared, evaluator)
    own = coords.parameter_coordinates(space)
    return Posterior(
        model, source, problem.start, own, linear, one, one, problem.varying, treatment
    )
