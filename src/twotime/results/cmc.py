"""What sampling returns, as a value that can be saved, loaded, put into words and into ArviZ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from twotime.report import cmc as cmc_report
from twotime.report.tables import Curve, Provenance
from twotime.results import storage as folders

Array = np.ndarray


class Limits(eqx.Module):
    """What chains must keep to count as converged."""

    max_r_hat: float = eqx.field(default=1.01, static=True)
    min_ess: float = eqx.field(default=400, static=True)
    min_bfmi: float = eqx.field(default=0.3, static=True)
    max_divergences: int = eqx.field(default=0, static=True)
    max_pareto_k: float = eqx.field(default=0.7, static=True)


class CMCResult(eqx.Module):
    """Draws from a posterior, with what is needed to judge them.

    Diagnostics are those of the chains that were run, each shard's; draws that were combined or
    widened afterwards are not diagnosed again.

    Attributes:
        all_names: Names of all parameters of the model, in its order.
        varying: Which of them were sampled.
        units: Their units.
        model: Name of the model's class.
        per_angle_mode: How contrast and offset are shared between angles.
        evaluator: What computed the likelihood.
        sampler: "nuts" or "hmc".
        scaling_kind: Contrast and offset "marginal" (integrated out) or "sampled".
        noise_kind: Noise level "known", "sampled" or "marginal".
        combination: How shards were combined; empty for one shard.
        strategy: How pixels were dealt to shards; empty for one shard.
        width_kind: "sandwich", "tempering" or "none".
        width_text: What `width_kind` means, in words.
        coordinate_names: Names of the coordinates that chains ran in.
        limits: What chains had to keep.
        excluded: Shards that were left out of the combination.
        is_complete: Whether all draws were made.
        draws: Draws of the sampled parameters, in the order of `names`.
        contrast: Draws of the contrast of each angle.
        offset: Draws of the offset of each angle.
        noise: Draws of the noise level of a pixel; NaN where sigma was given.
        values: All parameters: posterior medians, and the values of those that were fixed.
        phi: Detector angles [degree].
        log_density: Log density of the draws of each shard, up to a constant.
        energy: Energy of each trajectory.
        acceptance: Mean acceptance of each shard's chains.
        tree_depth: Mean doublings of each shard's trajectories.
        deepest: Part of the trajectories cut at the largest depth.
        step: Step size of each shard, in standard deviations.
        shard_r_hat: Rank-normalised split R-hat.
        shard_ess_bulk: Effective sample sizes for the middle.
        shard_ess_tail: Effective sample sizes for the tails.
        shard_bfmi: BFMI of each chain.
        shard_divergences: Divergent draws.
        shard_converged: Whether each shard kept the limits.
        shard_draws: Some draws of each shard, before any correction of the width.
        disagreement: Distance of each shard's mean from the combined one [standard deviations].
        pareto_k: Shape of the tail of the importance weights, above 0.7 if they cannot be
            trusted; NaN where draws were not weighted.
        ess_weights: Independent draws that the weighted ones are worth; NaN likewise.
        power: Power of the likelihood: below 1 where it was tempered.
        width_ratio: Standard deviations after the correction over those before.
        n_pixels: Pixels that counted.
        n_gradients: Evaluations of density and gradient.
        seconds: Time that sampling took, compilation included [s].
    """

    all_names: tuple[str, ...] = eqx.field(static=True)
    varying: tuple[bool, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    model: str = eqx.field(static=True)
    per_angle_mode: str = eqx.field(static=True)
    evaluator: str = eqx.field(static=True)
    sampler: str = eqx.field(static=True)
    scaling_kind: str = eqx.field(static=True)
    noise_kind: str = eqx.field(static=True)
    combination: str = eqx.field(static=True)
    strategy: str = eqx.field(static=True)
    width_kind: str = eqx.field(static=True)
    width_text: str = eqx.field(static=True)
    coordinate_names: tuple[str, ...] = eqx.field(static=True)
    limits: Limits
    excluded: tuple[int, ...] = eqx.field(static=True)
    is_complete: bool = eqx.field(static=True)
    draws: Float[Array, "chain draw free"]
    contrast: Float[Array, "chain draw angle"]
    offset: Float[Array, "chain draw angle"]
    noise: Float[Array, "chain draw"]
    values: Float[Array, " param"]
    phi: Float[Array, " angle"]
    log_density: Float[Array, "shard chain draw"]
    energy: Float[Array, "shard chain draw"]
    acceptance: Float[Array, " shard"]
    tree_depth: Float[Array, " shard"]
    deepest: Float[Array, " shard"]
    step: Float[Array, " shard"]
    shard_r_hat: Float[Array, "shard coordinate"]
    shard_ess_bulk: Float[Array, "shard coordinate"]
    shard_ess_tail: Float[Array, "shard coordinate"]
    shard_bfmi: Float[Array, "shard chain"]
    shard_divergences: Float[Array, " shard"]
    shard_converged: Bool[Array, " shard"]
    shard_draws: Float[Array, "shard some free"]
    disagreement: Float[Array, "shard free"]
    pareto_k: Float[Array, ""]
    ess_weights: Float[Array, ""]
    power: Float[Array, ""]
    width_ratio: Float[Array, " free"]
    n_pixels: Float[Array, ""]
    n_gradients: Float[Array, ""]
    seconds: Float[Array, ""]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sampled parameters."""
        return tuple(n for n, free in zip(self.all_names, self.varying, strict=True) if free)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self.shard_converged)

    @property
    def samples(self) -> dict[str, Float[Array, "chain draw"]]:
        """Draws of the sampled parameters by name."""
        return {name: self.draws[..., i] for i, name in enumerate(self.names)}

    @property
    def params(self) -> dict[str, float]:
        """All parameters by name: posterior medians, and fixed values."""
        return dict(zip(self.all_names, self.values.tolist(), strict=True))

    @property
    def uncertainties(self) -> dict[str, float]:
        """Posterior standard deviations of the sampled parameters by name."""
        return {name: float(np.std(x)) for name, x in self.samples.items()}

    @property
    def r_hat(self) -> dict[str, float]:
        """Largest R-hat over the shards, by name of the coordinate."""
        return self._worst(np.max(self.shard_r_hat, axis=0))

    @property
    def ess_bulk(self) -> dict[str, float]:
        """Smallest bulk effective sample size over the shards, by name of the coordinate."""
        return self._worst(np.min(self.shard_ess_bulk, axis=0))

    @property
    def ess_tail(self) -> dict[str, float]:
        """Smallest tail effective sample size over the shards, by name of the coordinate."""
        return self._worst(np.min(self.shard_ess_tail, axis=0))

    @property
    def bfmi(self) -> float:
        """Smallest BFMI of any chain."""
        return float(np.min(self.shard_bfmi))

    @property
    def divergences(self) -> int:
        """Divergent draws of all shards, after the warm-up."""
        return int(np.sum(self.shard_divergences))

    @property
    def converged(self) -> bool:
        """Whether all draws were made, all combined shards kept the limits, and weights hold."""
        kept = np.delete(self.shard_converged, list(self.excluded))
        return self.is_complete and bool(np.all(kept)) and self.weights_hold

    @property
    def weights_hold(self) -> bool:
        """Whether importance weights, if there are any, can be trusted and are enough."""
        if self.combination != "importance":
            return True
        return bool(
            self.pareto_k <= self.limits.max_pareto_k and self.ess_weights >= self.limits.min_ess
        )

    @property
    def correlation(self) -> Float[Array, "free free"]:
        """Correlation matrix of the sampled parameters."""
        flat = self.draws.reshape(-1, self.draws.shape[-1])
        return np.atleast_2d(np.corrcoef(flat, rowvar=False))

    @property
    def status(self) -> str:
        """Whether the chains converged and if not why, as a sentence."""
        return cmc_report.status(self)

    def summary(self) -> dict[str, Any]:
        """What was found, by name: medians, deviations, intervals and diagnostics."""
        return cmc_report.cmc_summary(self)

    def report(
        self,
        curves: Mapping[str, Curve] | None = None,
        provenance: Provenance | None = None,
        figures: tuple[str, ...] = (),
    ) -> str:
        """The result in words and tables: Markdown that also reads well as plain text.

        Args:
            curves: Functions of time as `functions_of_time` gives them.
            provenance: Where the result comes from, if that shall be told.
            figures: Names of figures to embed.
        """
        return cmc_report.cmc_report(self, curves or {}, provenance, figures)

    def all_draws(self) -> Float[Array, "draw param"]:
        """Draws of all parameters, the fixed ones at their values."""
        flat = self.draws.reshape(-1, self.draws.shape[-1])
        out = np.tile(self.values, (len(flat), 1))
        out[:, np.flatnonzero(self.varying)] = flat
        return out

    def save(
        self,
        folder: str | Path,
        *,
        curves: Mapping[str, Curve] | None = None,
        provenance: Provenance | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write result.json, report.md and posterior.npz into a new folder, whole or not at all.

        Args:
            folder: The folder; may be there if it is empty.
            curves: Functions of time.
            provenance: Where the result comes from.
            overwrite: Whether a result that is there may be replaced.

        Raises:
            ResultError: If the folder cannot be written, or holds what may not be replaced.
        """
        from twotime.results import cmc_files

        with folders.new_folder(Path(folder), overwrite=overwrite) as temporary:
            cmc_files.write_posterior(temporary, self, curves or {}, provenance)

    def to_arviz(self) -> Any:
        """The draws as ArviZ holds them: an InferenceData, or a DataTree from ArviZ 1 on.

        `.to_netcdf(path)` of it writes a NetCDF file.

        Raises:
            ModuleNotFoundError: If ArviZ is not installed.
        """
        from twotime.results import cmc_files

        return cmc_files.to_arviz(self)

    def _worst(self, values: Float[Array, " coordinate"]) -> dict[str, float]:
        return dict(zip(self.coordinate_names, values.tolist(), strict=True))
