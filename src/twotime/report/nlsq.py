"""Words about least-squares fits: tables, sentences, and what other programs read."""

import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Bool

from twotime.report import Description, Table, error_text, sentence, with_error
from twotime.results.nlsq import NLSQResult, SequentialResult
from twotime.results.storage import describe


@describe.register
def describe_fit(fit: NLSQResult) -> Description:
    """Words about a least-squares fit."""
    return Description(
        title=f"{fit.model}: least squares on {len(fit.phi)} angles",
        lead=(sentence(fit.status), f"Evaluator: {fit.evaluator}.{_loss(fit)}"),
        tables=(parameter_table(fit), scaling_table(fit), quality_table(fit)),
        remarks=remarks(fit),
        summary=functools.partial(nlsq_summary, fit),
    )


@describe.register
def describe_angles(result: SequentialResult) -> Description:
    """Words about fits of one angle after another."""
    more = "Each angle's own report and figures are in the folder of the angle."
    return Description(
        title=f"{result.fits[0].model}: least squares on {len(result.fits)} angles, one by one",
        lead=(sentence(result.status), more),
        tables=(angle_table(result),),
        remarks=angle_remarks(result),
        summary=lambda: {
            "converged": result.converged,
            "status": result.status,
            "angles": [fit.summary() for fit in result.fits],
        },
    )


def _loss(fit: NLSQResult) -> str:
    """What was minimised in place of squares, and why the evaluator is what it is."""
    if fit.cost is None or fit.noise_level is None or fit.loss_scale is None:
        return ""
    levels = np.asarray(fit.noise_level)
    level = (
        f"{levels.min():.3g}"
        if np.ptp(levels) < 5e-3 * levels.min()
        else (f"{levels.min():.3g} to {levels.max():.3g}")
    )
    return (
        f" Not squares but the loss {fit.loss} was minimised, which weighs every pixel by itself "
        f"and needs that evaluator; it departs from squares at {float(fit.loss_scale):g} times "
        f"the noise level of {level}."
    )


def nlsq_summary(fit: NLSQResult) -> dict[str, Any]:
    """What was found, by name, for other programs to read."""
    deviation, iid = fit.uncertainties, fit.uncertainties_iid
    columns = zip(
        fit.all_names, fit.units, fit.varying, fit.values, fit.lower, fit.upper,
        fit.start, strict=True,
    )  # fmt: skip
    parameters = {
        name: {
            "value": value,
            "unit": unit,
            "fitted": fitted,
            "uncertainty": deviation.get(name),
            "uncertainty_iid": iid.get(name),
            "lower": lower,
            "upper": upper,
            "start": start,
            "at_bound": name in fit.at_bound,
        }
        for name, unit, fitted, value, lower, upper, start in columns
    }
    return {
        "converged": fit.converged,
        "status": fit.status,
        "parameters": parameters,
        "uncertainty_kind": fit.uncertainty_kind,
        "per_angle_mode": fit.per_angle_mode,
        "evaluator": fit.evaluator,
        "phi_degree": fit.phi,
        "contrast": fit.contrast,
        "offset": fit.offset,
        "at_bound": fit.at_bound,
        "null_directions": fit.null_directions,
        "sloppy_directions": fit.sloppy_directions,
        "loss": {
            "kind": fit.loss,
            "scale": fit.loss_scale,
            "noise_level": fit.noise_level,
            "robust_cost": fit.cost,
        },
        "chi2": fit.chi2,
        "dof": fit.dof,
        "reduced_chi2": fit.reduced_chi2,
        "detector_pixels": fit.pixels,
        "photons": fit.photons,
        "r_squared": fit.r_squared,
        "correlation": {"names": fit.names, "matrix": fit.correlation},
    }


def parameter_table(fit: NLSQResult) -> Table:
    """Parameters with their standard deviations and bounds."""
    deviation = fit.uncertainties
    robust, iid = (
        [error_text(by_name.get(name)) for name in fit.all_names]
        for by_name in (deviation, fit.uncertainties_iid)
    )
    lower, upper = np.asarray(fit.lower), np.asarray(fit.upper)
    columns = {
        "parameter": fit.all_names,
        "value": [with_error(value, deviation.get(name)) for name, value in fit.params.items()],
        "±": robust,
        "± if independent": iid,
        "ratio": [_ratio(deviation.get(n), fit.uncertainties_iid.get(n)) for n in fit.all_names],
        "unit": fit.units,
        "bounds": [
            f"[{low:g}, {high:g}]" if free else ""
            for low, high, free in zip(lower, upper, fit.varying, strict=True)
        ],
        "start": [f"{value:.4g}" for value in np.asarray(fit.start)],
    }
    if robust == iid:
        del columns["± if independent"], columns["ratio"]
    return Table("Parameters", tuple(columns), tuple(zip(*columns.values(), strict=True)))


def _ratio(deviation: float | None, iid: float | None) -> str:
    """How many times larger one standard deviation is than the other, where both are numbers."""
    if deviation is None or iid is None or not 0 < iid < math.inf:
        return ""
    return f"{deviation / iid:.1f}" if math.isfinite(deviation) else ""


def scaling_table(fit: NLSQResult) -> Table:
    """Contrast and offset of the angles, in one row where they are common to all."""
    columns = zip(*map(np.asarray, (fit.phi, fit.contrast, fit.offset)), strict=True)
    bound = np.asarray(fit.scaling_at_bound)
    rows = [
        (f"{phi:g}", f"{contrast:.5g}", f"{offset:.6g}", _on_bound(bound[k]))
        for k, (phi, contrast, offset) in enumerate(columns)
    ]
    if fit.per_angle_mode == "averaged":
        rows = [("all", *rows[0][1:])]
    heads = ("φ [degree]", "contrast", "offset", "on a bound")
    return Table(f"Contrast and offset ({fit.per_angle_mode})", heads, tuple(rows))


def quality_table(fit: NLSQResult) -> Table:
    """Sums of squares and what they mean."""
    robust = (
        "robust cost",
        "" if fit.cost is None else f"{float(fit.cost):.6g}",
        "what was minimised: s² ρ((data - model)²/s²) in place of each square in χ²",
    )
    return Table(
        "Quality",
        ("quantity", "value", "definition"),
        (
            *(() if fit.cost is None else (robust,)),
            (
                "χ²",
                f"{float(fit.chi2):.6g}",
                "sum over t1 < t2 of (data - model)², over σ² where σ was given",
            ),
            (
                "degrees of freedom",
                f"{int(fit.dof)}",
                f"{int(fit.n_points)} pixels less what was fitted",
            ),
            (
                "reduced χ²",
                f"{float(fit.reduced_chi2):.6g}",
                "χ² per degree of freedom: the variance of a pixel where no σ was given",
            ),
            (
                "R²",
                f"{float(fit.r_squared):.5f}",
                "part of the variation described; no measure of quality where noise is large",
            ),
            (
                "independent pixels",
                f"{float(np.mean(fit.pixels)):.3g}",
                "detector pixels per angle that the size of the residuals corresponds to",
            ),
            (
                "photons",
                f"{float(fit.photons):.3g}",
                "counts per pixel and frame that they correspond to; inf for no shot noise",
            ),
        ),
    )


def remarks(fit: NLSQResult) -> tuple[str, ...]:
    """Sentences that belong under the tables."""
    bounds = [f"{name} ended on a bound." for name in fit.at_bound]
    unknown = fit.null_directions + fit.sloppy_directions
    null = [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in unknown]
    kind = f"± is one standard deviation; {fit.uncertainty_kind}."
    return (kind, *bounds, *null, *_ends(fit))


def _ends(fit: NLSQResult) -> tuple[str, ...]:
    """Where several starts led."""
    count = len(fit.ends_chi2)
    if count == 1:
        return ()
    reached = ", ".join(
        f"χ² = {optimum.chi2:.6g} ({optimum.starts}"
        f"{', the same with the components exchanged' if optimum.is_exchanged else ''})"
        for optimum in fit.optima
    )
    what = "" if fit.cost is None else " of the robust cost, here called χ²,"
    said = f"Of {count} starts these optima{what} were reached (by so many): "
    return (f"{said}{reached or 'none'}.", *_labels(fit))


def _labels(fit: NLSQResult) -> tuple[str, ...]:
    """Whether the data leave open which component is called which."""
    if fit.ends_exchanged is None or fit.ends_same is None:
        return ()
    count = int(np.sum(np.asarray(fit.ends_exchanged) & np.asarray(fit.ends_same)))
    if not count:
        return ()
    return (
        f"{count} of them ended with the components exchanged (reference and sample, and the "
        "sample's fraction with what is left of 1), which the data do not tell apart: one "
        "optimum. By convention the result is the one whose reference is the slower component.",
    )


def _on_bound(flags: Bool[np.ndarray, " 2"]) -> str:
    names = zip(("contrast", "offset"), flags, strict=True)
    return ", ".join(name for name, flag in names if flag)


def angle_table(result: SequentialResult) -> Table:
    """Parameters of each angle with their standard deviations."""
    first = result.fits[0]
    units = dict(zip(first.all_names, first.units, strict=True))
    heads = [f"{name} [{units[name]}]" if units[name] else name for name in first.names]
    rows = []
    for phi, fit in zip(result.phi, result.fits, strict=True):
        deviation = fit.uncertainties
        shown = [
            f"{with_error(fit.params[name], deviation[name])} ± {error_text(deviation[name])}"
            for name in fit.names
        ]
        quality = f"{float(fit.reduced_chi2):.4g}", "yes" if fit.converged else "no"
        rows.append((f"{phi:g}", *shown, f"{float(fit.contrast[0]):.5g}", *quality))
    columns = ("φ [degree]", *heads, "contrast", "χ²/dof", "converged")
    return Table("Parameters of each angle", columns, tuple(rows))


def angle_remarks(result: SequentialResult) -> tuple[str, ...]:
    """Sentences that belong under the table."""
    how = (
        "Every angle was fitted by itself and has parameters of its own; each started where "
        "the last that converged had ended."
    )
    kinds = dict.fromkeys(fit.uncertainty_kind for fit in result.fits)
    spread = [f"± is one standard deviation; {kind}." for kind in kinds]
    said = [
        f"φ = {phi:g} degree: {remark}"
        for phi, fit in zip(result.phi, result.fits, strict=True)
        for remark in fit.remarks[1:]
    ]
    return (how, *spread, *said)
