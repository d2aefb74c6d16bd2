"""Results in words: numbers to the digits they deserve, tables, and a document of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    import twotime.results


_UNITS = {
    "wavevector_q": "1/Å",
    "dt": "s",
    "pixels": "with t1 < t2 and usable",
    "masked_pixels": "with t1 < t2",
}


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        title: What it shows.
        columns: Heads of its columns.
        rows: Its rows.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Curve(NamedTuple):
    """A function of time behind a model's parameters, with a band of one standard deviation.

    Attributes:
        values: The function at each frame [unit].
        lower: Lower end of the band.
        upper: Upper end of the band.
        unit: Its unit; empty for pure numbers.
        symbol: Symbol for tables and axes.
        description: What it is.
    """

    values: Float[np.ndarray, " time"]
    lower: Float[np.ndarray, " time"]
    upper: Float[np.ndarray, " time"]
    unit: str
    symbol: str
    description: str


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a result comes from, for its files.

    Attributes:
        settings: The configuration as used, with its defaults.
        source: Facts about the data: file, checksum, selection, pixels.
        notes: Sentences about the data and the settings that a reader should know.
        metadata: The user's own notes about the experiment.
        wall_time: Time the fit took, compilation included [s].
        judgement: What the residuals say about the model, as a sentence.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wall_time: float | None = None
    judgement: str = ""


def with_error(value: float, deviation: float | None) -> str:
    """A value with the digits that two digits of its standard deviation allow.

    Args:
        value: The value.
        deviation: Its standard deviation; None or not finite for none.

    Example:
        >>> with_error(29707.9, 671.4), with_error(-0.28115, 0.01003), with_error(0.5, None)
        ('29710', '-0.281', '0.5')
    """
    if deviation is None or not math.isfinite(deviation) or deviation <= 0:
        return f"{value:.6g}"
    digits = 1 - math.floor(math.log10(deviation))
    largest = max(abs(value), deviation)
    if 1e-4 <= largest < 1e6:
        return f"{round(value, digits):.{max(digits, 0)}f}"
    power = math.floor(math.log10(largest))
    return f"{value / 10.0**power:.{max(digits + power, 0)}f}e{power}"


def error_text(deviation: float | None) -> str:
    """A standard deviation in two digits, or why there is none."""
    if deviation is None:
        return "fixed"
    if math.isnan(deviation):
        return "on a bound"
    if math.isinf(deviation):
        return "not determined"
    return with_error(deviation, deviation) if deviation else "0"


def markdown_table(table: Table) -> str:
    """A table as Markdown with aligned columns."""
    cells = [table.columns, *table.rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(table.columns))]
    lines = [
        "| " + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([f"**{table.title}**", "", lines[0], rule, *lines[1:]])


def document(
    title: str,
    lead: tuple[str, ...],
    tables: tuple[Table, ...],
    remarks: tuple[str, ...],
    provenance: Provenance | None,
    figures: tuple[str, ...],
) -> str:
    """A report as Markdown that also reads well as plain text.

    Args:
        title: Its title.
        lead: First sentences, one paragraph each.
        tables: Its tables.
        remarks: Sentences under the tables.
        provenance: Where the result comes from, if known.
        figures: Names of the figures beside it.
    """
    parts = [f"# {title}", *lead, *map(markdown_table, tables)]
    parts += ["\n".join(f"* {remark}" for remark in remarks)] if remarks else []
    if provenance is not None:
        parts += _origin(provenance)
    if figures:
        parts += ["## Figures", *(f"![{name}]({name})" for name in figures)]
    return "\n\n".join(parts) + "\n"


def _origin(provenance: Provenance) -> list[str]:
    facts = dict(provenance.source) | dict(provenance.metadata)
    if provenance.wall_time is not None:
        facts["time for the fit"] = f"{provenance.wall_time:.1f} s, compilation included"
    lines = [f"* {name.replace('_', ' ')}: {_fact(name, fact)}" for name, fact in facts.items()]
    lines += [f"* {note}" for note in provenance.notes]
    return ["## Data", "\n".join(lines)] if lines else []


def _fact(name: str, fact: Any) -> str:
    if isinstance(fact, list | tuple):
        between = " to " if name == "frames" else "; "
        return between.join(map(str, fact)) or "none"
    text = f"{fact:.9g}" if isinstance(fact, float) else str(fact)
    return f"{text} {_UNITS[name]}" if name in _UNITS else text


def nlsq_report(
    fit: "twotime.results.NLSQResult",
    curves: Mapping[str, Curve],
    provenance: Provenance | None,
    figures: tuple[str, ...],
) -> str:
    """A least-squares fit as a document.

    Args:
        fit: The result.
        curves: Functions of time, empty where they are not known.
        provenance: Where it comes from, if known.
        figures: Names of the figures beside the document.
    """
    verdict = fit.status[:1].upper() + fit.status[1:] + "."
    tables = [parameter_table(fit), scaling_table(fit), quality_table(fit)]
    tables[1:1] = [curve_table(curves)] if curves else []
    title = f"{fit.model}: least squares on {len(fit.phi)} angles"
    how = f"Sums over pixels were formed by the {fit.evaluator} evaluator.{_loss(fit)}"
    said = (*remarks(fit), *judgements(provenance))
    return document(title, (verdict, how), tuple(tables), said, provenance, figures)


def _loss(fit: "twotime.results.NLSQResult") -> str:
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


def nlsq_summary(fit: "twotime.results.NLSQResult") -> dict[str, Any]:
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


def parameter_table(fit: "twotime.results.NLSQResult") -> Table:
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


def curve_table(curves: Mapping[str, Curve]) -> Table:
    """Functions of time at the first, middle and last frame."""
    rows = []
    for name, curve in curves.items():
        last = len(curve.values) - 1
        shown = [
            f"{with_error(float(curve.values[i]), deviation)} ± {error_text(deviation)}"
            for i in (0, last // 2, last)
            for deviation in (0.5 * float(curve.upper[i] - curve.lower[i]),)
        ]
        rows.append((name, *shown, curve.unit, curve.description))
    heads = ("function", "first frame", "middle", "last frame", "unit", "meaning")
    return Table("Functions of time", heads, tuple(rows))


def sequential_table(result: "twotime.results.SequentialResult") -> Table:
    """Parameters of each angle, an angle a row."""
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


def sequential_remarks(result: "twotime.results.SequentialResult") -> tuple[str, ...]:
    """Sentences under the table of angles: those of each, and what they are about."""
    how = (
        "Every angle was fitted by itself and has parameters of its own; each started where the "
        "last that converged had ended."
    )
    kinds = dict.fromkeys(fit.uncertainty_kind for fit in result.fits)
    spread = [f"± is one standard deviation; {kind}." for kind in kinds]
    said = [
        f"φ = {phi:g} degree: {remark}"
        for phi, fit in zip(result.phi, result.fits, strict=True)
        for remark in remarks(fit)[1:]
    ]
    return (how, *spread, *said)


def sequential_report(
    result: "twotime.results.SequentialResult",
    provenance: Provenance | None,
    figures: tuple[str, ...],
) -> str:
    """Fits of one angle after another as a document.

    Args:
        result: The result.
        provenance: Where it comes from, if known.
        figures: Names of the figures beside the document.
    """
    verdict = result.status[:1].upper() + result.status[1:] + "."
    title = f"{result.fits[0].model}: least squares on {len(result.fits)} angles, one by one"
    more = "Each angle's own report and figures are in the folder of the angle."
    said = (*result.remarks, *judgements(provenance))
    return document(title, (verdict, more), (result.table,), said, provenance, figures)


def scaling_table(fit: "twotime.results.NLSQResult") -> Table:
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


def quality_table(fit: "twotime.results.NLSQResult") -> Table:
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
                f"{int(fit.n_pixels)} pixels less what was fitted",
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


def remarks(fit: "twotime.results.NLSQResult") -> tuple[str, ...]:
    """Sentences that belong under the tables."""
    bounds = [f"{name} ended on a bound." for name in fit.at_bound]
    null = [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in fit.null_directions]
    kind = f"± is one standard deviation; {fit.uncertainty_kind}."
    return (kind, *bounds, *null, *_ends(fit))


def _ends(fit: "twotime.results.NLSQResult") -> tuple[str, ...]:
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


def _labels(fit: "twotime.results.NLSQResult") -> tuple[str, ...]:
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


def judgements(provenance: Provenance | None) -> tuple[str, ...]:
    """What the residuals say about the model, where that is known."""
    sentence = "" if provenance is None else provenance.judgement
    return (f"{sentence[:1].upper()}{sentence[1:]}.",) if sentence else ()


def _on_bound(flags: Bool[np.ndarray, " 2"]) -> str:
    names = zip(("contrast", "offset"), flags, strict=True)
    return ", ".join(name for name, flag in names if flag)
