"""Bridge between a parameter space and solvers that see only what varies."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, final, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from twotime.config.parameter_names import SCALING_PARAMS, unknown_name
from twotime.config.parameter_space import ParameterSpace, check_count
from twotime.models import findings
from twotime.models.base import Severity, is_concrete
from twotime.tables import Table, Tabled

Numbers = Float[Array | np.ndarray, " parameter"]
Varying = Float[Array | np.ndarray, " varying"]
Given = Mapping[str, Any] | Float[ArrayLike, " parameter"]
Names = Sequence[str] | None
Frames = Float[ArrayLike, " time"] | None


class BoundDict(TypedDict):
    """Bound specification for a single parameter; `type` is the family of its prior."""

    name: str
    min: float
    max: float
    type: str


@dataclasses.dataclass(frozen=True)
class ValidationResult:
    """What a validation found, down to the severity that was asked for.

    Attributes:
        is_valid: Whether there are no errors.
        errors: Physically impossible values, one sentence each.
        warnings: Possible but unusual values, one sentence each.
        infos: Noteworthy values, one sentence each.
    """

    is_valid: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


def validate_parameters(
    values: Mapping[str, float], severity_level: str = "warning", t: Frames = None
) -> ValidationResult:
    """Judge parameter values by physics.

    Args:
        values: Name to value, of any of the models.
        severity_level: Least severity that is reported: "error", "warning" or "info".
        t: Time of each frame [s]; without it rules that need frames are left out.

    Raises:
        ValueError: If the severity is none of the three.
    """
    levels = get_args(Severity)
    if severity_level not in levels:
        listed = ", ".join(levels)
        raise ValueError(f"severity_level must be one of {listed}; got {severity_level!r}.")
    found: dict[str, list[str]] = {level: [] for level in levels}
    for severity, sentence in findings(values, t):
        found[severity].append(sentence)
    wanted = levels[: levels.index(severity_level) + 1]
    told = [tuple(found[level] if level in wanted else ()) for level in levels]
    return ValidationResult(not told[0], *told)


@final
class ParameterManager(Tabled, eqx.Module):
    """Which parameters vary, and how arrays of those become arrays of all.

    Arrays hold physics parameters in canonical order; contrast and offset are never in them.
    Every changing method gives a new manager.

    Args:
        space: The parameters; left out: the two-component model's defaults.
        start: Where optimization starts; left out: the space's values.

    Attributes:
        space: The parameters with their current values.
        start: Values of the physics parameters at construction, which later changes of values
            leave alone.
    """

    space: ParameterSpace = eqx.field(default_factory=ParameterSpace)
    start: Numbers | None = None

    def __post_init__(self) -> None:
        """Take the snapshot of the start from the space, which brings values and bounds."""
        if self.start is None:
            self.start = self.space.initial

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ParameterManager":
        """Create the manager of the space that a configuration asks for.

        Raises:
            ConfigurationError: If there are mistakes in it; all are reported at once.
        """
        return cls(ParameterSpace.from_config(config))

    def _shown(self) -> Table | None:
        table = self.space._shown()
        return table and table._replace(title=table.title.replace("Space", "Manager"))

    # Counts and names

    @property
    def n_params(self) -> int:
        """Number of physics parameters of the model."""
        return len(self.space.names)

    @property
    def n_varying(self) -> int:
        """Number of physics parameters that vary in optimization."""
        return sum(self.space.varying)

    @property
    def varying_indices(self) -> Int[np.ndarray, " varying"]:
        """Indices of the varying parameters in arrays of all."""
        return np.flatnonzero(self.space.varying)

    def get_active_parameters(self) -> list[str]:
        """Get names of the physics parameters that vary, in canonical order."""
        return [self.space.names[i] for i in self.varying_indices]

    get_optimizable_parameters = get_active_parameters

    def is_parameter_active(self, param_name: str) -> bool:
        """Check whether a physics parameter varies; False for contrast and offset.

        Raises:
            UnknownNameError: If there is no such parameter (a ValueError and a KeyError).
        """
        self.space.registry.check_names([param_name])
        return param_name in self.get_active_parameters()

    def get_fixed_parameters(self) -> dict[str, float]:
        """Return name and value of the physics parameters that are held fixed."""
        values, vary = self.space.values, self.space.vary
        return {name: values[name] for name in self.space.names if not vary[name]}

    def get_all_parameter_names(self) -> list[str]:
        """Get all parameter names: contrast and offset first, then physics."""
        return [*SCALING_PARAMS, *self.space.names]

    def get_effective_parameter_count(self) -> int:
        """Number of varying physics parameters."""
        return self.n_varying

    def get_total_parameter_count(self) -> int:
        """Number of all parameters, contrast and offset among them."""
        return self.space.n_total

    # Values

    def get_initial_values(self) -> Varying:
        """Get the start of each varying parameter: its value when the manager was made."""
        assert self.start is not None  # set at construction
        return self.start[self.varying_indices]

    def get_full_values(self) -> Numbers:
        """Get the current values of all physics parameters; the array is read-only."""
        values = self.space.get_initial_array()
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
        return values

    def get_parameter_dict(self) -> dict[str, float]:
        """Get current values by name, contrast and offset among them."""
        return self.space.values

    def get_group_values(self, group: str) -> dict[str, float]:
        """Get parameter values of a group.

        Raises:
            UnknownNameError: If the model has no such group (a ValueError and a KeyError).
        """
        groups, values = self.space.registry.groups, self.space.values
        if group not in groups:
            raise unknown_name("group", group, groups)
        return {name: values[name] for name in groups[group]}

    def update_values(self, params: Given) -> "ParameterManager":
        """A new manager with other current values; `get_initial_values` stays as it was.

        Args:
            params: Name to value, or all physics parameters in canonical order.
        """
        if not isinstance(params, Mapping):
            params = self.space.array_to_dict(params)
        return ParameterManager(self.space.with_values(params), self.start)

    def expand_varying_to_full(self, varying_params: Float[ArrayLike, " varying"]) -> Numbers:
        """Expand varying parameters to all physics parameters; fixed ones have their values.

        Works on NumPy arrays and, traced or not, on JAX arrays.

        Raises:
            ValueError: If there is not one number for each varying parameter.
        """
        check_count(varying_params, self.n_varying, "varying")
        full = self.space.initial
        if isinstance(varying_params, Array) or not is_concrete(full):
            return jnp.asarray(full).at[self.varying_indices].set(varying_params)
        full = np.array(full)
        full[self.varying_indices] = varying_params
        return full

    def extract_varying(self, full_params: Float[ArrayLike, " parameter"]) -> Varying:
        """Extract the varying parameters from all physics parameters.

        Raises:
            ValueError: If there is not one number for each physics parameter.
        """
        check_count(full_params, self.n_params, "physics")
        if not isinstance(full_params, Array):
            full_params = np.asarray(full_params, np.float64)
        return full_params[self.varying_indices]

    # Flags and bounds

    def set_vary(self, name: str, vary: bool) -> "ParameterManager":
        """A new manager in which a parameter varies or not."""
        return ParameterManager(self.space.with_vary({name: vary}), self.start)

    def set_bounds(self, name: str, lower: ArrayLike, upper: ArrayLike) -> "ParameterManager":
        """A new manager with other bounds of a parameter; its default prior is cut to them."""
        return ParameterManager(self.space.with_bounds({name: (lower, upper)}), self.start)

    def get_bounds(self) -> tuple[Varying, Varying]:
        """Get (lower, upper) bounds of the varying physics parameters."""
        return self.space.lower[self.varying_indices], self.space.upper[self.varying_indices]

    def get_parameter_bounds(self, parameter_names: Names = None) -> list[BoundDict]:
        """Get name, min, max and prior family of parameters.

        Args:
            parameter_names: Which, in the order wanted; left out: all, scaling last.

        Raises:
            UnknownNameError: If there is no such parameter (a ValueError and a KeyError).
        """
        names = self.space.all_names if parameter_names is None else tuple(parameter_names)
        self.space.registry.check_names(names)
        bounds, priors = self.space.bounds, self.space.priors
        ends = [(name, *bounds[name], priors[name].prior_type.value) for name in names]
        return [BoundDict(name=n, min=low, max=high, type=kind) for n, low, high, kind in ends]

    def get_bounds_as_tuples(self, parameter_names: Names = None) -> list[tuple[float, float]]:
        """Get (min, max) of parameters in the order asked; left out: all, scaling last."""
        return [(b["min"], b["max"]) for b in self.get_parameter_bounds(parameter_names)]

    def get_bounds_as_arrays(self, parameter_names: Names = None) -> tuple[Numbers, Numbers]:
        """Get lower and upper bounds as arrays in the order asked; left out: all."""
        bounds = self.get_bounds_as_tuples(parameter_names)
        lower, upper = np.array(bounds, np.float64).reshape(-1, 2).T
        return lower, upper

    # Physics

    def validate_physical_constraints(
        self, params: Given | None = None, severity_level: str = "warning", t: Frames = None
    ) -> ValidationResult:
        """Judge values by physics, beyond their bounds.

        Args:
            params: Name to value (others have their current ones), all physics parameters in
                order, or None for the current values.
            severity_level: Least severity reported: "error", "warning" or "info".
            t: Time of each frame [s]; without it rules that need frames are left out.

        Raises:
            UnknownNameError: If a name is not in the model (a ValueError and a KeyError).
            ValueError: If the severity is none of the three.
        """
        changed = self if params is None else self.update_values(params)
        return validate_parameters(changed.space.values, severity_level, t)

    def validate_physics(self, params: Given | None = None) -> list[str]:
        """Validate values against physics: sentences of errors and warnings, empty if none."""
        result = self.validate_physical_constraints(params)
        return [*result.errors, *result.warnings]
