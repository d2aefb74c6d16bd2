"""The result of least-squares fits of one angle after another."""

import numpy as np
from jaxtyping import Float

from twotime.results import storage
from twotime.results.nlsq import NLSQResult


class SequentialResult(storage.AbstractResult):
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
        """Whether the fits of all angles converged."""
        return all(fit.converged for fit in self.fits)

    @property
    def status(self) -> str:
        """How the fits ended, as a sentence."""
        count, angles = len(self.fits), zip(self.phi, self.fits, strict=True)
        faults = [f"phi = {phi:g} degree {fit.status}" for phi, fit in angles if not fit.converged]
        if faults:
            return f"not converged at {len(faults)} of {count} angles: {'; '.join(faults)}"
        return f"converged: each of {count} angles, fitted one after the other"

    def _parts(self) -> dict[str, storage.AbstractResult]:
        return dict(zip(angle_folders(self), self.fits, strict=True))


def angle_folders(result: SequentialResult) -> tuple[str, ...]:
    """Names of the folders of the angles inside the folder of a sequential result."""
    digits = len(str(len(result.fits)))
    return tuple(f"angle_{k:0{digits}d}" for k in range(1, len(result.fits) + 1))
