"""The judgement of a fit: what its residuals say about the model, and what error bars assume."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twotime.compilation import constant_by
from twotime.models.base import are_known
from twotime.models.rates import AnyArray
from twotime.tables import Table, Tabled, number_table

FALSE_ALARMS = 0.01
"""Part of the fits of right models that are said not to describe the data."""
UNCERTAINTIES = {
    "speckle": "from the covariance of speckle and photon noise at the fitted correlation, its "
    "size from the residuals",
    "residuals": "from the residuals frame by frame, at least that of speckle and photon noise",
}
PRIORS = "; priors of the parameters are included"
_SHAPE = "static scattering, a further component, or a decay of another shape"
_DIRECTION = "shear or flow that the law does not have, or has in another direction"
FAULTS = {
    "static scattering": _SHAPE,
    "another shape": _SHAPE,
    "contrast with age": "a drift of the beam or the detector, or a sample that leaves the beam",
    "rates with age": "a law that ages otherwise",
    "rates with direction": _DIRECTION,
    "rates with direction, oblique": _DIRECTION,
    "rates with wavevector": "another power of q, or a law that holds at some wavevectors alone",
}
"""What laws usually lack, and what leaves it."""
LOOKS = "means", "faults", "frames"
"""What residuals are judged by: means of groups, leanings towards faults, frames of all angles."""
_CONSTANT = (
    "Error bars of a fit, and bands and profiles that rest on them, have no derivatives by what "
    "was fitted: take them from `jax.lax.stop_gradient(fit)`, where they are constants."
)


def without_derivatives(errors: AnyArray, values: Float[AnyArray, "*batch param"]) -> AnyArray:
    """Numbers about the error of fitted values, unchanged.

    Raises:
        TypeError: If the values are differentiated and these numbers are not.
    """
    return constant_by(errors, values, _CONSTANT)


def where(q: AnyArray | None, phi: AnyArray, k: int) -> str:
    """Which matrix is meant, in words: its angle, and its wavevector where each has its own."""
    angle = f"φ = {float(phi[k]):g}°"
    return angle if q is None or not np.ndim(q) else f"q = {float(q[k]):.5g} Å⁻¹, {angle}"


class Structure(Tabled, eqx.Module):
    """Mean residuals of groups of points, and how far noise alone would move them.

    Attributes:
        lag: First lag of each group of lags [s].
        by_lag: Mean residual of each angle at these lags.
        lag_deviation: Standard deviation that the noise gives it.
        age: First time of each group of frames [s].
        by_age: Mean residual of each angle in the rows and columns of these frames (stripes).
        age_deviation: Standard deviation that the noise gives it.
        phi: Detector angles [degree].
        q: Wavevector, one or one per angle [1/Å]; None in folders of earlier versions.
        neighbours: Correlation of residuals one frame apart in a row, of each angle.
        chance: Probability that noise alone leaves a mean as far from zero as the largest, leans
            as far towards one of `FAULTS`, or makes frames of different angles as alike.
        share: Variance of the means by lag beyond their noise, as part of the variance of the
            fitted correlation by lag.
        chances: That probability for each of `LOOKS`; None in folders of earlier versions.
        leanings: How far the residuals lean towards each of `FAULTS` [standard deviations], 0
            where the data cannot tell; None in folders of earlier versions.
        common: How far frames of different angles are alike beyond noise [standard deviations];
            None in folders of earlier versions.
    """

    lag: Float[AnyArray, " group"]
    by_lag: Float[AnyArray, "angle group"]
    lag_deviation: Float[AnyArray, "angle group"]
    age: Float[AnyArray, " period"]
    by_age: Float[AnyArray, "angle period"]
    age_deviation: Float[AnyArray, "angle period"]
    phi: Float[AnyArray, " angle"]
    neighbours: Float[AnyArray, " angle"]
    chance: Float[AnyArray, ""]
    share: Float[AnyArray, ""]
    q: Float[AnyArray, ""] | Float[AnyArray, " angle"] | None = None
    chances: Float[AnyArray, " look"] | None = None
    leanings: Float[AnyArray, " fault"] | None = None
    common: Float[AnyArray, ""] | None = None

    def _shown(self) -> Table | None:
        if not are_known(self) or np.ndim(self.by_lag) != 2:
            return None
        largest = (by.max(axis=0) for by in self.deviations)
        columns = {
            "group": ["lags"] * len(self.lag) + ["frames"] * len(self.age),
            "from [s]": np.concatenate([self.lag, self.age]),
            "largest mean [deviations]": np.concatenate([*largest]),
        }
        return number_table(f"Structure: {self.sentence}", columns)

    @property
    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """Means by lag and by age [standard deviations]."""
        by_lag, by_age = self.by_lag / self.lag_deviation, self.by_age / self.age_deviation
        return np.abs(by_lag), np.abs(by_age)

    @property
    def worst(self) -> tuple[float, float]:
        """Largest mean by lag and by age [standard deviations]."""
        by_lag, by_age = self.deviations
        return float(by_lag.max()), float(by_age.max())

    @property
    def is_right(self) -> bool:
        """Whether the residuals are such as noise leaves them."""
        return bool(self.chance >= FALSE_ALARMS)

    @property
    def found_by(self) -> str:
        """Which of `LOOKS` finds what noise is the least likely to leave."""
        if self.chances is None or self.leanings is None or self.common is None:
            return LOOKS[0]
        far = max(self.worst), float(np.abs(self.leanings).max()), float(self.common)
        # Of means no chances are known below one in thousands.
        order = [(max(float(p), 1e-3), -x) for p, x in zip(self.chances, far, strict=True)]
        return LOOKS[order.index(min(order))]

    @property
    def fault(self) -> str:
        """The one of `FAULTS` that the residuals lean towards most."""
        return list(FAULTS)[int(np.argmax(np.abs(np.asarray(self.leanings))))]

    @property
    def place(self) -> str:
        """Where the largest mean residual is, or what the residuals are alike to, in words."""
        if self.found_by == "frames":
            return "frames of all angles"
        if self.found_by == "faults":
            return self.fault
        lags, ages = self.deviations
        is_lag = lags.max() >= ages.max()
        found, starts, kind = (
            (lags, self.lag, "lags") if is_lag else (ages, self.age, "frames (stripes)")
        )
        k, group = np.unravel_index(np.argmax(found), found.shape)
        return f"{kind} from {float(starts[group]):.3g} s on, {where(self.q, self.phi, int(k))}"

    @property
    def causes(self) -> str:
        """What usually leaves residuals as these, in words."""
        lags, ages = self.deviations
        if self.found_by == "frames":
            return "a beam whose intensity varies, or a law that ages otherwise"
        if self.found_by == "faults":
            return FAULTS[self.fault]
        if ages.max() > lags.max():
            # Of one period alone, or rising and falling along the record.
            others = np.sort(ages.max(axis=0))[:-1]
            if others.size and others[-1] < 0.5 * ages.max():
                return "bad frames, which analyzer_parameters.bad_frames leaves out"
            return "a drift of the beam or the detector, or a law that ages otherwise"
        signed = np.asarray(self.by_lag / self.lag_deviation)
        group = np.argmax(lags.max(axis=0))
        common = np.abs(signed[:, group].mean())
        if len(signed) > 1 and signed[:, group].std() > common:
            shared = "where angles share one contrast, contrast that varies with the angle"
            return f"{_DIRECTION}; {shared}"
        return _SHAPE

    @property
    def sentence(self) -> str:
        """What the residuals say about the model."""
        lags, ages = self.worst
        if self.is_right:
            return (
                f"the residuals are no larger than noise explains (lags within {lags:.1f}, frames "
                f"within {ages:.1f} standard deviations)"
            )
        if self.found_by == "frames":
            said = (
                f"frames of different angles are alike by {self.common:.1f} standard deviations "
                "more than noise makes them"
            )
            bars = "Error bars from the residuals include what a beam does"
        elif self.found_by == "faults":
            far = np.abs(np.asarray(self.leanings)).max()
            said = f"the residuals lean towards {self.fault} by {far:.1f} standard deviations"
            bars = "The error bars do not include this misfit"
        else:
            said = (
                f"the mean residual is {max(lags, ages):.1f} standard deviations of the noise from "
                f"zero ({self.place}); {self.share:.2%} of the signal's variance is left"
            )
            bars = "The error bars do not include this misfit"
        return f"the model does not describe the data: {said}. Usual causes: {self.causes}. {bars}"

    def summary(self) -> dict[str, Any]:
        """The findings by name, for other programs to read."""
        names = "sentence", "is_right", "chance", "share", "place", "causes"
        found = {name: getattr(self, name) for name in names}
        found |= dict(zip(("worst_by_lag", "worst_by_age"), self.worst, strict=True))
        if self.leanings is not None:
            found["leanings"] = dict(zip(FAULTS, map(float, self.leanings), strict=True))
        return found if self.common is None else found | {"common": float(self.common)}
