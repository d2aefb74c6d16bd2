"""What is known of one parameter before anything is measured."""

from typing import Any, final

import equinox as eqx
import jax
import numpy as np


def number(value: Any) -> Any:
    """A float64 scalar of numpy, so that JAX sees a number to trace; traced values pass."""
    return value if isinstance(value, jax.Array) else np.float64(value)


def _optional_number(value: Any) -> Any:
    return None if value is None else number(value)


def is_concrete(*values: Any) -> bool:
    """Whether all values are known numbers (not traced), so that they can be checked."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


@final
class ParameterInfo(eqx.Module):
    """Metadata of one model parameter.

    Attributes:
        name: Name as models and configurations spell it.
        default: Value where none is given [unit].
        min_bound: Lower bound of the fit [unit].
        max_bound: Upper bound of the fit [unit].
        description: What it is, for people.
        unit: Physical unit; empty for pure numbers.
        group: Group under which configurations list it.
        vary_default: Whether it is fitted where nothing is said.
        log_space: Whether samplers and random starts should use its logarithm.
        prior_mean: Location of the default truncated normal prior; None: middle of the bounds.
        prior_std: Scale of the default prior before truncation; None: half the bounds' distance.
        is_scaling: Whether each angle may have its own (contrast and offset).
        is_physical: Whether it is a parameter of the physical model (not scaling).
        is_flow: Whether it describes flow or velocity.
    """

    name: str = eqx.field(static=True)
    default: float = eqx.field(converter=number)
    min_bound: float = eqx.field(converter=number)
    max_bound: float = eqx.field(converter=number)
    description: str = eqx.field(static=True)
    unit: str = eqx.field(static=True, default="")
    group: str = eqx.field(static=True, default="")
    vary_default: bool = eqx.field(static=True, default=True)
    log_space: bool = eqx.field(static=True, default=False)
    prior_mean: float | None = eqx.field(converter=_optional_number, default=None)
    prior_std: float | None = eqx.field(converter=_optional_number, default=None)
    is_scaling: bool = eqx.field(static=True, default=False)
    is_physical: bool = eqx.field(static=True, default=True)
    is_flow: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(
                f"A parameter's name must be a word of letters, digits and _; got {self.name!r}."
            )
        low, default, high, unit = self.min_bound, self.default, self.max_bound, self.unit
        if not is_concrete(low, default, high, self.prior_std):
            return
        if not (np.isfinite([low, high]).all() and low < high and low <= default <= high):
            raise ValueError(
                f"Parameter {self.name!r}: need finite min_bound < max_bound with the default "
                f"between them; got {low} .. {default} .. {high} {unit}".rstrip()
                + "."
            )
        if self.prior_std is not None and not self.prior_std > 0:
            raise ValueError(
                f"Parameter {self.name!r}: prior_std must be > 0; got {self.prior_std}."
            )

    @property
    def prior_location(self) -> float:
        """Location of the default prior [unit]: `prior_mean` or the middle of the bounds."""
        if self.prior_mean is None:
            return 0.5 * (self.min_bound + self.max_bound)
        return self.prior_mean

    @property
    def prior_scale(self) -> float:
        """Scale of the default prior [unit]: `prior_std` or half the bounds' distance."""
        if self.prior_std is None:
            return 0.5 * (self.max_bound - self.min_bound)
        return self.prior_std
