"""Posteriors set up from model, data and space: what is free, known and integrated out."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.config.distributions import PriorType
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.gram.problem import make_problem
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.scaling import Scaling, resolve_mode
from twotime.results.nlsq import NLSQResult
from twotime.sample.coordinates import parameter_coordinates, scaling_coordinates
from twotime.sample.density import LinearScaling, Plane, Posterior

_NORMAL = (PriorType.NORMAL, PriorType.TRUNCATED_NORMAL)


def make_posterior(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: str,
    evaluator: str,
    *,
    scaling: str,
    noise: str,
    power: float = 1.0,
) -> Posterior:
    """The posterior of all pixels.

    Args:
        model: The model.
        data: The data, as `choose_evaluator` returns them.
        space: Bounds, priors and what varies.
        mode: Resolved `per_angle_mode`.
        evaluator: Resolved evaluator.
        scaling: "marginal" or "sampled".
        noise: "sampled" or "marginal" where the data have no sigma, else "known".
        power: Power of the likelihood.

    Raises:
        ValueError: If contrast and offset cannot be treated as asked.
    """
    problem = make_problem(model, data, space, mode, evaluator)
    count = problem.n_pixels.astype(float)
    linear = _linear_scaling(problem.scaling, space, problem.shift, scaling)
    if noise == "marginal" and scaling == "marginal" and any(linear.free):
        raise ValueError(
            "noise='marginal' cannot go with scaling='marginal': with a normal prior of contrast "
            "and offset the two have no closed form together; sample one of them."
        )
    return Posterior(
        model=model,
        source=Plane(data, problem.shift, count, problem.prepared, evaluator),
        start=problem.start,
        coordinates=parameter_coordinates(space),
        scaling=linear,
        share=jnp.ones(()),
        power=jnp.asarray(power, float),
        varying=problem.varying,
        noise="known" if data.sigma is not None else noise,  # type: ignore[arg-type]
    )


def choose_scaling(space: ParameterSpace, fit: NLSQResult | None, mode: str, asked: str) -> str:
    """Resolve scaling="auto": "marginal" where the bounds of contrast and offset are far.

    Args:
        space: The space.
        fit: The fit, if there is one.
        mode: Resolved `per_angle_mode`.
        asked: "auto", "marginal" or "sampled".

    Raises:
        ValueError: If the choice is unknown, or the priors do not allow it.
    """
    if asked not in ("auto", "marginal", "sampled"):
        raise ValueError(f"scaling is {asked!r}; expected 'auto', 'marginal' or 'sampled'.")
    per_angle = resolve_mode(mode, 1)
    names = [
        n
        for n, vary in zip(("contrast", "offset"), space.scaling_varying, strict=True)
        if vary and not per_angle.is_frozen
    ]
    strange = [n for n in names if space.priors[n].prior_type not in _NORMAL]
    if asked == "marginal" and strange:
        kind = space.priors[strange[0]].prior_type.value
        raise ValueError(
            f"scaling='marginal' integrates over normal priors; {strange[0]} has a {kind} prior; "
            "use scaling='sampled' or give it a normal prior."
        )
    if per_angle.is_series and (asked == "sampled" or strange):
        raise ValueError(
            "per_angle_mode 'fourier' needs normal priors of contrast and offset and "
            "scaling='marginal': bounds on every angle cannot be put on the coefficients."
        )
    if asked != "auto" or per_angle.is_series:
        return "marginal" if asked == "auto" else asked
    near = fit is not None and bool(np.any(fit.scaling_at_bound))
    return "sampled" if strange or near else "marginal"


def _linear_scaling(
    scaling: Scaling, space: ParameterSpace, shift: Float[Array, ""], how: str
) -> LinearScaling:
    lower, upper = (np.asarray(x).T.reshape(-1) for x in (scaling.lower, scaling.upper))
    free = lower < upper
    n = lower.shape[0] // 2
    kinds = np.repeat(("contrast", "offset"), n)[free]
    moved = np.where(kinds == "offset", float(shift), 0.0)
    is_wave = np.tile(np.arange(n) > 0, 2)[free] & scaling.mode.is_series
    if how == "sampled":
        coordinates = scaling_coordinates(space, tuple(str(k) for k in kinds))
        none = np.zeros(len(kinds))
        return LinearScaling(
            scaling.basis, jnp.asarray(lower), none, none, coordinates, moved, tuple(free.tolist())
        )
    priors = [space.priors[str(k)].params for k in kinds]
    centre = np.asarray([p["loc"] for p in priors]) - moved
    width = np.asarray([p["scale"] for p in priors])
    return LinearScaling(
        basis=scaling.basis,
        fixed=jnp.asarray(lower),
        centre=jnp.asarray(np.where(is_wave, 0.0, centre)),
        precision=jnp.asarray(width**-2.0),
        sampled=None,
        shift=jnp.asarray(np.where(is_wave, 0.0, moved)),
        free=tuple(free.tolist()),
    )


def position_of_fit(
    posterior: Posterior, fit: NLSQResult
) -> tuple[Float[np.ndarray, " coordinate"], Float[np.ndarray, " coordinate"]]:
    """Position of a fit, and a guess of the standard deviation of every coordinate."""
    free = np.flatnonzero(posterior.varying)
    z = np.asarray(posterior.coordinates.from_values(np.asarray(fit.values)[free]))
    slope = np.asarray(posterior.coordinates.slope(jnp.asarray(z)))
    width = np.sqrt(np.maximum(np.diag(np.asarray(fit.covariance_iid)), 0.0)) / slope
    width = np.where((width > 1e-9) & (width < 1.0), width, 1.0)
    parts, widths = [z], [width]
    sampled = posterior.scaling.sampled
    if sampled is not None:
        values = _coefficients(posterior.scaling, fit)
        parts.append(np.asarray(sampled.from_values(values)))
        widths.append(np.full(len(values), 0.1))
    if posterior.noise == "sampled":
        parts.append(np.asarray([0.5 * np.log(float(fit.chi2) / float(fit.n_points))]))
        widths.append(np.asarray([(2 * float(fit.n_points)) ** -0.5]))
    return np.concatenate(parts), np.concatenate(widths)


def _coefficients(scaling: LinearScaling, fit: NLSQResult) -> Float[np.ndarray, " free"]:
    """Free contrasts and offsets of a fit, one per angle or one for all."""
    n = len(scaling.free) // 2
    both = np.concatenate([np.asarray(fit.contrast)[:n], np.asarray(fit.offset)[:n]])
    return both[np.flatnonzero(scaling.free)]
