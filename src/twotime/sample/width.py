r"""The width of a posterior, corrected for the noise that points share.

A likelihood of independent points is too narrow for speckle: its curvature at the optimum is that
of the Gauss-Newton matrix H, while estimates scatter with the covariance H⁻¹ B H⁻¹ of the fit's
error bars, B the covariance of the scores. `Curvature` samples
prior(ψ) L(ψ̂ + C (ψ - ψ̂)) with Cᵀ H C = (H⁻¹ B H⁻¹)⁻¹, so that bounds and priors keep their
meaning and no draw is moved afterwards.

ψ are the parameters, amplitudes by their logarithm, then contrasts and offsets. There (and not in
logits, where an optimum on a bound lies at infinity) the map is harmless: amplitudes stay positive,
and ψ̂ + C (ψ - ψ̂) lies within the few deviations of ψ̂ that independent points allow, where the
laws are smooth on both sides of their bounds. C is the symmetric root in the metric of H: of all
roots it moves points least, does not depend on the order or the units of parameters, and is 1
where points are independent. Contrast and offset come last, as in a Cholesky factor, with
symmetric roots of the two blocks: parameters then move by themselves, and chi-squared stays a
quadratic form of contrast and offset, which can be integrated out.

On a bound the score g at ψ̂ is not zero. Alone, C would move the optimum beyond the bound from
ψ̂ + H⁻¹ g to ψ̂ + C⁻¹ H⁻¹ g; a linear term of slope Cᵀ (C - 1) g (in units in which H is 1)
leaves it where it is.

Reference:
    Ribatet, Cooley & Davison, Statistica Sinica 22, 813 (2012); Pauli, Racugno & Ventura,
    Statistica Sinica 21, 149 (2011).
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime import covariance as errors
from twotime.compilation import compiled
from twotime.covariance.agreement import turned_scaling
from twotime.gram.pairs import MODEL, ONE
from twotime.gram.problem import Problem, reduce_gram
from twotime.models.rates import AnyArray, Scalar
from twotime.models.scaling import Scaling, ScalingSolution
from twotime.results.nlsq import NLSQResult, null_directions
from twotime.sample.coordinates import Coordinates, logarithms

Free = Float[AnyArray, " free"]
Both = Float[AnyArray, " both"]
OfFit = Float[np.ndarray, " free"]
OfBoth = Float[np.ndarray, " both"]
Square = Float[AnyArray, "both both"]
_NARROWEST = 1e-2
"""Least variance that is believed, in units of that from independent points."""


class System(eqx.Module):
    """chi2(s) = square - 2 linear·s + s·normal s, for the free coefficients s."""

    square: Float[Array, ""]
    linear: Free
    normal: Float[Array, "free free"]

    def chi2(self, s: Free) -> Float[Array, ""]:
        """Chi-squared at given coefficients."""
        return self.square - 2 * self.linear @ s + s @ (self.normal @ s)


class Adjustment(eqx.Module):
    """Where the likelihood is evaluated in place of a point ψ: ψ̂ + C (ψ - ψ̂).

    Attributes:
        centre: The parameters of ψ̂, amplitudes by their logarithm.
        coefficients: Its free coefficients of contrast and offset (less the data's shift).
        matrix: C: parameters do not follow contrast and offset.
        pull: Slope of the linear term, in units of chi2/2; 0 at an optimum inside the bounds.
    """

    centre: Free
    coefficients: Float[AnyArray, " coefficient"]
    matrix: Square
    pull: Both

    def parameters(self, s: Free) -> Free:
        """Where the model is evaluated."""
        n = self.centre.shape[0]
        return self.centre + jnp.asarray(self.matrix)[:n, :n] @ (s - self.centre)

    def system(self, there: System, s: Free, share: Scalar) -> System:
        """Chi-squared of a share of the points as a form of the coefficients at a point ψ.

        Args:
            there: The form where the model is evaluated.
            s: The parameters of ψ.
            share: Share of the linear term.
        """
        n, away, pull = self.centre.shape[0], s - self.centre, share * self.pull
        follow, spread = (jnp.asarray(self.matrix)[n:, part] for part in (slice(n), slice(n, None)))
        at = self.coefficients + follow @ away - spread @ self.coefficients
        square = there.chi2(at) - 2 * (pull[:n] @ away - pull[n:] @ self.coefficients)
        linear = spread.T @ (there.linear - there.normal @ at) + pull[n:]
        return System(square, linear, spread.T @ there.normal @ spread)


class Information(NamedTuple):
    """What the data alone say about parameters, contrast and offset near the fit.

    Attributes:
        centre: Fitted parameters, amplitudes by their logarithm.
        coefficients: Fitted coefficients of contrast and offset that vary (less the data's shift).
        unit: Matrix that makes deviations from these independent and of variance 1, if points are
            independent.
        spread: Covariance of deviations in these units, by the noise that points share.
        score: Slope of the log likelihood in these units: not 0 on bounds.
        is_null: Which of the units the data do not determine.
        variance: Variance of a point, in units of chi-squared.
    """

    centre: OfFit
    coefficients: Float[np.ndarray, " coefficient"]
    unit: Square
    spread: Square
    score: OfBoth
    is_null: Bool[np.ndarray, " both"]
    variance: float

    @property
    def deviations(self) -> OfBoth:
        """Standard deviations of parameters and coefficients; infinite where not determined."""
        back = np.linalg.inv(self.unit)
        size = np.sqrt(np.einsum("ij,jk,ik->i", back, self.spread, back))
        part = np.abs(back[:, self.is_null]) / np.linalg.norm(back, axis=1)[:, None]
        return np.where((part > 1e-3).any(axis=1), np.inf, size)

    @property
    def of_parameters(self) -> Square:
        """Covariance of the parameters alone, in their units.

        Raises:
            ValueError: If it is not finite.
        """
        n = len(self.centre)
        if not np.isfinite(self.spread).all():
            raise ValueError(
                "The fit has no finite error bars, so the width of the posterior cannot be "
                "corrected for the noise that points share; fit a longer record or fewer "
                "parameters, or set width='none'."
            )
        return self.spread[:n, :n]

    def adjustment(self) -> Adjustment:
        """The map of points that gives the likelihood the curvature of the robust covariance."""
        n, size = len(self.centre), len(self.score)
        own, mixed = self.of_parameters, self.spread[n:, :n]
        narrow = np.zeros((size, size))
        followed = mixed @ _power(own, -1.0)
        rest = _power(self.spread[n:, n:] - followed @ mixed.T, -0.5)
        narrow[:n, :n] = _power(own, -0.5)
        narrow[n:, :n], narrow[n:, n:] = -rest @ followed, rest
        slope = narrow.T @ (narrow - np.eye(size)) @ self.score
        return Adjustment(
            self.centre,
            self.coefficients,
            np.linalg.solve(self.unit, narrow @ self.unit),
            self.variance * self.unit.T @ slope,
        )


def _power(matrix: Square, exponent: float) -> Square:
    """A power of a covariance whose variances are not below the narrowest."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors * np.maximum(values, _NARROWEST) ** exponent) @ vectors.T


class AllFree(Scaling):
    """A scaling whose coefficients count as free on their bounds, too."""

    def solve(self, moments: Float[Array, "angle 3 3"]) -> ScalingSolution:
        return replace(super().solve(moments), free=self.lower < self.upper)


class _Local(NamedTuple):
    """A fit at its end, parameters and contrast and offset each with all their coefficients.

    Attributes:
        hessian: Gauss-Newton matrix of the parameters, contrast and offset projected out.
        normal: That of the coefficients of contrast and offset.
        projection: How the best coefficients follow the parameters, but for the sign.
        slope: Gradient of chi2/2 by parameters and coefficients.
        directions: Directions of the parameters in which `hessian` is 1, as columns.
        scores: Covariance of the scores along these and of the coefficients.
        contrast: Contrast of each angle.
        offset: Offset of each angle (less the shift).
        variance: Chi-squared for each degree of freedom.
    """

    hessian: AnyArray
    normal: AnyArray
    projection: AnyArray
    slope: AnyArray
    directions: AnyArray
    scores: AnyArray
    contrast: AnyArray
    offset: AnyArray
    variance: AnyArray


@compiled
def _linearise(problem: Problem, params: Float[Array, " param"]) -> _Local:
    settings = problem.varying, problem.shift, problem.prepared
    grams = problem.evaluator.gram(problem.model, problem.data, params, *settings)
    reduced, basis = reduce_gram(grams, problem.scaling), problem.scaling.basis
    held = jnp.zeros(reduced.grad.shape, bool)
    inverse = errors.inverse(*errors.spectrum(reduced.hessian, held), held)
    at = errors.LinearisedFit(problem, params, grams, reduced, inverse)
    scores, n, m = errors.speckle_covariance(at).scores, held.size, 2 * basis.shape[1]
    # From scores by contrast and offset turned so that their normal matrix is 1 to coefficients.
    turn = jnp.einsum("ak,aji->aikj", basis, turned_scaling(at)).reshape(-1, m, 2)
    both = jax.vmap(lambda x: jax.scipy.linalg.block_diag(jnp.eye(n), x))(turn)
    solution, linear = reduced.scaling, np.array([MODEL, ONE])
    signs = jnp.stack(
        [jnp.ones_like(solution.offset), -solution.offset, -solution.contrast], axis=1
    )
    residual = jnp.einsum("aij,aj->ai", grams[:, : MODEL + 1, : MODEL + 1], signs)
    by_scaling = -jnp.einsum("ak,ai->ik", basis, residual[:, linear]).reshape(-1)
    normal = jnp.einsum("ak,aij,am->ikjm", basis, grams[:, linear[:, None], linear], basis)
    n_free = n + jnp.sum(solution.free)
    return _Local(
        reduced.hessian,
        normal.reshape(m, m),
        reduced.projection.reshape(m, n),
        jnp.concatenate([reduced.grad, by_scaling]),
        at.root,
        jnp.einsum("aij,ajk,alk->il", both, scores, both),
        solution.contrast,
        solution.offset,
        reduced.chi2 / (problem.n_points - n_free),
    )


def linearise(problem: Problem, coordinates: Coordinates, fit: NLSQResult) -> Information:
    """What the data say about the parameters near a fit, those on a bound included.

    Args:
        problem: The fit, set up with the tiled evaluator.
        coordinates: Coordinates of the parameters that vary.
        fit: The fit.
    """
    scaling = problem.scaling
    free = AllFree(scaling.basis, scaling.lower, scaling.upper, scaling.mode)
    problem = eqx.tree_at(lambda p: p.scaling, problem, free)
    local = _Local(*map(np.asarray, _linearise(problem, jnp.asarray(fit.values))))
    varies = np.asarray(scaling.lower < scaling.upper).T.reshape(-1)
    values = np.asarray(fit.values)[np.flatnonzero(problem.varying)]
    size = np.where(coordinates.is_log, values, 1.0)  # dx/ds
    n, variance = len(values), 1.0 if problem.data.sigma is not None else float(local.variance)
    of_parameters, null = _whitened(local.hessian)
    of_scaling, null_scaling = _whitened(local.normal[np.ix_(varies, varies)])
    projection = local.projection[varies]
    unit = np.block(
        [[of_parameters, np.zeros((n, varies.sum()))], [of_scaling @ projection, of_scaling]]
    )
    # Deviations are the inverse of the normal matrix times the score; without both where null.
    turn = np.zeros(unit.shape)
    turn[:n, :n] = of_parameters @ local.directions
    turn[n:, n:] = np.linalg.inv(of_scaling).T
    used = np.r_[:n, n + np.flatnonzero(varies)]
    is_null = np.concatenate([null, null_scaling])
    spread = turn @ local.scores[np.ix_(used, used)] @ turn.T / variance
    spread = np.where(is_null[:, None] | is_null, np.eye(len(used)), 0.5 * (spread + spread.T))
    unit = unit * np.concatenate([size, np.ones(varies.sum())]) / np.sqrt(variance)
    slope = local.slope[used] * np.concatenate([size, np.ones(varies.sum())])
    basis = np.asarray(scaling.basis)
    both = [np.linalg.lstsq(basis, x)[0] for x in (local.contrast, local.offset)]
    return Information(
        np.asarray(logarithms(jnp.asarray(values), coordinates.is_log)),
        np.concatenate(both)[varies],
        unit,
        spread,
        np.where(is_null, 0.0, -np.linalg.solve(unit.T, slope) / variance),
        is_null,
        variance,
    )


def _whitened(normal: Square) -> tuple[Square, AnyArray]:
    """Matrix whose rows are directions of unit information, and which of them have none."""
    none = jnp.zeros(len(normal), bool)
    values, vectors, scale = errors.spectrum(jnp.asarray(normal), none)
    null = np.asarray(null_directions(values, none))
    root = np.sqrt(np.where(null, 1.0, values))
    return root[:, None] * np.asarray(vectors).T * np.asarray(scale), null


@dataclass(frozen=True)
class Independent:
    """No correction."""

    word: ClassVar[str] = "none"
    text: ClassVar[str] = (
        "not corrected: points are taken as independent, so widths are too small for speckle"
    )

    def changes(self, found: Information) -> dict[str, Any]:
        """Fields of the posterior that the correction sets."""
        return {}

    def ratio(self, found: Information) -> OfFit:
        """Deviations that the likelihood gives parameters, relative to independent points."""
        return np.ones(len(found.centre))


@dataclass(frozen=True)
class Curvature(Independent):
    """The likelihood with the curvature of the robust covariance."""

    word = "curvature"
    text = (
        "from a likelihood whose curvature at the fit takes into account the speckle noise that "
        "points share"
    )

    def changes(self, found: Information) -> dict[str, Any]:
        return {"adjustment": found.adjustment()}

    def ratio(self, found: Information) -> OfFit:
        back, n = np.linalg.inv(found.unit), len(found.centre)
        robust = np.einsum("ij,jk,ik->i", back, found.spread, back)
        return np.sqrt(robust / np.sum(back**2, axis=1))[:n]


@dataclass(frozen=True)
class Tempering(Independent):
    """The likelihood to a power, so that it has the volume of the robust covariance."""

    word = "tempering"
    text = (
        "widened by tempering: the likelihood raised to a power below 1, for the speckle noise "
        "that points share"
    )

    def changes(self, found: Information) -> dict[str, Any]:
        volume = np.linalg.slogdet(found.of_parameters)[1]
        return {"power": jnp.asarray(min(1.0, float(np.exp(-volume / len(found.centre)))))}

    def ratio(self, found: Information) -> OfFit:
        return np.full(len(found.centre), float(self.changes(found)["power"]) ** -0.5)


WIDTHS: dict[str, Independent] = {w.word: w for w in (Curvature(), Tempering(), Independent())}
WIDTHS["sandwich"] = WIDTHS["curvature"]  # its former word: the covariance is the same
