"""Contrast and offset per angle: which are free, and their best values in closed form.

With the model fixed, c2 = offset + contrast · C is linear in both, so a fit never searches
for them: it solves for them at every step, inside their bounds (variable projection).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.models.base import Check, Finding, ParameterInfo
from twotime.models.rates import AnyArray

PARAMETERS = (
    ParameterInfo(
        "contrast", 0.5, 0.0, 1.0, "Speckle contrast: c2 = offset + contrast · C", "", "scaling",
        prior_mean=0.5, prior_std=0.25, is_scaling=True, is_physical=False,
    ),
    ParameterInfo(
        "offset", 1.0, 0.5, 1.5, "Baseline: c2 = offset + contrast · C", "", "scaling",
        prior_mean=1.0, prior_std=0.25, is_scaling=True, is_physical=False,
    ),
)  # fmt: skip
"""Contrast and offset, which every law has."""


def _contrast_check(x: float, t: AnyArray) -> Iterator[Finding]:
    if x <= 0 or x > 1:
        yield "error", f"contrast = {x:g} is outside (0, 1]; a speckle contrast is not."
    elif x < 0.1:
        yield "warning", f"contrast = {x:g} is below 0.1: a weak signal."


def _offset_check(x: float, t: AnyArray) -> Iterator[Finding]:
    if x <= 0:
        yield "error", f"offset = {x:g} is not positive; for c2 - 1 set baseline: 0 instead."


CHECKS = (Check(("contrast",), _contrast_check), Check(("offset",), _offset_check))
"""Physics checks of contrast and offset."""

FOURIER_ORDER = 2
PerAngleMode = Literal["auto", "individual", "averaged", "constant", "fourier"]
Angles = Float[Array, " angle"]
Basis = Float[Array, "angle coefficient"]
Bounds = Float[Array, " 2"]
Moments = Float[Array, "angle 3 3"]


class Scaling(eqx.Module):
    """How the contrast and offset of every angle follow from their free coefficients.

    Attributes:
        basis: contrast of each angle = basis @ coefficients, and the same for the offset.
        lower: Lower bounds of contrast and offset of each coefficient.
        upper: Upper bounds; equal to `lower` where the value is frozen.
        mode: How they are shared between angles.
    """

    basis: Basis
    lower: Float[Array, "coefficient 2"]
    upper: Float[Array, "coefficient 2"]
    mode: "Individual" = eqx.field(static=True)

    def shared(self, is_shared: Bool[Array, ""]) -> "Scaling":
        """One pair for each ring where `is_shared`, else this one, of a pair for each angle."""
        of_ring = self.mode.in_rings(self.basis.shape[0])
        first = np.argmax(of_ring, axis=0)  # its coefficients are those of the ring
        together = np.zeros(self.basis.shape)
        together[:, first] = of_ring
        basis = jnp.where(is_shared, jnp.asarray(together, self.basis.dtype), self.basis)
        upper = jnp.where(
            is_shared & ~np.any(together, axis=0, keepdims=True).T, self.lower, self.upper
        )
        return Scaling(basis, self.lower, upper, self.mode)

    def solve(self, moments: Moments) -> "ScalingSolution":
        """Contrast and offset inside their bounds that minimise the squared residuals.

        Args:
            moments: Weighted sums of products of (data, 1, model) over the points of each angle.
        """
        return self.mode.solve(moments, self)


class ScalingSolution(eqx.Module):
    """The best contrast and offset for a given model.

    Attributes:
        contrast: Contrast of each angle.
        offset: Offset of each angle.
        free: Which coefficients (contrast, offset) are inside their bounds and not frozen.
    """

    contrast: Angles
    offset: Angles
    free: Bool[Array, "coefficient 2"]


@dataclasses.dataclass(frozen=True)
class Individual:
    """Contrast and offset of their own for every angle.

    Attributes:
        rings: Ring of each matrix, from 0: of equal wavevector; empty for a single ring.
        word: The configuration's word, which results keep.
        is_frozen: Whether contrast and offset are estimates from the data that do not vary.
        is_series: Whether coefficients belong to a series over the angles.
        is_decided: Whether the data decide if the angles share one pair.
    """

    word: ClassVar[str] = "individual"
    is_frozen: ClassVar[bool] = False
    is_series: ClassVar[bool] = False
    is_decided: ClassVar[bool] = False
    rings: tuple[int, ...] = ()

    @property
    def varying(self) -> "Individual":
        """The mode for searching starts: nothing is frozen, nothing to be decided."""
        return Individual(self.rings) if self.is_frozen else self

    def in_rings(self, n_angles: int) -> Float[np.ndarray, "angle ring"]:
        """1 where an angle is of a ring, else 0."""
        rings = np.asarray(self.rings or (0,) * n_angles)
        return np.eye(rings.max() + 1)[rings]

    def waves(self, n_coefficients: int) -> Bool[np.ndarray, " coefficient"]:
        """Which coefficients have no share in the mean over the angles."""
        return np.zeros(n_coefficients, bool)

    def basis(self, phi: Angles) -> Basis:
        """Values of each angle by the coefficients."""
        return jnp.eye(phi.shape[0], dtype=phi.dtype)

    def scaling(
        self,
        phi: Angles,
        lower: Bounds,
        upper: Bounds,
        estimate: Callable[[], Float[Array, "angle 2"]] | None = None,
    ) -> Scaling:
        """The scaling of some angles.

        Args:
            phi: Detector angles [degree].
            lower: Lower bounds of contrast and offset.
            upper: Upper bounds of contrast and offset, equal to `lower` where frozen.
            estimate: Gives contrast and offset of each angle, for the mode that freezes them.
        """
        basis = self.basis(phi)
        if self.is_frozen:
            if estimate is None:
                raise TypeError("The frozen mode needs estimates of contrast and offset; got none.")
            lower = upper = estimate()
        shape = (basis.shape[1], 2)
        return Scaling(basis, jnp.broadcast_to(lower, shape), jnp.broadcast_to(upper, shape), self)

    def solve(self, moments: Moments, scaling: Scaling) -> ScalingSolution:
        """See `Scaling.solve`."""
        one_hot = scaling.basis
        pooled = jnp.einsum("ak,aij->kij", one_hot, moments)
        # Where no angle has a coefficient, any moments will do that have derivatives.
        is_used = jnp.any(one_hot > 0, axis=0)[:, None, None]
        pooled = jnp.where(is_used, pooled, jnp.eye(3))
        best, free = jax.vmap(_solve_box)(pooled, scaling.lower, scaling.upper)
        return ScalingSolution(one_hot @ best[:, 0], one_hot @ best[:, 1], free)


@dataclasses.dataclass(frozen=True)
class Averaged(Individual):
    """One contrast and one offset for all angles of a wavevector."""

    word: ClassVar[str] = "averaged"

    def basis(self, phi: Angles) -> Basis:
        return jnp.asarray(self.in_rings(phi.shape[0]), phi.dtype)


@dataclasses.dataclass(frozen=True)
class Decided(Individual):
    """One contrast and offset for all angles of a wavevector where data agree, else their own."""

    word: ClassVar[str] = "auto"
    is_decided: ClassVar[bool] = True

    @property
    def varying(self) -> Individual:
        return Averaged(self.rings)


@dataclasses.dataclass(frozen=True)
class Frozen(Individual):
    """Contrast and offset of every angle estimated from the data beforehand."""

    word: ClassVar[str] = "constant"
    is_frozen: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class Fourier(Individual):
    """Contrast and offset as Fourier series in the angle, one for each wavevector."""

    word: ClassVar[str] = "fourier"
    is_series: ClassVar[bool] = True

    def waves(self, n_coefficients: int) -> Bool[np.ndarray, " coefficient"]:
        return np.arange(n_coefficients) % (2 * FOURIER_ORDER + 1) > 0

    def basis(self, phi: Angles) -> Basis:
        angle = jnp.deg2rad(phi)
        waves = [f(k * angle) for k in range(1, FOURIER_ORDER + 1) for f in (jnp.cos, jnp.sin)]
        series = jnp.stack([jnp.ones_like(angle), *waves], axis=1)
        rings = jnp.asarray(self.in_rings(phi.shape[0]), phi.dtype)
        return (rings[:, :, None] * series[:, None]).reshape(phi.shape[0], -1)

    def solve(self, moments: Moments, scaling: Scaling) -> ScalingSolution:
        """Best coefficients; angles that leave the bounds are pulled back onto them."""
        b = scaling.basis
        k = b.shape[1]
        weight = moments[:, [2, 2, 1], [2, 1, 1]]
        pull = 1e8 * jnp.max(jnp.abs(weight))
        lower, upper = scaling.lower[0], scaling.upper[0]

        def solve(held: Array, target: Array) -> Array:
            mm, m1, n = weight.T
            mm, n = mm + pull * held[:, 0], n + pull * held[:, 1]
            left = [b.T @ (mm[:, None] * b), b.T @ (m1[:, None] * b)]
            right = [b.T @ (m1[:, None] * b), b.T @ (n[:, None] * b)]
            normal = jnp.block([left, right])
            rhs_c = b.T @ (moments[:, 0, 2] + pull * held[:, 0] * target[:, 0])
            rhs_o = b.T @ (moments[:, 0, 1] + pull * held[:, 1] * target[:, 1])
            x = jnp.linalg.lstsq(normal, jnp.concatenate([rhs_c, rhs_o]))[0]
            return jnp.stack([b @ x[:k], b @ x[k:]], axis=1)

        def hold_more(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
            held, target = state
            values = solve(held, target)
            out = (values < lower) | (values > upper)
            return jnp.where(out, 1.0, held), jnp.where(out, jnp.clip(values, lower, upper), target)

        none = jnp.zeros((b.shape[0], 2), b.dtype)
        held, target = jax.lax.fori_loop(0, FOURIER_ORDER + 2, hold_more, (none, none))
        values = solve(held, target)
        free = jnp.broadcast_to(~jnp.any(held > 0, axis=0), (k, 2)) & (lower < upper)
        return ScalingSolution(values[:, 0], values[:, 1], free)


_MODES = {mode.word: mode for mode in (Individual, Averaged, Frozen, Fourier)}


def resolve_mode(mode: str | Individual, rings: Sequence[int]) -> Individual:
    """The object of a word; "auto" lets the data decide from 3 angles on, individual below.

    Args:
        mode: The word, or a mode.
        rings: Ring of each matrix (`TwoTimeData.ring`): angles of one wavevector.

    Raises:
        ValueError: If the mode is unknown.
    """
    of_each = tuple(rings) if any(rings) else ()
    if isinstance(mode, Individual):
        return dataclasses.replace(mode, rings=of_each)
    if mode == "auto":
        return Decided(of_each) if max(map(rings.count, rings)) >= 3 else Individual(of_each)
    if mode not in _MODES:
        raise ValueError(
            f"per_angle_mode is {mode!r}; expected one of {', '.join(get_args(PerAngleMode))}."
        )
    return _MODES[mode](of_each)


def _solve_box(
    moments: Float[Array, "3 3"], lower: Bounds, upper: Bounds
) -> tuple[Bounds, Bool[Array, " 2"]]:
    """Minimise over one contrast and offset in a box: the inside, then the four edges."""
    (_, d1, dm), (_, n, m1), (_, _, mm) = moments
    tiny = jnp.finfo(moments.dtype).tiny
    n, mm = jnp.maximum(n, tiny), jnp.maximum(mm, tiny)
    variance = mm * n - m1 * m1
    determined = variance > 1e-12 * mm * n
    contrast = (dm * n - d1 * m1) / jnp.where(determined, variance, 1.0)
    inside = jnp.stack([contrast, (d1 - contrast * m1) / n])
    ok = determined & jnp.all((inside >= lower) & (inside <= upper))

    def edge_contrast(c: Array) -> Array:
        return jnp.stack([c, jnp.clip((d1 - c * m1) / n, lower[1], upper[1])])

    def edge_offset(o: Array) -> Array:
        return jnp.stack([jnp.clip((dm - o * m1) / mm, lower[0], upper[0]), o])

    on_edges = [edge_contrast(lower[0]), edge_contrast(upper[0])]
    on_edges += [edge_offset(lower[1]), edge_offset(upper[1])]
    candidates = jnp.stack([inside, *on_edges])
    c, o = candidates.T
    cost = c * c * mm + o * o * n + 2 * c * o * m1 - 2 * c * dm - 2 * o * d1
    cost = cost.at[0].set(jnp.where(ok, -jnp.inf, jnp.inf))
    best = candidates[jnp.argmin(cost)]
    return best, (best > lower) & (best < upper)


def quantile_scaling(
    c2: Float[AnyArray, "angle time time"], used: Bool[AnyArray, "angle time time"] | None = None
) -> Float[Array, "angle 2"]:
    """Estimate contrast and offset of each angle from the data alone.

    The offset is the 10th percentile of c2 at lags from their 80th percentile on; the
    contrast the 90th percentile at lags up to their 20th, minus the offset. The diagonal and
    what is not used are left out.

    Args:
        c2: Two-time correlation.
        used: True where a point counts (`TwoTimeData.usable`); None takes all but NaN.

    Returns:
        Contrast and offset of each angle.
    """
    index = jnp.arange(c2.shape[-1])
    lag = index[None, :] - index[:, None]
    used = (lag > 0) & (True if used is None else used)
    lags = jnp.where(lag > 0, lag, jnp.nan)
    near, far = jnp.nanquantile(lags, jnp.asarray([0.2, 0.8], c2.dtype))

    def percentile(select: Array, level: float) -> Array:
        values = jnp.where(used & select, c2, jnp.nan).reshape(c2.shape[0], -1)
        return jnp.nanquantile(values, level, axis=1)

    offset = percentile(lag >= far, 0.1)
    return jnp.stack([percentile(lag <= near, 0.9) - offset, offset], axis=1)
