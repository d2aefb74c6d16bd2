"""What fits of one angle after another return."""

from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twotime.results import folders, storage
from twotime.results.nlsq import NLSQResult, scaling_arrays
from twotime.results.words import (
    Provenance,
    Table,
    document,
    error_text,
    judgements,
    with_error,
)


class SequentialResult(eqx.Module):
    """Least-squares fits of one angle after another, each with parameters of its own.

    Attributes:
        fits: The fit of each angle.
    """

    fits: tuple[NLSQResult, ...]

    @property
    def phi(self) -> Float[np.ndarray, " angle"]:
        """Detector angles [degree]."""
        return np.concatenate([np.asarray(fit.phi) for fit in self.fits])

    @property
    def converged(self) -> bool:
        """Whether the fits of all angles did."""
        return all(fit.converged for fit in self.fits)

    @property
    def status(self) -> str:
        """How the fits ended, as a sentence."""
        open_ends = [
            f"phi = {phi:g} degree {fit.status}"
            for phi, fit in zip(self.phi, self.fits, strict=True)
            if not fit.converged
        ]
        if not open_ends:
            return f"converged: each of {len(self.fits)} angles, fitted one after the other"
        return f"not converged at {len(open_ends)} of {len(self.fits)} angles: " + "; ".join(
            open_ends
        )

    @property
    def table(self) -> Table:
        """Parameters of each angle with their standard deviations."""
        first = self.fits[0]
        units = dict(zip(first.all_names, first.units, strict=True))
        heads = [f"{name} [{units[name]}]" if units[name] else name for name in first.names]
        rows = []
        for phi, fit in zip(self.phi, self.fits, strict=True):
            deviation = fit.uncertainties
            shown = [
                f"{with_error(fit.params[name], deviation[name])} ± {error_text(deviation[name])}"
                for name in fit.names
            ]
            quality = f"{float(fit.reduced_chi2):.4g}", "yes" if fit.converged else "no"
            rows.append((f"{phi:g}", *shown, f"{float(fit.contrast[0]):.5g}", *quality))
        columns = ("φ [degree]", *heads, "contrast", "χ²/dof", "converged")
        return Table("Parameters of each angle", columns, tuple(rows))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that belong under the table."""
        how = (
            "Every angle was fitted by itself and has parameters of its own; each started where "
            "the last that converged had ended."
        )
        kinds = dict.fromkeys(fit.uncertainty_kind for fit in self.fits)
        spread = [f"± is one standard deviation; {kind}." for kind in kinds]
        said = [
            f"φ = {phi:g} degree: {remark}"
            for phi, fit in zip(self.phi, self.fits, strict=True)
            for remark in fit.remarks[1:]
        ]
        return (how, *spread, *said)

    def summary(self) -> dict[str, Any]:
        """What was found, by name, for other programs to read."""
        return {
            "converged": self.converged,
            "status": self.status,
            "angles": [fit.summary() for fit in self.fits],
        }

    def report(
        self,
        provenance: Provenance | None = None,
        figures: tuple[str, ...] = (),
    ) -> str:
        """The result in words and a table: Markdown that also reads well as plain text.

        Args:
            provenance: Where the result comes from, if that shall be told.
            figures: Names of figures to embed.
        """
        verdict = self.status[:1].upper() + self.status[1:] + "."
        title = f"{self.fits[0].model}: least squares on {len(self.fits)} angles, one by one"
        more = "Each angle's own report and figures are in the folder of the angle."
        said = (*self.remarks, *judgements(provenance))
        return document(title, (verdict, more), (self.table,), said, provenance, figures)

    def save(
        self,
        folder: str | Path,
        *,
        provenance: Provenance | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write result.json and report.md into a new folder, and a folder of each angle in it.

        Args:
            folder: The folder; may be there if it is empty.
            provenance: Where the result comes from.
            overwrite: Whether a result that is there may be replaced.

        Raises:
            ResultError: If the folder cannot be written, or holds what may not be replaced.
        """
        with folders.new_folder(Path(folder), overwrite=overwrite) as temporary:
            for name, fit in zip(angle_folders(self), self.fits, strict=True):
                (temporary / name).mkdir()
                storage.write_result(temporary / name, fit, scaling_arrays(fit), {}, provenance)
            storage.write_parts(temporary, self, angle_folders(self), provenance)


def angle_folders(result: SequentialResult) -> tuple[str, ...]:
    """Names of the folders of the angles inside the folder of a sequential result."""
    digits = len(str(len(result.fits)))
    return tuple(f"angle_{k:0{digits}d}" for k in range(1, len(result.fits) + 1))
