"""Log densities of posteriors, from the same Gram matrices that fits use.

The likelihood is Gaussian in the pixels with t1 < t2. For a model C its chi-squared is a
quadratic form of contrasts and offsets whose matrices are sums of products of (data, 1, C):
the corner of the Gram matrix. The other columns of it are the exact derivative, so one
evaluation gives density and gradient, and no derivative runs back through the pixels.

Contrast and offset are integrated out in closed form (normal prior, bounds left aside) or
sampled; an unknown noise level is sampled by its logarithm or integrated out, its prior 1/noise.
"""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from twotime.data.dataset import TwoTimeData
from twotime.gram.choose import Prepared, evaluate_gram
from twotime.gram.pairs import DATA, FIRST, MODEL, ONE
from twotime.models.base import AbstractTwoTimeModel, Pair
from twotime.models.rates import AnyArray
from twotime.sample.coordinates import Coordinates

Noise = Literal["known", "sampled", "marginal"]


class Plane(eqx.Module):
    """All usable pixels of the data, evaluated by their Gram matrices."""

    data: TwoTimeData
    shift: Float[Array, ""]
    n_pixels: Float[AnyArray, ""]
    prepared: Prepared
    evaluator: str = eqx.field(static=True)

    def moments(
        self,
        model: AbstractTwoTimeModel,
        params: Float[Array, " param"],
        free: tuple[bool, ...],
    ) -> Float[Array, "angle 3 3"]:
        """Weighted sums of products of (data, 1, model) of each angle."""
        index = np.flatnonzero(free)
        others = jax.lax.stop_gradient(params)

        def rows(x: Array, free: tuple[bool, ...]) -> Array:
            at = others.at[index].set(x)
            settings = self.evaluator, model, self.data, at, free, self.shift
            return evaluate_gram(*settings, with_normal=False, prepared=self.prepared)

        @jax.custom_jvp
        def corner(x: Array) -> Array:
            return rows(x, (False,) * len(free))

        @corner.defjvp
        def corner_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
            gram = rows(primals[0], free)
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


class PixelList(eqx.Module):
    """Some pixels of each angle, one after the other; those of weight 0 fill the lists up.

    Attributes:
        t: Frame times [s].
        q: Wavevector [1/Å].
        phi: Detector angles [degree].
        early: Frame of t1.
        late: Frame of t2.
        c2: Data less their shift.
        weight: 1/sigma², or 1 where sigma is not known.
        n_pixels: Pixels that count.
    """

    t: Float[AnyArray, " time"]
    q: Float[AnyArray, ""]
    phi: Float[AnyArray, " angle"]
    early: Int[AnyArray, "angle pixel"]
    late: Int[AnyArray, "angle pixel"]
    c2: Float[AnyArray, "angle pixel"]
    weight: Float[AnyArray, "angle pixel"]
    n_pixels: Float[AnyArray, ""]

    def moments(
        self,
        model: AbstractTwoTimeModel,
        params: Float[Array, " param"],
        free: tuple[bool, ...],
    ) -> Float[Array, "angle 3 3"]:
        """Weighted sums of products of (data, 1, model) of each angle."""
        del free

        def one(k: Array) -> Array:
            channels = model.channels(params, self.t, t=self.t, q=self.q, phi=self.phi[k])
            early, late = self.early[k], self.late[k]
            values = model.correlation(_pixels(channels, early, late))
            basis = jnp.stack([self.c2[k], jnp.ones_like(values), values])
            return (basis * self.weight[k]) @ basis.T

        return jax.lax.map(one, jnp.arange(self.phi.shape[0]))


def _pixels(channels, early: Array, late: Array) -> Pair:
    """Pixels of a list of frames; sine and cosine of differences by sums of products."""
    sin, cos = jnp.sin(channels.phase), jnp.cos(channels.phase)
    sin1, cos1, sin2, cos2 = sin[:, early], cos[:, early], sin[:, late], cos[:, late]
    fall = channels.decay[:, early] - channels.decay[:, late]
    return Pair(
        decay=jnp.exp(jnp.minimum(fall, 0.0)),
        shift=channels.phase[:, late] - channels.phase[:, early],
        sin=sin2 * cos1 - cos2 * sin1,
        cos=cos2 * cos1 + sin2 * sin1,
        level1=channels.level[:, early],
        level2=channels.level[:, late],
    )


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
    centre: Float[AnyArray, " free"]
    precision: Float[AnyArray, " free"]
    sampled: Coordinates | None
    shift: Float[AnyArray, " free"]
    free: tuple[bool, ...] = eqx.field(static=True)

    def system(self, moments: Float[Array, "angle 3 3"]) -> "System":
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
        free, held = np.flatnonzero(self.free), np.flatnonzero(~np.asarray(self.free, bool))
        f = jnp.asarray(self.fixed)[held]
        square = square - 2 * linear[held] @ f + f @ normal[np.ix_(held, held)] @ f
        linear = linear[free] - normal[np.ix_(free, held)] @ f
        return System(square, linear, normal[np.ix_(free, free)])

    def per_angle(self, free: Float[Array, "*draw free"]) -> Float[Array, "*draw angle 2"]:
        """Contrast and offset (less the shift) of each angle from the free coefficients."""
        all_ = jnp.broadcast_to(jnp.asarray(self.fixed), (*free.shape[:-1], len(self.free)))
        all_ = all_.at[..., np.flatnonzero(self.free)].set(free)
        n = len(self.free) // 2
        both = [jnp.asarray(x) @ jnp.asarray(self.basis).T for x in (all_[..., :n], all_[..., n:])]
        return jnp.stack(both, axis=-1)


class System(eqx.Module):
    """chi2(s) = square - 2 linear·s + s·normal s, for the free coefficients s."""

    square: Float[Array, ""]
    linear: Float[Array, " free"]
    normal: Float[Array, "free free"]

    def chi2(self, s: Float[Array, " free"]) -> Float[Array, ""]:
        """Chi-squared at given coefficients."""
        return self.square - 2 * self.linear @ s + s @ (self.normal @ s)


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
        source: The pixels.
        start: All parameters; those of the free ones do not matter.
        coordinates: Coordinates and prior of the free parameters.
        scaling: Contrasts and offsets.
        share: Power of the prior: 1 / shards.
        power: Power of the likelihood: 1, or less where it is tempered.
        varying: Which parameters are free.
        noise: "known" (weights are 1/sigma²), "sampled" or "marginal".
        guide: What a shard is multiplied by, if anything.
    """

    model: AbstractTwoTimeModel
    source: Plane | PixelList
    start: Float[AnyArray, " param"]
    coordinates: Coordinates
    scaling: LinearScaling
    share: Float[AnyArray, ""]
    power: Float[AnyArray, ""]
    varying: tuple[bool, ...] = eqx.field(static=True)
    noise: Noise = eqx.field(static=True)
    guide: Guide | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Lengths of the parts of a position: parameters, scaling, noise."""
        sampled = self.scaling.sampled
        return (
            len(self.coordinates.names),
            0 if sampled is None else len(sampled.names),
            int(self.noise == "sampled"),
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
        system = self._system(z)
        count = self.power * self.source.n_pixels
        if self.scaling.sampled is None:
            value += self._marginal(system, log_noise)
        else:
            value += self.share * self.scaling.sampled.log_prior(zs)
            chi2 = system.chi2(self.scaling.sampled.to_values(zs) - self.scaling.shift)
            if self.noise == "marginal":
                value -= 0.5 * count * jnp.log(chi2)
            else:
                value -= 0.5 * self.power * jnp.exp(-2 * log_noise) * chi2
        value -= count * log_noise
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
        system = self._system(z)
        if self.scaling.sampled is None:
            factor, best = self._conditional(system, log_noise)
            white = jax.random.normal(key, best.shape, best.dtype)
            zs = best + jax.scipy.linalg.solve_triangular(factor.T, white, lower=False)
        if self.noise == "known":
            return jnp.concatenate([z, zs])
        if self.noise == "marginal" and self.scaling.sampled is not None:
            chi2 = system.chi2(self.scaling.sampled.to_values(zs) - self.scaling.shift)
            half = 0.5 * self.power * self.source.n_pixels
            precision = jax.random.gamma(key, half) / (0.5 * self.power * chi2)
            log_noise = -0.5 * jnp.log(precision)
        return jnp.concatenate([z, zs, log_noise[None]])

    def scaling_values(self, zs: Float[Array, "*draw free"]) -> Float[Array, "*draw free"]:
        """Free coefficients (less the shift) from their part of a completed draw."""
        sampled = self.scaling.sampled
        return zs if sampled is None else sampled.to_values(zs) - self.scaling.shift

    def params(self, z: Float[Array, " free"]) -> Float[Array, " param"]:
        """All parameters from the coordinates of the free ones."""
        index = np.flatnonzero(self.varying)
        return jnp.asarray(self.start).at[index].set(self.coordinates.to_values(z))

    def _split(self, position: Array) -> tuple[Array, Array, Array]:
        n, m, _ = self.sizes
        log_noise = position[n + m] if self.noise == "sampled" else jnp.zeros(())
        return position[:n], position[n : n + m], log_noise

    def _system(self, z: Array) -> System:
        moments = self.source.moments(self.model, self.params(z), self.varying)
        return self.scaling.system(moments)

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
