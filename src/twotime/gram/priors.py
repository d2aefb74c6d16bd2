r"""Informative priors as further residuals of a fit: the maximum a posteriori estimate.

With a known sigma, $\chi^2 + \sum z^2$ is minimised, $z = (\theta - \mu)/s$. Without one the noise
level $v = \chi^2/n$ is profiled: $\frac n2 \ln\chi^2 + \frac12 \sum z^2$ is smallest where
$\chi^2 e^{\sum z^2/n}$ is.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.config.priors import PriorType

Free = Float[Array, " free"]
_NORMAL = PriorType.NORMAL, PriorType.TRUNCATED_NORMAL, PriorType.HALFNORMAL


class Priors(eqx.Module):
    """Normal priors of the free parameters.

    Attributes:
        location: Their locations [each its unit].
        precision: One over their variances; 0 where there is no prior.
    """

    location: Free
    precision: Free

    @classmethod
    def of(cls, space: ParameterSpace) -> "Priors":
        """The priors of a space, of parameters that vary and have one.

        Raises:
            ValueError: If one is of a family that is no normal, or there is none.
        """
        location, precision = [], []
        free = np.flatnonzero(space.varying)
        for k in free:
            prior = space.own_priors[k]
            if prior is None or prior.prior_type is PriorType.UNIFORM:
                numbers: tuple[Any, Any] = (0.0, 0.0)
            elif prior.prior_type in _NORMAL:
                numbers = prior.params.get("loc", 0.0), prior.params["scale"] ** -2.0
            else:
                kind = prior.prior_type.value
                raise ValueError(
                    f"Parameter {space.names[k]!r} has a {kind} prior; a fit takes normal, "
                    "truncated and half normal priors (uniform ones are bounds); change it, or "
                    "leave out priors=True."
                )
            location.append(numbers[0])
            precision.append(numbers[1])
        if not any(space.own_priors[k] is not None for k in free):
            raise ValueError(
                "priors=True, but no parameter that varies has a prior; give some "
                "(space.with_priors), or leave it out."
            )
        return cls(*(jnp.stack([jnp.asarray(x, float) for x in y]) for y in (location, precision)))

    def penalty(self, values: Free) -> Float[Array, ""]:
        """Sum of squares of their residuals."""
        return jnp.sum(self.precision * (values - self.location) ** 2)

    def slope(self, values: Free) -> Free:
        """Gradient of half the penalty."""
        return self.precision * (values - self.location)
