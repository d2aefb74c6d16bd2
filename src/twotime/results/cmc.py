"""Results of sampling: draws from a posterior, and how far they can be trusted."""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from twotime.kinds import check_fields
from twotime.results import storage

Array = np.ndarray
_MISPLACED = 4.5
"""Log likelihood by which another optimum rejects that of the chains: 3 standard deviations."""
_CONFLICT = 0.01
"""Prior predictive p value of all priors together below which one is said to disagree."""


class Limits(eqx.Module):
    """Limits on the diagnostics of chains that count as converged, and on the fit before them.

    Attributes:
        max_r_hat: Largest rank-normalised split R-hat.
        min_ess: Smallest effective sample size, of the bulk, the tails and importance weights.
        min_bfmi: Smallest Bayesian fraction of missing information.
        max_divergences: Divergent draws of a shard.
        max_pareto_k: Largest Pareto k of importance weights.
        max_reduced_chi2: Largest reduced chi-squared of a fit that is sampled from at all.
    """

    max_r_hat: float = eqx.field(default=1.01, static=True, converter=float)
    min_ess: float = eqx.field(default=400, static=True, converter=float)
    min_bfmi: float = eqx.field(default=0.3, static=True, converter=float)
    max_divergences: int = eqx.field(default=0, static=True)
    max_pareto_k: float = eqx.field(default=0.7, static=True, converter=float)
    max_reduced_chi2: float | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        check_fields(self)


def _limits(limits: Limits | Mapping[str, Any]) -> Limits:
    return limits if isinstance(limits, Limits) else Limits(**limits)


class CMCResult(storage.AbstractModelResult):
    """Draws from a posterior with their diagnostics.

    Diagnostics are those of each shard's chains as they were run, before draws were combined and
    their width corrected.

    Attributes:
        sampler: "nuts" or "hmc".
        scaling_kind: Contrast and offset "marginal" (integrated out) or "sampled".
        noise_kind: Noise level "known", "sampled" or "marginal".
        combination: How shards were combined; empty for one shard.
        strategy: How points were divided into shards; empty for one shard.
        width_kind: "curvature", "tempering" or "none"; "sandwich" in results of version 0.1.
        width_text: What `width_kind` means, in words.
        coordinate_names: Names of the coordinates in which chains ran.
        limits: Limits of the diagnostics for convergence.
        excluded: Shards that were left out of the combination.
        is_complete: Whether all draws were made.
        draws: Draws of the sampled parameters, in the order of `names`.
        contrast: Draws of the contrast of each angle.
        offset: Draws of the offset of each angle.
        noise: Draws of the noise level of a point; NaN if sigma was given.
        values: All parameters: posterior medians, and values of the fixed ones.
        phi: Detector angles [degree].
        q: Wavevector, one or one per angle [1/Å]; None in results of earlier versions.
        rings: Ring of equal wavevector of each matrix, from 0; empty for one wavevector.
        weight: How much each matrix counted, relative to others; None: all alike.
        log_density: Log density of the draws of each shard, up to a constant.
        energy: Energy of each trajectory.
        acceptance: Mean acceptance of each shard's chains.
        tree_depth: Mean doublings of each shard's trajectories.
        deepest: Fraction of the trajectories that were stopped at the maximum depth.
        step: Step size of each shard, in standard deviations.
        shard_r_hat: Rank-normalised split R-hat.
        shard_ess_bulk: Effective sample sizes for the middle.
        shard_ess_tail: Effective sample sizes for the tails.
        shard_bfmi: BFMI of each chain.
        shard_divergences: Divergent draws.
        shard_converged: Whether each shard is within the limits.
        shard_draws: Some draws of each shard.
        disagreement: Distance of each shard's mean from the combined one [standard deviations].
        pareto_k: Tail shape of the importance weights, not reliable above 0.7; NaN without
            weights.
        ess_weights: Effective sample size of the weighted draws; NaN without weights.
        power: Power of the likelihood: below 1 if it was tempered.
        width_ratio: Standard deviations that the data give after the width correction divided by
            those before.
        n_points: Elements of c2 that were used.
        n_gradients: Evaluations of density and gradient.
        seconds: Time for sampling, compilation included [s].
        prior_names: Coordinates to which priors were given; other priors are uniform between the
            bounds. None where it is not known, as are the next six, in results of version 0.1.
        prior_means: Means of these priors.
        prior_deviations: Their standard deviations.
        prior_chances: Prior predictive p value of the fit, which uses no priors.
        data_estimates: What the fit says.
        data_errors: Its standard deviations.
        misplaced: How much more likely another optimum is than where the chains are, as a
            logarithm; not positive if none is.
    """

    ARRAYS: ClassVar[str] = "posterior.npz"
    ARE_FIELDS_THERE: ClassVar[bool] = True
    FORMER_NAMES: ClassVar[Mapping[str, str]] = {"n_pixels": "n_points"}

    sampler: str = eqx.field(static=True)
    scaling_kind: str = eqx.field(static=True)
    noise_kind: str = eqx.field(static=True)
    combination: str = eqx.field(static=True)
    per_angle_mode: str = eqx.field(static=True)
    strategy: str = eqx.field(static=True)
    width_kind: str = eqx.field(static=True)
    width_text: str = eqx.field(static=True)
    coordinate_names: tuple[str, ...] = eqx.field(static=True)
    limits: Limits = eqx.field(converter=_limits)
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
    n_points: Float[Array, ""]
    n_gradients: Float[Array, ""]
    seconds: Float[Array, ""]
    prior_names: tuple[str, ...] | None = eqx.field(static=True, default=None)
    prior_means: Float[Array, " prior"] | None = None
    prior_deviations: Float[Array, " prior"] | None = None
    prior_chances: Float[Array, " prior"] | None = None
    data_estimates: Float[Array, " prior"] | None = None
    data_errors: Float[Array, " prior"] | None = None
    misplaced: Float[Array, ""] | None = None
    q: Float[Array, ""] | Float[Array, " angle"] | None = None
    rings: tuple[int, ...] = eqx.field(static=True, default=())
    weight: Float[Array, " angle"] | None = None

    n_pixels = storage.former("n_pixels", "n_points")

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self.shard_converged)

    @property
    def samples(self) -> dict[str, Float[Array, "chain draw"]]:
        """Draws of the sampled parameters by name."""
        return {name: self.draws[..., i] for i, name in enumerate(self.names)}

    @property
    def judged(self) -> dict[str, Float[Array, "chain draw"]]:
        """Draws of every coordinate that chains moved in and R-hat judges, in their own units."""
        draws = dict(self.samples)
        for name in self.coordinate_names[len(self.names) :]:
            kind, _, number = name.rstrip("]").partition("[")
            draws[name] = getattr(self, kind)[..., int(number)] if number else self.noise
        return draws

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
        """Whether sampling is complete, at the best optimum, and shards and weights in limits."""
        kept = np.delete(self.shard_converged, list(self.excluded))
        whole = self.is_complete and not self.is_misplaced
        return whole and bool(np.all(kept)) and self.weights_hold

    @property
    def is_misplaced(self) -> bool:
        """Whether another optimum is far more likely than where the chains are."""
        return self.misplaced is not None and float(self.misplaced) > _MISPLACED

    @property
    def prior_conflicts(self) -> tuple[str, ...]:
        """Priors that the data contradict, a sentence each.

        Of the priors that agree with the data one in a hundred posteriors has one named here.
        """
        names, found = self.prior_names or (), []
        numbers = (
            self.prior_means, self.prior_deviations, self.prior_chances, self.data_estimates,
            self.data_errors,
        )  # fmt: skip
        columns = (np.asarray(x).tolist() for x in numbers) if names else ()
        for name, mean, width, chance, estimate, error in zip(names, *columns, strict=True):
            if chance * len(names) >= _CONFLICT:
                continue
            away, where = abs(estimate - mean) / width, "below" if estimate < mean else "above"
            draws = self.judged.get(name)
            said = "" if draws is None else f"{draws.mean():.4g} ± {draws.std():.2g}"
            found.append(
                f"prior and data disagree on {name}: the data alone give {estimate:.4g} ± "
                f"{error:.2g}, {away:.1f} prior deviations {where} the prior {mean:.4g} ± "
                f"{width:.2g} (prior predictive p = {chance:.1e})"
                + (said and f"; the posterior is {said}")
            )
        return tuple(found)

    @property
    def weights_hold(self) -> bool:
        """Whether importance weights, if any, are reliable and their sample is large enough."""
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
        """Whether the chains converged, the reasons if not, and priors that the data contradict."""
        return "; ".join((self._convergence(), *self.prior_conflicts))

    def _convergence(self) -> str:
        keep, diverged = self.limits, self.shard_divergences
        worst = max(self.r_hat, key=lambda n: np.nan_to_num(self.r_hat[n], nan=np.inf))
        r_hat, ess = self.r_hat[worst], float(np.min([self.shard_ess_bulk, self.shard_ess_tail]))
        pareto_k, weighted = float(self.pareto_k), float(self.ess_weights)
        checks = [
            (f"R-hat at most {r_hat:.4f} ({worst})", keep.max_r_hat, r_hat <= keep.max_r_hat),
            (f"effective sample size at least {ess:.0f}", keep.min_ess, ess >= keep.min_ess),
            (f"BFMI at least {self.bfmi:.2f}", keep.min_bfmi, self.bfmi >= keep.min_bfmi),
            (f"{self.divergences} divergences", keep.max_divergences,
             np.all(diverged <= keep.max_divergences)),
        ]  # fmt: skip
        if self.combination == "importance":
            checks += [
                (f"Pareto k {pareto_k:.2f}", keep.max_pareto_k, pareto_k <= keep.max_pareto_k),
                (f"weights worth {weighted:.0f} draws", keep.min_ess, weighted >= keep.min_ess),
            ]
        if self.is_misplaced:
            ratio = float(np.asarray(self.misplaced))
            better = f"another optimum is more likely by {ratio:.1f} in logarithm"
            checks.append((f"{better} than where the chains are", _MISPLACED, False))
        facts = ", ".join(fact for fact, _, _ in checks)
        faults = "; ".join(f"{fact}, limit {limit:g}" for fact, limit, kept in checks if not kept)
        where = f" in {self.n_shards} shards" if self.n_shards > 1 else ""
        where += f"; shards {', '.join(map(str, self.excluded))} left out" if self.excluded else ""
        if not self.is_complete:
            return f"not converged: interrupted after {self.draws.shape[1]} draws ({facts}{where})"
        if self.converged:
            return f"converged: {facts}{where}"
        return f"not converged: {faults}{where}; draw more samples or look at the traces"

    def all_draws(self) -> Float[Array, "draw param"]:
        """Draws of all parameters, the fixed ones at their values."""
        flat = self.draws.reshape(-1, self.draws.shape[-1])
        out = np.tile(self.values, (len(flat), 1))
        out[:, np.flatnonzero(self.varying)] = flat
        return out

    def to_arviz(self) -> Any:
        """The draws as an ArviZ InferenceData (a DataTree from ArviZ 1 on).

        Its method `to_netcdf(path)` writes a NetCDF file.

        Raises:
            ModuleNotFoundError: If ArviZ is not installed.
        """
        try:
            import arviz
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_arviz needs ArviZ, which is not installed: python -m pip install "
                "'twotime[posterior]'."
            ) from None
        posterior = dict(self.samples) | {"contrast": self.contrast, "offset": self.offset}
        if self.noise_kind != "known":
            posterior["noise"] = self.noise
        groups: dict[str, Any] = {"posterior": posterior}
        if self.n_shards == 1:
            groups["sample_stats"] = {"lp": self.log_density[0], "energy": self.energy[0]}
        fixed = {n: np.asarray(v) for n, v in self.params.items() if n not in self.names}
        groups |= {"constant_data": fixed} if fixed else {}
        dims = {"contrast": ["angle"], "offset": ["angle"]}
        axes: Any = {"coords": {"angle": self.phi}, "dims": dims}
        if int(arviz.__version__.split(".")[0]) >= 1:
            return arviz.from_dict(groups, **axes)
        return arviz.from_dict(**groups, **axes)

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: x for name, x in vars(self).items() if isinstance(x, np.ndarray)}

    def _worst(self, values: Float[Array, " coordinate"]) -> dict[str, float]:
        return dict(zip(self.coordinate_names, values.tolist(), strict=True))
