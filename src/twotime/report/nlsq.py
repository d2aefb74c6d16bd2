"""Descriptions of least-squares fits: tables, remarks, and a summary for other programs."""

import functools
import math
from typing import Any

import numpy as np

from twotime.report import (
    Description,
    Table,
    between,
    by_place,
    error_text,
    estimate,
    extent,
    ratio,
    sentence,
    with_error,
)
from twotime.results.judgement import where
from twotime.results.nlsq import NLSQResult
from twotime.results.sequential import SequentialResult
from twotime.results.storage import describe

_LOPSIDED = 0.3  # error of an amplitude, as part of it, from which its interval is told
_TRADE = 0.95  # correlation of two parameters from which each alone says little
_FACTS = (
    "converged", "status", "uncertainty_kind", "per_angle_mode", "evaluator", "contrast", "offset",
    "at_bound", "null_directions", "sloppy_directions", "unseen", "chi2", "n_points", "dof",
    "reduced_chi2", "r_squared", "photons", "n_evaluations",
)  # fmt: skip


@describe.register
def describe_fit(fit: NLSQResult) -> Description:
    """The description of a least-squares fit."""
    return Description(
        title=f"{fit.model}: {_kind(fit)} on {extent(fit.phi, fit.rings)}",
        lead=(sentence(fit.status), f"Evaluator: {fit.evaluator}.{_loss_sentence(fit)}"),
        tables=(parameter_table(fit), scaling_table(fit), quality_table(fit)),
        remarks=remarks(fit),
        summary=functools.partial(fit_summary, fit),
        are_functions_first=bool(_trades(fit) or fit.null_directions),
        quality=f"R² = {float(fit.r_squared):.5f}, reduced χ² = {float(fit.reduced_chi2):.4g} "
        "(without σ of the data: the variance of one point)",
    )


def _kind(fit: NLSQResult) -> str:
    return "maximum a posteriori estimate" if fit.with_priors else "least squares"


@describe.register
def describe_angles(result: SequentialResult) -> Description:
    """The description of fits of one angle after another."""
    angles = list(zip(result.phi, result.fits, strict=True))
    kinds = dict.fromkeys(fit.uncertainty_kind for fit in result.fits)
    folders = "Each angle has its own report and figures, in its own folder."
    return Description(
        title=f"{result.fits[0].model}: least squares on {len(result.fits)} angles, one by one",
        lead=(sentence(result.status), folders),
        tables=(angle_table(result),),
        remarks=(
            "Each angle was fitted by itself, with its own parameters, starting from the result "
            "of the last angle that converged.",
            *(f"± is one standard deviation; {kind}." for kind in kinds),
            *(f"φ = {phi:g} degree: {text}" for phi, fit in angles for text in remarks(fit)[1:]),
        ),
        summary=lambda: {
            "converged": result.converged,
            "status": result.status,
            "angles": [fit.summary() for fit in result.fits],
        },
    )


def fit_summary(fit: NLSQResult) -> dict[str, Any]:
    """The findings of a fit by name, for other programs to read."""
    deviation, iid, at_bound = fit.uncertainties, fit.uncertainties_iid, fit.at_bound
    values, lower, upper, start = map(np.asarray, (fit.values, fit.lower, fit.upper, fit.start))
    parameters, ends = {}, fit.intervals()
    for k, name in enumerate(fit.all_names):
        found = {"value": values[k], "unit": fit.units[k], "fitted": fit.varying[k]}
        errors = {"uncertainty": deviation.get(name), "uncertainty_iid": iid.get(name)}
        errors |= dict(zip(("low_95", "high_95"), ends.get(name, (None, None)), strict=True))
        bounds = {"lower": lower[k], "upper": upper[k], "start": start[k]}
        parameters[name] = found | errors | bounds | {"at_bound": name in at_bound}
    loss = {"kind": fit.loss, "scale": fit.loss_scale, "noise_level": fit.noise_level}
    return {name: getattr(fit, name) for name in _FACTS} | {
        "parameters": parameters,
        "phi_degree": fit.phi,
        "wavevector_q": fit.q,
        "weight": fit.weight,
        "loss": loss | {"robust_cost": fit.cost},
        "detector_pixels": fit.pixels,
        "correlation": {"names": fit.names, "matrix": fit.correlation},
        "own_scaling": fit.own_scaling,
        "scaling_uncertainties": fit.scaling_uncertainties,
        "judgement": None if fit.structure is None else fit.structure.summary(),
    }


def parameter_table(fit: NLSQResult) -> Table:
    """Parameters with their standard deviations and bounds."""
    deviation, iid = fit.uncertainties, fit.uncertainties_iid
    lower, upper = np.asarray(fit.lower).tolist(), np.asarray(fit.upper).tolist()
    facts = list(zip(fit.params.items(), lower, upper, fit.varying, strict=True))
    columns = {
        "parameter": fit.all_names,
        "value": [
            between(x, deviation.get(name), low, high) if free else with_error(x, None)
            for (name, x), low, high, free in facts
        ],
        "±": [error_text(deviation.get(name)) for name in fit.all_names],
        "± if independent": [error_text(iid.get(name)) for name in fit.all_names],
        "ratio": [ratio(deviation.get(name), iid.get(name)) for name in fit.all_names],
        "unit": fit.units,
        "bounds": [f"[{low:g}, {high:g}]" if free else "" for _, low, high, free in facts],
        "start": [f"{value:.4g}" for value in np.asarray(fit.start)],
    }
    if columns["±"] == columns["± if independent"]:
        del columns["± if independent"], columns["ratio"]
    return Table("Parameters", tuple(columns), tuple(zip(*columns.values(), strict=True)))


def scaling_table(fit: NLSQResult) -> Table:
    """Contrast and offset of each angle, in one row if all angles share them."""
    bounds, errors = np.asarray(fit.scaling_at_bound), fit.scaling_deviation
    columns = {"φ [degree]": [f"{phi:g}" for phi in np.asarray(fit.phi)]}
    for k, (name, values) in enumerate((("contrast", fit.contrast), ("offset", fit.offset))):
        found, on = np.asarray(values).tolist(), bounds[:, k]
        if errors is None:
            columns[name] = [f"{x:.6g}" for x in found]
            continue
        deviations = np.asarray(errors)[:, k].tolist()
        columns[name] = [with_error(x, s) for x, s in zip(found, deviations, strict=True)]
        columns[f"± {name}"] = [
            _scaling_error(s, bool(x), bool(on.any())) for s, x in zip(deviations, on, strict=True)
        ]
    if errors is None:
        names = np.array(["contrast", "offset"])
        columns["on a bound"] = [", ".join(names[bound]) for bound in bounds]
    _, *heads = columns
    rows = list(zip(*columns.values(), strict=True))
    return by_place(f"Contrast and offset ({fit.per_angle_mode})", tuple(heads), rows, fit)


def _scaling_error(deviation: float, is_on_bound: bool, is_any: bool) -> str:
    """A standard deviation, or why there is none."""
    if is_on_bound:
        return error_text(math.nan)
    if deviation == 0:  # a series with an angle on a bound has none
        return error_text(math.inf if is_any else None)
    return error_text(deviation)


def quality_table(fit: NLSQResult) -> Table:
    """Sums of squares and what they mean."""
    rows = [
        ("χ²", fit.chi2, ".6g", "sum over t1 < t2 of (data − model)², over σ² if σ was given"),
        ("degrees of freedom", fit.dof, "d", f"{int(fit.n_points)} points minus fitted parameters"),
        ("reduced χ²", fit.reduced_chi2, ".6g",
         "χ² per degree of freedom: the variance of one point if no σ was given"),
        ("R²", fit.r_squared, ".5f",
         "fraction of the variation described; not a measure of quality if the noise is large"),
        ("independent speckles", np.mean(fit.pixels), ".3g",
         "effective number per angle, from the residual variance"),
        ("photons", np.mean(fit.photons), ".3g",
         "counts per detector pixel and frame, from the residuals; inf: no shot noise"),
    ]  # fmt: skip
    if fit.cost is not None:
        text = "minimised instead of χ², with s² ρ((data − model)²/s²) for each square"
        rows.insert(0, ("robust cost", fit.cost, ".6g", text))
    cells = tuple((name, format(np.asarray(x).item(), form), text) for name, x, form, text in rows)
    return Table("Quality", ("quantity", "value", "definition"), cells)


def remarks(fit: NLSQResult) -> tuple[str, ...]:
    """Sentences that belong under the tables."""
    return (
        f"± is one standard deviation; {fit.uncertainty_kind}.",
        *_at_bounds(fit),
        *_lopsided(fit),
        *map(sentence, fit.null_directions + fit.sloppy_directions + fit.unseen),
        *_trades(fit),
        *_where_starts_ended(fit),
        *_how_shared(fit),
        *_how_weighed(fit),
        *([] if fit.structure is None else [sentence(fit.structure.sentence)]),
    )


def _at_bounds(fit: NLSQResult) -> tuple[str, ...]:
    """What ended on which bound, and the key that widens it."""
    values, lower, upper = (np.asarray(x) for x in (fit.values, fit.lower, fit.upper))
    found = []
    for name in (name for name in fit.at_bound if name in fit.all_names):
        k = fit.all_names.index(name)
        is_upper = abs(upper[k] - values[k]) < abs(values[k] - lower[k])
        side, end, bound = ("upper", "max", upper[k]) if is_upper else ("lower", "min", lower[k])
        is_share = (lower[k], upper[k]) == (0.0, 1.0) and not fit.units[k]
        advice = "the limit of a share" if is_share else f"widen parameters.{name}.{end}"
        found.append(f"{name} is on its {side} bound {bound:g}: {advice}.")
    flags = np.asarray(fit.scaling_at_bound)
    for column, (name, found_at) in enumerate((("contrast", fit.contrast), ("offset", fit.offset))):
        if name in fit.at_bound:
            ends = dict.fromkeys(f"{x:g}" for x in np.asarray(found_at)[flags[:, column]])
            widen = f"widen parameters.{name}.min or parameters.{name}.max"
            found.append(f"{name} is on its bound {', '.join(ends)}: {widen}.")
    return tuple(found)


def _lopsided(fit: NLSQResult) -> tuple[str, ...]:
    """Intervals of amplitudes whose errors are nearly as large as they are."""
    ends, lower, found = fit.intervals(), np.asarray(fit.lower), []
    for name, deviation in fit.uncertainties.items():
        is_positive = lower[fit.all_names.index(name)] >= 0 < fit.params[name]
        if is_positive and _LOPSIDED < deviation / fit.params[name] < np.inf:
            found.append(f"{name} from {ends[name][0]:.3g} to {ends[name][1]:.3g}")
    about = "the error is not symmetric where it is nearly as large as the value"
    return (f"With 95 %: {', '.join(found)}; {about}.",) if found else ()


def _trades(fit: NLSQResult) -> tuple[str, ...]:
    """Pairs of parameters of which the data determine a combination far better than each."""
    size = np.abs(np.triu(np.nan_to_num(fit.correlation), 1))
    pairs = [
        f"{fit.names[i]} and {fit.names[j]} ({fit.correlation[i, j]:.3f})"
        for i, j in np.argwhere(size > _TRADE)
    ]
    functions = "the functions of time say more than these parameters"
    return (f"Strongly correlated: {', '.join(pairs)}; {functions}.",) if pairs else ()


def angle_table(result: SequentialResult) -> Table:
    """Parameters of each angle with their standard deviations."""
    first = result.fits[0]
    units = dict(zip(first.all_names, first.units, strict=True))
    heads = [f"{name} [{units[name]}]" if units[name] else name for name in first.names]
    rows = []
    for phi, fit in zip(result.phi, result.fits, strict=True):
        deviation = fit.uncertainties
        shown = [estimate(fit.params[name], deviation[name]) for name in fit.names]
        quality = f"{float(fit.reduced_chi2):.4g}", "yes" if fit.converged else "no"
        rows.append((f"{phi:g}", *shown, f"{float(fit.contrast[0]):.5g}", *quality))
    columns = ("φ [degree]", *heads, "contrast", "χ²/dof", "converged")
    return Table("Parameters of each angle", columns, tuple(rows))


def _loss_sentence(fit: NLSQResult) -> str:
    if fit.loss_scale is None or fit.noise_level is None:
        return ""
    low, high = np.min(fit.noise_level), np.max(fit.noise_level)
    level = f"{low:.3g}" if high - low < 5e-3 * low else f"{low:.3g} to {high:.3g}"
    return (
        f" The robust loss {fit.loss} was minimised instead of the sum of squares. It departs from "
        f"squares at {float(fit.loss_scale):g} times the noise level, which is {level}."
    )


def _how_shared(fit: NLSQResult) -> tuple[str, ...]:
    """What is to be known about contrast and offset of the angles."""
    if fit.asked_mode == "constant":
        return (
            "Contrast and offset are frozen at quantiles of the data (per_angle_mode: constant), "
            "which may be far off; ± does not include that. Compare with individual.",
        )
    if fit.own_scaling is None:
        return ()
    deviations = np.abs(np.asarray(fit.own_scaling))
    angle, which = np.unravel_index(np.argmax(deviations), deviations.shape)
    place = f"{('contrast', 'offset')[which]} at {where(fit.q, fit.phi, int(angle))}"
    far = f"{deviations.max():.1f} standard deviations ({place})"
    if fit.is_shared:
        if fit.rings:
            return (
                f"The angles of a wavevector share contrast and offset, the farthest within {far}.",
            )
        return (f"All angles share contrast and offset: they agree, the farthest within {far}.",)
    return (
        f"Every angle has its own contrast and offset (individual): with shared ones they would "
        f"be up to {far} away.",
    )


def _how_weighed(fit: NLSQResult) -> tuple[str, ...]:
    """How much the wavevectors of a joint fit counted."""
    if fit.weight is None or fit.q is None:
        return ()
    first = [fit.rings.index(ring) for ring in sorted(set(fit.rings))]
    shares = ", ".join(f"{float(fit.weight[k]):.3g} (q = {float(fit.q[k]):.4g})" for k in first)
    return (f"Wavevectors count by the noise that their points share, relative weights: {shares}.",)


def _where_starts_ended(fit: NLSQResult) -> tuple[str, ...]:
    count, swapped = len(fit.ends_chi2), 0
    if count == 1:
        return ()
    name = "χ²" if fit.cost is None else "robust cost"
    swap = ", the same with the components swapped"
    optima = [f"{o.chi2:.6g} ({o.starts}{swap if o.is_exchanged else ''})" for o in fit.optima]
    reached = ", ".join(f"{name} = {optimum}" for optimum in optima)
    found = f"Of {count} starts, these optima were found (number of starts): {reached or 'none'}."
    if fit.ends_exchanged is not None and fit.ends_same is not None:
        swapped = int(np.sum(np.asarray(fit.ends_exchanged) & np.asarray(fit.ends_same)))
    symmetry = (
        f"{swapped} of them found the same fit with reference and sample swapped "
        "(x_s → 1 − x_s); the data cannot distinguish the two. By convention, the component with "
        "the slower dynamics is the reference."
    )
    return (found, symmetry) if swapped else (found,)
