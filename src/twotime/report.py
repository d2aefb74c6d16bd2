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
    how = f"Sums over pixels were formed by the {fit.evaluator} evaluator."
    said = (*remarks(fit), *judgements(provenance))
    return document(title, (verdict, how), tuple(tables), said, provenance, figures)


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
    return Table(
        "Quality",
        ("quantity", "value", "definition"),
        (
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
    reached = ", ".join(f"χ² = {optimum.chi2:.6g} ({optimum.starts})" for optimum in fit.optima)
    return (f"Of {count} starts these optima were reached (by so many): {reached or 'none'}.",)


def judgements(provenance: Provenance | None) -> tuple[str, ...]:
    """What the residuals say about the model, where that is known."""
    sentence = "" if provenance is None else provenance.judgement
    return (f"{sentence[:1].upper()}{sentence[1:]}.",) if sentence else ()


def _on_bound(flags: Bool[np.ndarray, " 2"]) -> str:
    names = zip(("contrast", "offset"), flags, strict=True)
    return ", ".join(name for name, flag in names if flag)
