"""The result of a least-squares fit."""

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from twotime.data.dataset import TwoTimeData
from twotime.kinds import checked
from twotime.models.base import AbstractTwoTimeModel, Curve, numpy_of
from twotime.models.correlation import correlation
from twotime.models.rates import AnyArray
from twotime.results import storage
from twotime.results.folder import new_folder
from twotime.results.judgement import PRIORS, UNCERTAINTIES, Structure, without_derivatives
from twotime.results.unseen import aliases, combined, ends, undetermined
from twotime.solver import RESULTS, places, results_at

# Eigenvalues of the Gauss-Newton matrix scaled to unit diagonal.
_NULL, _SLOPPY = 1e-13, 1e-4
_BEYOND = 10.0
"""Of what has an error so many times as wide as its bounds, the data say nothing."""


class Optimum(NamedTuple):
    """One of the optima found from several starts.

    Attributes:
        chi2: Chi-squared there.
        params: All parameters by name.
        starts: Number of starts that led there.
        is_exchanged: Whether it is the result with its components exchanged, with a worse fit.
    """

    chi2: float
    params: dict[str, float]
    starts: int
    is_exchanged: bool = False


def _as_result(result: Any) -> RESULTS:
    """A result from its number in folders of version 0.1."""
    return result if isinstance(result, RESULTS) else results_at(result)


def _as_structure(structure: Any) -> Structure | None:
    """A judgement from what folders hold of it."""
    return Structure(**structure) if isinstance(structure, dict) else structure


class NLSQResult(storage.AbstractModelResult):
    """A least-squares fit: a PyTree of numbers, with names attached.

    Attributes:
        asked_mode: How contrast and offset may be shared between angles, as it was asked for.
        asked_uncertainty: Where `uncertainties` come from, as it was asked for.
        values: All parameters.
        lower: Their lower bounds.
        upper: Their upper bounds.
        start: Where the fit started.
        q: Wavevector, one or one per angle [1/Å]; None in folders of earlier versions.
        rings: Ring of equal wavevector of each matrix, from 0; empty for one wavevector.
        weight: How much the matrices of each ring counted, relative to others; None: all alike.
        phi: Detector angles [degree].
        contrast: Contrast of each angle.
        offset: Offset of each angle.
        scaling_at_bound: Whether contrast or offset of an angle lies on a bound.
        scaling_deviation: Standard deviation of contrast and offset of each angle: infinite where
            not determined, 0 where not fitted or on a bound; None in earlier folders.
        chi2: Sum of squared residuals over t1 < t2, divided by sigma² if sigma was given; for
            every loss.
        n_points: Elements of c2 that were fitted.
        dof: `n_points` minus the number of fitted parameters, contrast and offset included.
        total: Weighted sum of squares of the data about the mean of each angle.
        covariance: Covariance of the fitted parameters; zero for those held on a bound.
        covariance_iid: The same if all points were independent.
        held: Fitted parameters that ended on a bound.
        eigenvalues: Of the Gauss-Newton matrix scaled to unit diagonal, ascending.
        eigenvectors: Its eigenvectors as columns, in units of each parameter's deviation.
        result: How the fit ended.
        gradient: Largest projected gradient [standard deviations].
        step: Remaining Newton step [standard deviations].
        n_evaluations: Evaluations of the model.
        pixels: Effective number of independent speckles per angle, from the residuals.
        photons: Mean counts per detector pixel and frame, from the residuals, one per ring where
            there are several; infinite without shot noise.
        starts: Parameters at each start; `start` is the one that led to the result.
        ends: Parameters at the end of the fit from each start.
        ends_chi2: Chi-squared there (`cost` with a robust loss); infinite where not finite.
        ends_result: How each of these fits ended.
        ends_same: Which of them found the result, labels of components aside.
        ends_exchanged: Which of them have the components of the result exchanged; None for models
            without such labels.
        loss: Loss of the residual of a point.
        loss_scale: Residual above which a robust loss departs from the square [noise level]; None
            for least squares, as are the next two.
        noise_level: Noise level of each angle [sigma, or c2 without sigma].
        cost: Robust cost, which was minimised instead of chi2.
        is_shared: Whether all angles share contrast and offset; None where nothing was decided.
        own_scaling: How far contrast and offset of its own would move each angle where all share
            them [standard deviations]; None where nothing was decided.
        structure: What the residuals say about the model; None where they were not judged.
        from_residuals: Whether `covariance` is that of the residuals; None where not decided.
        correlation_ends: Fitted correlation of each angle between neighbouring frames in the middle
            of the record, and between the first and the last frame.
        turn_per_frame: Largest phase by which a drift turns a component of each angle between
            neighbouring frames [rad].
        with_priors: Whether the priors of the parameters counted as residuals: the result is then
            a maximum a posteriori estimate, and its uncertainties include them.
    """

    FORMER_NAMES: ClassVar[Mapping[str, str]] = {
        "n_pixels": "n_points",
        "n_steps": "n_evaluations",
        "code": "result",
        "ends_code": "ends_result",
        "per_angle_mode": "asked_mode",
        "uncertainty_kind": "asked_uncertainty",
    }
    asked_mode: str = eqx.field(static=True)
    asked_uncertainty: str = eqx.field(static=True)
    values: Float[Array, " param"]
    lower: Float[Array, " param"]
    upper: Float[Array, " param"]
    start: Float[Array, " param"]
    phi: Float[Array, " angle"]
    contrast: Float[Array, " angle"]
    offset: Float[Array, " angle"]
    scaling_at_bound: Bool[Array, "angle 2"]
    chi2: Float[Array, ""]
    n_points: Int[Array, ""]
    dof: Int[Array, ""]
    total: Float[Array, ""]
    covariance: Float[Array, "free free"]
    covariance_iid: Float[Array, "free free"]
    held: Bool[Array, " free"]
    eigenvalues: Float[Array, " free"]
    eigenvectors: Float[Array, "free free"]
    result: RESULTS = eqx.field(converter=_as_result)
    gradient: Float[Array, ""]
    step: Float[Array, ""]
    n_evaluations: Int[Array, ""]
    pixels: Float[Array, " angle"]
    photons: Float[Array, "*ring"]
    starts: Float[Array, "start param"]
    ends: Float[Array, "start param"]
    ends_chi2: Float[Array, " start"]
    ends_result: RESULTS = eqx.field(converter=_as_result)
    ends_same: Bool[Array, " start"] | None = None
    ends_exchanged: Bool[Array, " start"] | None = None
    loss: str = eqx.field(static=True, default="linear")
    loss_scale: Float[Array, ""] | None = None
    noise_level: Float[Array, " angle"] | None = None
    cost: Float[Array, ""] | None = None
    correlation_ends: Float[Array, "angle 2"] | None = None
    is_shared: Bool[Array, ""] | None = None
    own_scaling: Float[Array, "angle 2"] | None = None
    structure: Structure | None = eqx.field(default=None, converter=_as_structure)
    from_residuals: Bool[Array, ""] | None = None
    with_priors: bool = eqx.field(static=True, default=False)
    q: Float[Array, ""] | Float[Array, " angle"] | None = None
    rings: tuple[int, ...] = eqx.field(static=True, default=())
    weight: Float[Array, " angle"] | None = None
    turn_per_frame: Float[Array, " angle"] | None = None
    scaling_deviation: Float[Array, "angle 2"] | None = None

    @property  # type: ignore[misc]
    def per_angle_mode(self) -> str:  # type: ignore[override]
        """How contrast and offset are shared between angles; "auto" while traced or stacked."""
        if self.is_shared is None or not self._is_one():
            return self.asked_mode
        return "averaged" if self.is_shared else "individual"

    @property
    def uncertainty_kind(self) -> str:
        """What `uncertainties` assume, in words; "auto" while traced or stacked."""
        asked = self.asked_uncertainty
        if asked == "auto" and self._is_one():
            asked = "residuals" if self.from_residuals else "speckle"
        return UNCERTAINTIES.get(asked, asked) + (PRIORS if self.with_priors else "")

    @property
    def optima(self) -> tuple[Optimum, ...]:
        """The different optima at which fits converged, the result first.

        Optima count as the same if their chi2 agrees to 1e-6, and if they differ from the result
        only by labels of components that the data cannot distinguish.
        """
        self._check_is_one()
        chi2, found = np.asarray(self.ends_chi2), list[Optimum]()
        none = np.zeros(chi2.shape, bool)
        same = none if self.ends_same is None else np.asarray(self.ends_same)
        exchanged = none if self.ends_exchanged is None else np.asarray(self.ends_exchanged)
        converged = np.asarray(self.ends_result == RESULTS.successful)
        if (same & converged).any():
            smallest = self.chi2 if self.cost is None else self.cost
            found.append(Optimum(float(smallest), self.params, int((same & converged).sum())))
        for k in np.argsort(chi2, kind="stable").tolist():
            if same[k] or not converged[k]:
                continue
            if found and abs(chi2[k] - found[-1].chi2) <= 1e-6 * found[-1].chi2:
                found[-1] = found[-1]._replace(starts=found[-1].starts + 1)
                continue
            ends = np.asarray(self.ends[k]).tolist()
            params = dict(zip(self.all_names, ends, strict=True))
            found.append(Optimum(chi2[k].item(), params, 1, bool(exchanged[k])))
        return tuple(found)

    n_pixels = storage.former("n_pixels", "n_points")
    n_steps = storage.former("n_steps", "n_evaluations")
    code = storage.former("code", "result", places)
    ends_code = storage.former("ends_code", "ends_result", places)

    @property
    def uncertainties(self) -> dict[str, Any]:
        """Standard deviations of the fitted parameters by name; `uncertainty_kind` says which.

        NaN for a parameter held on a bound, infinite for one that the data do not determine: along
        a null direction, or by an error more than ten times as wide as the bounds.
        """
        return self._deviations(self.covariance)

    @property
    def uncertainties_iid(self) -> dict[str, Any]:
        """Standard deviations if all points were independent: too small for real speckle."""
        return self._deviations(self.covariance_iid)

    def intervals(self, level: float = 0.95) -> dict[str, tuple[Any, Any]]:
        """Intervals that hold each fitted parameter with a probability: lower and upper ends.

        By `uncertainties`, inside the bounds; of a parameter that cannot be negative by those of
        its logarithm, which are nearer to normal. NaN for a parameter held on a bound.

        Args:
            level: The probability, between 0 and 1.

        Raises:
            ValueError: If it is not.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; expected between 0 and 1, such as 0.95.")
        reach = NormalDist().inv_cdf(0.5 + 0.5 * level)
        xp = numpy_of(deviation := self._deviation(self.covariance))
        value, low, high = map(self._of_free, (self.values, self.lower, self.upper))
        is_positive = (low >= 0) & (value > 0)
        size = xp.where(is_positive, value, 1.0)
        factor = xp.exp(xp.minimum(reach * deviation / size, 700.0))
        least = xp.where(is_positive, value / factor, value - reach * deviation)
        most = xp.where(is_positive, value * factor, value + reach * deviation)
        ends = [self._by_name(self.names, xp.clip(x, low, high)) for x in (least, most)]
        return {name: (ends[0][name], ends[1][name]) for name in self.names}

    @property
    def scaling_uncertainties(self) -> dict[str, Any]:
        """Standard deviations of "contrast" and "offset", each one number per angle.

        NaN and infinite as `uncertainties`. Empty for results of earlier versions.
        """
        if self.scaling_deviation is None:
            return {}
        known = without_derivatives(self.scaling_deviation, self.values)
        xp = numpy_of(known)
        known = xp.where(known > 0, known, xp.nan)
        return {"contrast": known[..., 0], "offset": known[..., 1]}

    @property
    def reduced_chi2(self) -> Float[Array, ""]:
        """chi2 / dof: near 1 if sigma was given, else the variance of one point."""
        return self.chi2 / self.dof

    @property
    def r_squared(self) -> Float[Array, ""]:
        """1 - chi2/total: the fraction of the variation of the data that the fit describes.

        Not a measure of quality if the noise is large.
        """
        return 1 - self.chi2 / self.total

    @property
    def converged(self) -> Any:
        """Whether gradient and step were checked and found within tolerance.

        True or false; an array of flags where results are traced or stacked.
        """
        is_good = jnp.asarray(self.result == RESULTS.successful)
        return bool(is_good) if self._is_one() else is_good

    @property
    def status(self) -> str:
        """How the fit ended, as a sentence."""
        self._check_is_one()
        sentence = RESULTS[self.result]  # type: ignore[misc, type-arg]
        return (
            f"{sentence} (projected gradient {float(self.gradient):.1e}, "
            f"step left {float(self.step):.1e} standard deviations, "
            f"{int(self.n_evaluations)} evaluations)"
        )

    @property
    def at_bound(self) -> tuple[str, ...]:
        """Names of the fitted parameters, and contrast and offset, that ended on a bound."""
        self._check_is_one()
        held = [n for n, on in zip(self.names, np.asarray(self.held), strict=True) if on]
        flags = np.asarray(self.scaling_at_bound)
        scaling = [n for k, n in enumerate(("contrast", "offset")) if flags[:, k].any()]
        return tuple(held + scaling)

    @property
    def correlation(self) -> Float[AnyArray, "*batch free free"]:
        """Correlation matrix of the fitted parameters; NaN where there is no deviation."""
        xp = numpy_of(self.covariance)
        cov = xp.asarray(self.covariance)
        variance = xp.diagonal(cov, axis1=-2, axis2=-1)
        deviation = xp.sqrt(xp.where(variance > 0, variance, xp.nan))
        return cov / (deviation[..., :, None] * deviation[..., None, :])

    @property
    def undetermined(self) -> Bool[AnyArray, "*batch direction free"]:
        """Which parameters take part in each direction, where it is a null direction.

        Directions are those of `eigenvectors`.
        """
        xp = numpy_of(self.eigenvalues)
        null = null_directions(self.eigenvalues, self.held)
        return null[..., None] & (xp.abs(xp.swapaxes(xp.asarray(self.eigenvectors), -2, -1)) > 1e-3)

    @property
    def null_directions(self) -> tuple[str, ...]:
        """Parameters, and combinations of them, that the data do not determine, in words."""
        self._check_is_one()
        parts = np.asarray(self.undetermined)
        alone = np.isinf(np.asarray(self._deviation(self.covariance))) & ~parts.any(axis=0)
        return undetermined(self.names, parts, alone)

    @property
    def unseen(self) -> tuple[str, ...]:
        """What the record cannot show, in words: ends of a decay, how fast a drift is."""
        self._check_is_one()
        return (*aliases(self.turn_per_frame, self.phi), *ends(self.correlation_ends))

    @property
    def sloppy_directions(self) -> tuple[str, ...]:
        """Combinations of parameters that the data determine poorly, in words.

        Along these the error is more than 100 times that of a parameter with the others fixed.
        """
        self._check_is_one()
        values = np.asarray(self.eigenvalues)
        sloppy = (values >= _NULL) & (values < _SLOPPY)
        return combined(self.names, values[sloppy], np.asarray(self.eigenvectors).T[sloppy])

    @checked
    def save(
        self,
        folder: str | Path,
        model: AbstractTwoTimeModel | None = None,
        data: TwoTimeData | None = None,
        *,
        curves: Mapping[str, Curve] | None = None,
        provenance: storage.Provenance | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write result.json, report.md and arrays.npz into a new folder, completely or not at all.

        Args:
            folder: The folder; may exist if it is empty.
            model: The model that was fitted; with `data`, its correlation is saved, too.
            data: The data that were fitted.
            curves: Functions of time as `twotime.run.functions_of_time` returns them.
            provenance: Where the result comes from.
            overwrite: Whether an existing result may be replaced.

        Raises:
            TypeError: If one of model and data is given without the other.
            ResultError: If the folder cannot be written, or holds what may not be replaced.
        """
        if (model is None) != (data is None):
            raise TypeError("save got one of model and data; expected both, or none of them.")
        arrays = fitted_arrays(self, model, data) if model is not None and data is not None else {}
        with new_folder(Path(folder), overwrite=overwrite) as temporary:
            storage.write(temporary, self, arrays=arrays, curves=curves, provenance=provenance)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(getattr(self, name)) for name in ("phi", "contrast", "offset")}

    def _deviations(self, covariance: Float[AnyArray, "*batch free free"]) -> dict[str, Any]:
        return self._by_name(self.names, self._deviation(covariance))

    def _of_free(self, x: Float[AnyArray, "*batch param"]) -> Float[AnyArray, "*batch free"]:
        """Of all parameters those that were fitted."""
        return numpy_of(x).asarray(x)[..., np.flatnonzero(self.varying)]

    def _deviation(self, covariance: Float[AnyArray, "*batch free free"]) -> AnyArray:
        xp = numpy_of(covariance := without_derivatives(covariance, self.values))
        variance = xp.maximum(xp.diagonal(covariance, axis1=-2, axis2=-1), 0.0)
        deviation = xp.where(self.undetermined.any(axis=-2), xp.inf, xp.sqrt(variance))
        low, high = self._of_free(self.lower), self._of_free(self.upper)
        deviation = xp.where(deviation > _BEYOND * (high - low), xp.inf, deviation)
        return xp.where(xp.asarray(self.held), xp.nan, deviation)


def null_directions(
    eigenvalues: Float[AnyArray, "*batch free"], held: Bool[AnyArray, "*batch free"]
) -> Bool[AnyArray, "*batch free"]:
    """Which eigenvalues of a unit-diagonal Gauss-Newton matrix are zero by rounding.

    Parameters held on a bound have the eigenvalue -1: they come first and do not count.
    """
    xp = numpy_of(eigenvalues, held)
    eigenvalues, held = xp.asarray(eigenvalues), xp.asarray(held)
    first = xp.arange(eigenvalues.shape[-1]) >= xp.sum(held, axis=-1, keepdims=True)
    return first & (eigenvalues < _NULL)


def fitted_arrays(
    fit: NLSQResult, model: AbstractTwoTimeModel, data: TwoTimeData
) -> dict[str, np.ndarray]:
    """The data with their axes, the fitted c2 and the residual, in the precision of the data.

    Args:
        fit: The result.
        model: The model that was fitted.
        data: The data that were fitted.

    Returns:
        t, q, phi, c2, model, residual, contrast, offset, baseline; mask and sigma if the data have
        them.
    """
    names = "t", "q", "phi", "c2", "mask", "sigma", "baseline"
    arrays = {n: np.asarray(x) for n in names if (x := getattr(data, n)) is not None}
    t, q, phi = jnp.asarray(data.t), jnp.asarray(data.q), jnp.asarray(data.phi)
    curves = _correlation(model, jnp.asarray(fit.values), t=t, q=q, phi=phi)
    scale = np.asarray(fit.contrast)[:, None, None]
    fitted = scale * np.asarray(curves) + np.asarray(fit.offset)[:, None, None]
    arrays["model"] = fitted.astype(arrays["c2"].dtype)
    arrays["residual"] = (arrays["c2"] - fitted).astype(arrays["model"].dtype)
    return arrays | fit._arrays()


_correlation = eqx.filter_jit(correlation)
