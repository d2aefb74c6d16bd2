"""What noise makes of contrast and offset and leaves in residuals; whether angles may share them.

A sum over the residuals of one angle, with mean derivatives T by the parameters and S by the
angle's own contrast and offset, loses T times what all scores move the parameters, and S times
what they move contrast and offset. Its covariance follows from that of the scores.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc
from jaxtyping import Array, Bool, Float

from twotime.covariance import LinearisedFit, Sandwich
from twotime.covariance.modes import Modes
from twotime.covariance.residuals import jackknife
from twotime.gram.pairs import DATA, FIRST, MODEL, ONE
from twotime.results.judgement import FALSE_ALARMS

Followed = Float[Array, "angle 2 angle 2"]
"""What contrast and offset of an angle follow of the scores of another, in unit directions."""


def turned_scaling(at: LinearisedFit) -> Float[Array, "angle 2 2"]:
    """Derivatives by contrast and offset of each angle, along those whose normal matrix is 1."""
    count, mean = at.grams[:, ONE, ONE], at.grams[:, MODEL, ONE] / at.grams[:, ONE, ONE]
    spread = jnp.maximum(at.grams[:, MODEL, MODEL] - mean * at.grams[:, MODEL, ONE], 0.0)
    root, zero = jnp.sqrt(count), jnp.zeros_like(count)
    of_contrast = jnp.stack([jnp.sqrt(spread), mean * root], axis=1)
    return jnp.stack([of_contrast, jnp.stack([zero, root], axis=1)], axis=2)


def followed_scaling(at: LinearisedFit) -> Followed:
    """How contrast and offset of each angle follow the scores of all, as angles share them."""
    scaling = at.problem.scaling
    basis = scaling.basis[:, None, :, None] * at.reduced.scaling.free
    slopes = (turned_scaling(at)[:, :, None, :] * basis).reshape(basis.shape[0], 2, -1)
    normal = jnp.einsum("aip,aiq->pq", slopes, slopes)
    size = jnp.diag(normal)
    normal = normal + jnp.diag(jnp.where(size > 0, 1e-12 * size, 1.0))
    inverse = jnp.linalg.inv(normal)
    return jnp.einsum("aip,pq,bjq->aibj", slopes, inverse, slopes)


class Response(NamedTuple):
    """What noise moves contrast and offset of each angle by.

    Attributes:
        to_parameters: By the scores of parameters, summed over angles, in unit directions.
        to_scaling: By the two scores of each angle's own contrast and offset.
        followed: How they follow these scores, in unit directions.
    """

    to_parameters: Float[Array, "angle 2 direction"]
    to_scaling: Float[Array, "angle 2 angle 2"]
    followed: Followed

    @classmethod
    def of(cls, at: LinearisedFit) -> "Response":
        """The response of a fit: contrast and offset follow the parameters and their own scores."""
        projection = jnp.einsum("ac,scp->asp", at.problem.scaling.basis, at.reduced.projection)
        own = jnp.linalg.inv(_safe(turned_scaling(at)))
        followed = followed_scaling(at)
        to_scaling = jnp.einsum("aij,ajbs->aibs", own, followed)
        return cls(-projection @ at.root, to_scaling, followed)

    def variance(self, scores: Float[Array, "angle score score"]) -> Float[Array, "angle 2"]:
        """Variance of contrast and offset from the covariance of scores, those of a fit last."""
        fitted = slice(-2 - self.to_parameters.shape[2], None)
        scores = scores[:, fitted, fitted]
        parameters, both, own = scores[:, :-2, :-2].sum(0), scores[:, :-2, -2:], scores[:, -2:, -2:]
        return (
            jnp.einsum("aip,pq,aiq->ai", self.to_parameters, parameters, self.to_parameters)
            + 2 * jnp.einsum("aip,bps,aibs->ai", self.to_parameters, both, self.to_scaling)
            + jnp.einsum("aibs,bst,aibt->ai", self.to_scaling, own, self.to_scaling)
        )

    def variance_of_frames(self, by_frame: Array) -> Float[Array, "angle 2"]:
        """The same from the scores of each angle and frame."""
        moved = jnp.einsum("aip,bpn->ain", self.to_parameters, by_frame[:, :-2])
        moved += jnp.einsum("aibs,bsn->ain", self.to_scaling, by_frame[:, -2:])
        return jax.vmap(lambda x: jnp.diag(jackknife(x)))(moved)


def _safe(turned: Float[Array, "angle 2 2"]) -> Float[Array, "angle 2 2"]:
    """Derivatives by contrast and offset that have an inverse where the correlation is constant."""
    return turned.at[:, 0, 0].set(jnp.where(turned[:, 0, 0] > 0, turned[:, 0, 0], 1.0))


def lost_to_fit(
    taken: Float[Array, "angle sum fitted"], followed: Followed
) -> Float[Array, "angle angle sum fitted"]:
    """What sums over the residuals of an angle lose of each score of another.

    Args:
        taken: Sums of the derivatives by parameters, contrast and offset, in unit directions.
        followed: How contrast and offset follow the scores.
    """
    of_theta, of_scaling = taken[:, None, :, :-2], taken[:, :, -2:]
    by_scaling = jnp.einsum("agi,aibj->abgj", of_scaling, followed)
    shape = *by_scaling.shape[:3], of_theta.shape[3]
    return jnp.concatenate([jnp.broadcast_to(of_theta, shape), by_scaling], axis=3)


def left_by_fit(
    scores: Float[Array, "angle score score"],
    chosen: slice,
    taken: Float[Array, "angle sum fitted"],
    followed: Followed,
) -> Float[Array, "angle sum sum"]:
    """Covariance of sums over the residuals of each angle after the fit.

    Args:
        scores: Covariance of scores; those of parameters, contrast and offset last.
        chosen: Which scores are the sums before the fit.
        taken: Sums of the derivatives by parameters, contrast and offset, in unit directions.
        followed: How contrast and offset follow the scores.
    """
    fitted, lost = slice(-taken.shape[2], None), lost_to_fit(taken, followed)
    angle = jnp.arange(scores.shape[0])
    both = jnp.einsum("aps,ags->apg", scores[:, chosen, fitted], lost[angle, angle])
    total = jnp.einsum("abgs,bst,abht->agh", lost, scores[:, fitted, fitted], lost)
    return scores[:, chosen, chosen] - both - both.mT + total


def own_scaling(at: LinearisedFit, found: Sandwich, followed: Followed) -> Float[Array, "angle 2"]:
    """How far contrast and offset of its own would move each angle [standard deviations]."""
    grams, scaling = at.grams, at.reduced.scaling
    turned = turned_scaling(at)
    combine = jnp.stack([jnp.ones_like(scaling.offset), -scaling.offset, -scaling.contrast], 1)
    linear = jnp.array([MODEL, ONE])
    score = jnp.einsum("aj,ajk->ak", combine, grams[:, jnp.array([DATA, ONE, MODEL])][:, :, linear])
    usable = turned[:, 0, 0] > 0
    # Derivatives by parameters, what contrast and offset follow taken out.
    slopes = scaling.contrast[:, None, None] * grams[:, linear, FIRST:]
    projection = jnp.einsum("ac,scp->asp", at.problem.scaling.basis, at.reduced.projection)
    normal = grams[:, linear[:, None], linear]
    slopes = (slopes - jnp.einsum("ais,asp->aip", normal, projection)) @ at.root
    unit = jnp.linalg.inv(_safe(turned)).mT  # scores by (contrast, offset) along unit directions
    score, slopes = jnp.einsum("aij,aj->ai", unit, score), unit @ slopes
    taken = jnp.concatenate([slopes, jnp.broadcast_to(jnp.eye(2), (len(score), 2, 2))], axis=2)
    left = left_by_fit(found.scores, slice(-2, None), taken, followed)
    modes = jax.vmap(partial(Modes.of, jnp.eye(2)))(left, found.squares)
    size = jax.vmap(lambda m, x: m.size(m.inverse @ x))(modes, score)
    variance = jnp.diagonal(left, axis1=1, axis2=2) * size[:, None]
    known = usable[:, None] & (variance > 0)
    return jnp.where(known, score / jnp.sqrt(jnp.where(known, variance, 1.0)), 0.0)


def agree(deviations: Float[Array, "angle 2"]) -> Bool[Array, ""]:
    """Whether contrasts and offsets differ no more than noise would make them."""
    largest = jnp.max(jnp.abs(deviations))
    below = 1.0 - erfc(largest / jnp.sqrt(2.0))
    return 1.0 - below**deviations.size >= FALSE_ALARMS
