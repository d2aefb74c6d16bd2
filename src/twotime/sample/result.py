"""What chains found, made into a result: shards combined, widths corrected, everything named."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import correlation
from twotime.results.cmc import CMCResult, Limits
from twotime.sample import diagnostics
from twotime.sample.chains import Settings
from twotime.sample.combine import Combined, combine_shards
from twotime.sample.density import Guide, Plane, Posterior
from twotime.sample.driver import Result
from twotime.sample.importance import reweighted
from twotime.sample.shards import Dealing
from twotime.sample.width import WIDTHS, Widths, widen

_SHOWN = 400


class Facts(NamedTuple):
    """What was sampled and how, beside the draws.

    Attributes:
        model: The model.
        space: The space.
        posterior: The posterior of all pixels.
        whole: The same, by the evaluator that is fastest.
        mode: Resolved `per_angle_mode`.
        evaluator: What computed the likelihood.
        settings: How it was sampled.
        dealing: How pixels were dealt.
        guide: What shards were guided by.
        combine: How they are combined.
        width: How the width is corrected.
        correction: The covariances it is corrected by.
        limits: What chains must keep.
        exclude: Whether shards that do not are left out.
        key: Random key of the run.
    """

    model: AbstractTwoTimeModel
    space: ParameterSpace
    posterior: Posterior
    whole: Posterior
    mode: str
    evaluator: str
    settings: Settings
    dealing: Dealing
    guide: Guide | None
    combine: str
    width: str
    correction: Widths | None
    limits: Limits
    exclude: bool
    key: PRNGKeyArray


def make_result(facts: Facts, result: Result) -> CMCResult:
    """Combine, widen and judge draws; `seconds` is left to the caller.

    Args:
        facts: What was sampled and how.
        result: The draws.

    Raises:
        ValueError: If no shard is left, or draws are too few to combine.
    """
    posterior, trace = facts.posterior, result.trace
    n, n_shards = posterior.sizes[0], facts.dealing.n_shards
    found = diagnostics.convergence(
        trace.position, trace.energy, trace.divergent, trace.depth, facts.settings.max_tree_depth
    )
    kept = diagnostics.converged_shards(found, *_numbers(facts.limits))
    excluded = _excluded(kept, facts.exclude)
    used = np.ones(n_shards, bool)
    used[list(excluded)] = False
    guide = None if facts.guide is None else _of_joint(facts.guide, posterior, trace.joint.shape)
    combined = combine_shards(trace.joint, facts.combine, facts.dealing.seed, guide, used)
    joint, pareto_k, effective = _weighted(facts, combined)
    joint, ratio = _widened(facts, joint)
    draws, contrast, offset, noise = _physical(posterior, joint)
    values = np.array(posterior.start)
    values[np.flatnonzero(posterior.varying)] = np.median(draws, axis=(0, 1))
    return CMCResult(
        **_names(facts),
        excluded=excluded,
        is_complete=result.is_complete,
        draws=draws,
        contrast=contrast,
        offset=offset,
        noise=noise,
        values=values,
        log_density=trace.log_density,
        energy=trace.energy,
        acceptance=trace.acceptance.mean(axis=(1, 2)),
        tree_depth=trace.depth.mean(axis=(1, 2)),
        deepest=found.deepest,
        step=result.step,
        shard_r_hat=found.r_hat,
        shard_ess_bulk=found.ess_bulk,
        shard_ess_tail=found.ess_tail,
        shard_bfmi=found.bfmi,
        shard_divergences=found.divergences,
        shard_converged=kept,
        shard_draws=np.asarray(posterior.coordinates.to_values(_some(trace.joint[..., :n]))),
        disagreement=combined.disagreement[:, :n],
        pareto_k=np.asarray(pareto_k),
        ess_weights=np.asarray(effective),
        power=np.asarray(float(posterior.power)),
        width_ratio=ratio,
        n_points=np.asarray(float(posterior.source.n_pixels)),
        n_gradients=np.asarray(float(result.n_gradients)),
        seconds=np.asarray(np.nan),
    )


def _names(facts: Facts) -> dict[str, Any]:
    """The part of a result that is known before sampling."""
    posterior, many = facts.posterior, facts.dealing.n_shards > 1
    plane = posterior.source
    assert isinstance(plane, Plane)
    return {
        "all_names": tuple(facts.space.names),
        "varying": posterior.varying,
        "units": tuple(facts.space.units),
        "model": type(facts.model).__name__,
        "per_angle_mode": facts.mode,
        "evaluator": facts.evaluator,
        "sampler": facts.settings.sampler,
        "scaling_kind": "sampled" if posterior.scaling.sampled is not None else "marginal",
        "noise_kind": posterior.noise,
        "combination": facts.combine if many else "",
        "strategy": facts.dealing.strategy if many else "",
        "width_kind": facts.width,
        "width_text": WIDTHS[facts.width],
        "coordinate_names": _coordinate_names(posterior),
        "limits": facts.limits,
        "phi": np.asarray(plane.data.phi, float),
    }


def _numbers(limits: Limits) -> tuple[float, float, float, int]:
    return limits.max_r_hat, limits.min_ess, limits.min_bfmi, limits.max_divergences


def _excluded(kept: Bool[np.ndarray, " shard"], exclude: bool) -> tuple[int, ...]:
    """Shards to leave out, if that is asked for and some are left."""
    if not exclude or len(kept) == 1:
        return ()
    if not kept.any():
        raise ValueError(
            "No shard converged, so none is left to combine; draw more, use fewer shards, or "
            "combine all of them with exclude=False."
        )
    return tuple(int(k) for k in np.flatnonzero(~kept))


def _of_joint(guide: Guide, posterior: Posterior, shape: tuple[int, ...]) -> Guide:
    """The guide among all coordinates of draws: of what was integrated out it says nothing."""
    size, place = shape[-1], posterior.place
    centre, precision = np.zeros(size), np.zeros((size, size))
    centre[place] = guide.centre
    precision[np.ix_(place, place)] = guide.precision
    return Guide(centre, precision)


def _weighted(facts: Facts, combined: Combined) -> tuple[np.ndarray, float, float]:
    """Draws corrected by the posterior of all pixels, if that is asked for."""
    if facts.combine != "importance" or facts.dealing.n_shards == 1:
        return combined.draws, np.nan, np.nan
    place = facts.posterior.place
    return reweighted(
        facts.whole,
        combined.mean[place],
        combined.covariance[np.ix_(place, place)],
        combined.draws.shape[:2],
        jax.random.fold_in(facts.key, 4),
    )


def _widened(facts: Facts, joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws with their width corrected, and by how much the parameters' deviations grew."""
    n = facts.posterior.sizes[0]
    if facts.width == "tempering":
        return joint, np.full(n, float(facts.posterior.power) ** -0.5)
    if facts.correction is None or facts.width != "sandwich":
        return joint, np.ones(n)
    wide = widen(joint, facts.correction)
    return wide, wide[..., :n].std(axis=(0, 1)) / joint[..., :n].std(axis=(0, 1))


def _physical(
    posterior: Posterior, joint: Float[np.ndarray, "chain draw joint"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, contrast, offset and noise level from draws in unbounded coordinates."""
    n, m = posterior.sizes[0], sum(posterior.scaling.free)
    plane = posterior.source
    assert isinstance(plane, Plane)
    draws = posterior.coordinates.to_values(jnp.asarray(joint[..., :n]))
    coefficients = posterior.scaling_values(jnp.asarray(joint[..., n : n + m]))
    both = np.asarray(posterior.scaling.per_angle(coefficients))
    noise = np.full(joint.shape[:2], np.nan)
    if posterior.noise != "known":
        noise = np.exp(joint[..., n + m])
    return np.asarray(draws), both[..., 0], both[..., 1] + float(plane.shift), noise


def _coordinate_names(posterior: Posterior) -> tuple[str, ...]:
    names = list(posterior.coordinates.names)
    if posterior.scaling.sampled is not None:
        kinds = posterior.scaling.sampled.names
        names += [f"{kind}[{kinds[:i].count(kind)}]" for i, kind in enumerate(kinds)]
    return (*names, "noise") if posterior.noise == "sampled" else tuple(names)


def _some(draws: Float[np.ndarray, "shard chain draw free"]) -> jax.Array:
    flat = draws.reshape(draws.shape[0], -1, draws.shape[-1])
    chosen = np.unique(np.linspace(0, flat.shape[1] - 1, min(_SHOWN, flat.shape[1])).astype(int))
    return jnp.asarray(flat[:, chosen])


def predictive(
    result: CMCResult, model: AbstractTwoTimeModel, data: TwoTimeData, n_draws: int = 200
) -> tuple[Float[np.ndarray, "angle time time"], Float[np.ndarray, "angle time time"]]:
    """Posterior mean of the fitted c2, and the standard deviation of a pixel's prediction.

    Args:
        result: The posterior.
        model: The model that was sampled.
        data: The data, for their axes and sigma.
        n_draws: Draws to average over, evenly spread.

    Returns:
        Mean, and the deviation from parameters and noise together.

    Raises:
        ValueError: If `n_draws` is not positive.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws is {n_draws}; expected at least 1 draw to predict from.")
    draws = result.all_draws()
    chosen = np.unique(np.linspace(0, len(draws) - 1, min(n_draws, len(draws))).astype(int))
    n_angles = result.contrast.shape[-1]
    contrast, offset = (x.reshape(-1, n_angles)[chosen] for x in (result.contrast, result.offset))
    noise = result.noise.reshape(-1)[chosen]
    mean, square = _moments(model, data, *map(jnp.asarray, (draws[chosen], contrast, offset)))
    spread = np.maximum(np.asarray(square) - np.asarray(mean) ** 2, 0.0)
    if data.sigma is None:
        return np.asarray(mean), np.sqrt(spread + np.mean(noise**2))
    return np.asarray(mean), np.sqrt(spread + np.asarray(data.sigma) ** 2)


@compiled
def _moments(
    model: AbstractTwoTimeModel, data: TwoTimeData, draws: Array, contrast: Array, offset: Array
) -> tuple[Array, Array]:
    t, q, phi = (jnp.asarray(x) for x in (data.t, data.q, data.phi))

    def add(sums: tuple[Array, Array], x: tuple[Array, Array, Array]) -> tuple[Any, None]:
        params, c, o = x
        c2 = c[:, None, None] * correlation(model, params, t=t, q=q, phi=phi) + o[:, None, None]
        return (sums[0] + c2, sums[1] + c2 * c2), None

    blank = jnp.zeros(data.c2.shape)
    sums, _ = jax.lax.scan(add, (blank, blank), (draws, contrast, offset))
    return sums[0] / draws.shape[0], sums[1] / draws.shape[0]
