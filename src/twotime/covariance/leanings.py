"""Whether residuals lean towards the faults that laws usually have.

The change that a fault makes in c2 is a function of the fitted correlation, of time, angle and
wavevector. Residuals times that function, summed over all points, are the score of a law with the
fault; noise moves it by what is known of scores. So a fault that is spread thinly over all points
is noticed where no mean of some lags or frames is far from zero.

Reference:
    Rao, Proc. Camb. Phil. Soc. 44, 50 (1948): the score as a test.
"""

import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import Array, Float

from twotime.covariance.agreement import Followed, lost_to_fit
from twotime.data.dataset import TwoTimeData
from twotime.models.rates import AnyArray
from twotime.results.judgement import FAULTS

_LEAST_LEFT = 1e-4
"""Smallest part of a score's variance that a fit leaves it to be judged by."""


def of_faults(
    value: Float[Array, "*pair"], early: AnyArray, late: AnyArray, data: TwoTimeData, k: Array
) -> Float[Array, "fault *pair"]:
    """What each of `FAULTS` changes in c2 per contrast, at pairs of frames.

    Args:
        value: Fitted correlation C, 1 at equal times.
        early: Earlier frame of each pair.
        late: Later frame of each pair.
        data: The data.
        k: Which of their matrices.
    """
    value = jnp.clip(value, 1e-12, 1.0)
    exponent = -jnp.log(value)
    slower = value * exponent  # what larger rates change
    age = (early + late) / (data.t.shape[0] - 1.0) - 1.0
    place = data.place(k)
    angle = 2 * jnp.deg2rad(place["phi"])
    wavevector = jnp.log(place["q"] / data.place(jnp.asarray(0))["q"])
    age, angle, wavevector = (jnp.asarray(x, value.dtype) for x in (age, angle, wavevector))
    found = {
        "static scattering": jnp.sqrt(value) - value,
        "another shape": slower * jnp.log(jnp.maximum(exponent, 1e-12)),
        "contrast with age": value * age,
        "rates with age": slower * age,
        "rates with direction": slower * jnp.cos(angle),
        "rates with direction, oblique": slower * jnp.sin(angle),
        "rates with wavevector": slower * wavevector,
    }
    return jnp.stack([found[name] for name in FAULTS]).astype(value.dtype)


def leanings(
    sums: Float[Array, "angle fault"],
    scores: Float[Array, "angle score score"],
    chosen: slice,
    taken: Float[Array, "angle fault fitted"],
    followed: Followed,
) -> Float[Array, " fault"]:
    """How far residuals lean towards each fault [standard deviations]; 0 where that is unknown.

    Args:
        sums: Sums of residuals times what the fault changes.
        scores: Covariance of scores; those of parameters, contrast and offset last.
        chosen: Which scores are those of the faults.
        taken: Sums of what the fault changes times the derivatives of the fit, in unit directions.
        followed: How contrast and offset follow the scores.
    """
    lost = jnp.sum(lost_to_fit(taken, followed), axis=0)
    fitted = slice(-taken.shape[2], None)
    whole = jnp.einsum("agg->g", scores[:, chosen, chosen])
    both = jnp.einsum("ags,ags->g", lost, scores[:, chosen, fitted])
    left = whole - 2 * both + jnp.einsum("ags,ast,agt->g", lost, scores[:, fitted, fitted], lost)
    is_known = left > _LEAST_LEFT * whole
    return jnp.where(is_known, jnp.sum(sums, axis=0) / jnp.sqrt(jnp.where(is_known, left, 1.0)), 0)


def chance_of(leanings: Float[Array, " fault"]) -> Float[Array, ""]:
    """Probability, at most, that noise alone leans as far towards any of the faults."""
    count = jnp.maximum(jnp.sum(leanings != 0), 1)
    return jnp.minimum(count * erfc(jnp.max(jnp.abs(leanings)) / jnp.sqrt(2.0)), 1.0)
