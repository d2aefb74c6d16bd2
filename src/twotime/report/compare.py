"""Fits of several laws to the same data, side by side."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from twotime.report import Table, html_table, text_table
from twotime.results.nlsq import NLSQResult
from twotime.results.storage import optional


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Fits of the same data, the one that describes them best with the fewest parameters first.

    Attributes:
        rows: Numbers by the name of the fit: chi2, fitted (number of fitted parameters, contrast
            and offset included), aic and bic above the smallest, r_squared, is_right (whether the
            residuals are what noise leaves; None if not judged), misfit (share of the signal's
            variance left) and converged.
        points: Number of independent points in the data; correlated noise makes it smaller than
            the number of points.
    """

    rows: Mapping[str, Mapping[str, Any]]
    points: float

    @property
    def table(self) -> Table:
        """The numbers as a table of texts."""
        words = {True: "yes", False: "no", None: "not judged"}
        heads = ("fit", "χ²", "fitted", "ΔAIC", "ΔBIC", "R²", "describes the data", "converged")
        cells = tuple(
            (name, f"{row['chi2']:.6g}", str(row["fitted"]), f"{row['aic']:.4g}",
             f"{row['bic']:.4g}", f"{row['r_squared']:.5f}", words[row["is_right"]],
             words[row["converged"]])
            for name, row in self.rows.items()
        )  # fmt: skip
        return Table(f"{len(cells)} fits, {self.points:.3g} independent points", heads, cells)

    def to_dataframe(self) -> Any:
        """The numbers as a pandas table, a row for each fit.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        pandas = optional("pandas", "to_dataframe")
        return pandas.DataFrame.from_dict(dict(self.rows), orient="index")

    def __repr__(self) -> str:
        return text_table(self.table)

    def _repr_html_(self) -> str:
        return html_table(self.table)


def compare(fits: Mapping[str, NLSQResult]) -> Comparison:
    r"""Compare fits of different laws to the same data.

    With $n$ independent points and $k$ fitted parameters, $\mathrm{AIC} = n \ln\chi^2 + 2k$ and
    $\mathrm{BIC} = n \ln\chi^2 + k \ln n$, both above the smallest. $n$ is the number of points
    over the factor by which their correlation widens the error bars of the fit with the smallest
    chi-squared: the mean, over its parameters, of the ratio of variances.

    Args:
        fits: Least-squares fits by name, of the same points and sigma.

    Returns:
        The comparison, the smallest AIC first.

    Raises:
        ValueError: If there are fewer than two, or their data or losses differ.
        TypeError: If they have no names, or one is not a least-squares fit.
    """
    if not isinstance(fits, Mapping):
        got = type(fits).__name__
        raise TypeError(
            f'compare got {got}; expected fits by name: {{"free": fit, "fixed": other}}.'
        )
    if len(fits) < 2:
        raise ValueError(f"A comparison needs two fits or more; got {len(fits)}.")
    for name, fit in fits.items():
        if not isinstance(fit, NLSQResult):
            raise TypeError(
                f"{name!r} is a {type(fit).__name__}; expected an NLSQResult. Posteriors are "
                "compared by ArviZ: arviz.compare of their to_arviz()."
            )
        if fit.loss != "linear":
            raise ValueError(f"{name!r} minimised {fit.loss!r}; compare fits with loss='linear'.")
    first, *others = fits.items()
    for name, fit in others:
        same = int(fit.n_points) == int(first[1].n_points)
        if not same or not np.isclose(float(fit.total), float(first[1].total), rtol=1e-9):
            raise ValueError(
                f"{name!r} was fitted to other data than {first[0]!r} ({int(fit.n_points)} and "
                f"{int(first[1].n_points)} points): compare fits of the same points and sigma."
            )
    best = min(fits.values(), key=lambda fit: float(fit.chi2))
    points = _independent_points(best)
    rows = {name: _row(fit, points) for name, fit in fits.items()}
    for criterion in ("aic", "bic"):
        least = min(row[criterion] for row in rows.values())
        for row in rows.values():
            row[criterion] -= least
    return Comparison(dict(sorted(rows.items(), key=lambda item: item[1]["aic"])), points)


def _independent_points(fit: NLSQResult) -> float:
    """Number of points over the factor by which their correlation enlarges variances."""
    ratio = np.diag(np.asarray(fit.covariance)) / np.diag(np.asarray(fit.covariance_iid))
    known = ratio[np.isfinite(ratio) & (ratio > 0)]
    return float(fit.n_points) / max(1.0, float(known.mean())) if known.size else float("nan")


def _row(fit: NLSQResult, points: float) -> dict[str, Any]:
    fitted = int(fit.n_points) - int(fit.dof)
    deviance, judged = points * float(np.log(fit.chi2)), fit.structure
    return {
        "chi2": float(fit.chi2),
        "fitted": fitted,
        "aic": deviance + 2 * fitted,
        "bic": deviance + fitted * float(np.log(points)),
        "r_squared": float(fit.r_squared),
        "is_right": None if judged is None else bool(judged.is_right),
        "misfit": None if judged is None else float(judged.share),
        "converged": bool(fit.converged),
    }
