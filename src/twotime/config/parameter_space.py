"""Rules of a parameter space: what may go into one, and what is wrong with what is in it."""

from collections.abc import Iterable, Mapping
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from twotime.config.parameter_names import DEFAULT_MODE, SCALING_PARAMS, unknown_name
from twotime.config.parameter_registry import REGISTRIES, ParameterRegistry
from twotime.config.priors import (
    PriorDistribution,
    PriorType,
    default_prior,
    has_mass,
    plain,
    prior_faults,
    stack_numbers,
)
from twotime.errors import ConfigurationError
from twotime.models.base import is_concrete


def split(numbers: list[Any], n: int) -> tuple[Any, Any]:
    """Numbers of the physics parameters, and of contrast and offset behind them, as arrays."""
    return stack_numbers(numbers[:n]), stack_numbers(numbers[n:])


def log_flags(wants_log: tuple[bool, ...], lower: Any) -> tuple[bool, ...]:
    """Where the logarithm is used; bounds that are being traced are taken to be positive."""
    if not is_concrete(lower):
        return wants_log
    positive = np.greater(lower, 0).reshape(-1, len(wants_log)).all(axis=0).tolist()
    return tuple(
        bool(wants and is_positive) for wants, is_positive in zip(wants_log, positive, strict=True)
    )


def registry_with(names: list[str]) -> ParameterRegistry:
    """The first registry that knows all the names."""
    for mode in dict.fromkeys((DEFAULT_MODE, *REGISTRIES)):
        if all(name in REGISTRIES[mode] for name in names):
            return REGISTRIES[mode]
    known = dict.fromkeys(name for registry in REGISTRIES.values() for name in registry)
    strange = [name for name in names if name not in known]
    if strange:
        raise unknown_name("parameter", strange[0], known)
    raise ValueError(
        f"No model has all of the parameters {', '.join(sorted(set(names)))}: give the "
        "parameters of one model."
    )


def check_names(given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a name that is not among those of the space."""
    for name in given:
        if name not in names:
            raise unknown_name("parameter", name, names)


def check_numbers(values: Mapping[str, Any], bounds: Mapping[str, Any]) -> None:
    """Refuse what is not a finite number; traced values pass."""
    numbers = [("value", name, value) for name, value in values.items()]
    for name, ends in bounds.items():
        if isinstance(ends, str) or not hasattr(ends, "__len__") or len(ends) != 2:
            raise TypeError(f"Parameter {name!r}: bounds are a pair (lower, upper); got {ends!r}.")
        numbers += [("lower bound", name, ends[0]), ("upper bound", name, ends[1])]
    for what, name, value in numbers:
        if not is_concrete(value):
            continue
        kind = np.asarray(value).dtype
        if isinstance(value, str) or not (
            np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)
        ):
            raise TypeError(f"Parameter {name!r}: the {what} must be a number; got {value!r}.")
        if not np.isfinite(value).all():
            raise ValueError(f"Parameter {name!r}: the {what} must be finite; got {value}.")


def check_flags(vary: Mapping[str, Any]) -> None:
    """Refuse what is not True or False."""
    for name, flag in vary.items():
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"Parameter {name!r}: vary must be True or False; got {flag!r}.")


def faults_of(
    value: Any, bounds: tuple[Any, Any], prior: PriorDistribution | None, is_default: bool
) -> list[str]:
    """What is wrong with one parameter; its prior counts only where it varies."""
    lower, upper = bounds
    if not np.isfinite([value, lower, upper]).all():
        return [f"value and bounds must be finite; got {value} in [{lower}, {upper}]."]
    if not lower < upper:
        return [f"min must be less than max; got {lower:g} and {upper:g}."]
    where = f"[{lower:g}, {upper:g}]"
    faults = []
    if not lower <= value <= upper and is_default:
        faults.append(f"its default {value:g} lies outside the bounds {where}; give a value.")
    elif not lower <= value <= upper:
        faults.append(f"value {value:g} lies outside its bounds {where}.")
    if prior is None:
        return faults
    wrong = prior_faults(prior.prior_type, prior.params)
    kind = prior.prior_type.value
    if not wrong and not has_mass(prior, lower, upper):
        wrong = [f"its {kind} prior has no probability inside its bounds {where}."]
    elif not wrong and not faults and not prior.support[0] <= value <= prior.support[1]:
        low, high = prior.support
        wrong = [f"value {value:g} lies outside the support [{low:g}, {high:g}] of its prior."]
    return faults + wrong


__all__ = ["ParameterSpace", "PriorDistribution", "PriorType", "clamp_to_open_interval"]

Numbers = Float[Array | np.ndarray, "*batch parameter"]
All = Float[Array | np.ndarray, "*batch all"]
Pair = Float[Array | np.ndarray, "*batch 2"]


def clamp_to_open_interval(
    value: ArrayLike, low: ArrayLike, high: ArrayLike, epsilon: float = 1e-6
) -> Any:
    """Clamp a value to the open interval (low + epsilon, high - epsilon).

    For starts of samplers and for distributions whose density ends at their bounds.

    Args:
        value: What to clamp.
        low: Lower bound.
        high: Upper bound.
        epsilon: Distance to keep from the bounds, in the value's unit.

    Raises:
        ValueError: If the bounds are closer than twice epsilon.
    """
    if is_concrete(low, high) and not np.all(np.subtract(high, low) > 2 * epsilon):
        raise ValueError(
            f"The open interval between {low} + {epsilon} and {high} - {epsilon} is empty: "
            "give a smaller epsilon."
        )
    if is_concrete(value, low, high):
        return plain(np.clip(value, np.add(low, epsilon), np.subtract(high, epsilon)))
    return jnp.clip(value, low + epsilon, high - epsilon)


def replaced(module: Any, **changes: Any) -> Any:
    """A copy of a module with some fields changed; its constructor does not run."""
    new = object.__new__(type(module))
    for name in module.__dataclass_fields__:
        object.__setattr__(new, name, changes.get(name, getattr(module, name)))
    return new


@final
class ParameterSpace(eqx.Module):
    """Complete parameter space of a model.

    `names` are the physics parameters in canonical order; contrast and offset stand apart.
    Names without an entry in the arguments have the registry's numbers.

    Args:
        values: Name to value.
        vary: Name to whether it is fitted.
        bounds: Name to (lower, upper).
        priors: Name to prior; others have the default prior, cut to their bounds.
        registry: The model's parameters; left out: the first of two_component, static and
            laminar_flow that knows all the names given.

    Raises:
        UnknownNameError: If a name is not in the registry (a ValueError and a KeyError).
        TypeError: If a value is not a number, a flag not true or false.

    Attributes:
        names: Physics parameters in canonical order.
        initial: Their values [each its unit].
        lower: Their lower bounds.
        upper: Their upper bounds.
        scaling_initial: Contrast and offset.
        scaling_lower: Their lower bounds.
        scaling_upper: Their upper bounds.
        varying: Whether each physics parameter is fitted.
        scaling_varying: Whether contrast and offset are fitted.
        log_space: Whether samplers and random starts use the parameter's logarithm: where the
            registry says so and the lower bound is positive.
        units: Physical units; empty for pure numbers.
        groups: Group of each physics parameter.
        given: 1 where the user gave a value, 0 where it is the registry's; a leaf, so that spaces
            with other values given neither recompile nor fail to stack.
        analysis_mode: The configuration's word for the model; empty for models of one's own.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    initial: Numbers
    lower: Numbers
    upper: Numbers
    scaling_initial: Pair
    scaling_lower: Pair
    scaling_upper: Pair
    varying: tuple[bool, ...] = eqx.field(static=True)
    scaling_varying: tuple[bool, bool] = eqx.field(static=True)
    log_space: tuple[bool, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    groups: tuple[str, ...] = eqx.field(static=True)
    given: Numbers
    analysis_mode: str = eqx.field(static=True)
    _priors: tuple[PriorDistribution, ...]
    _prior_location: All
    _prior_scale: All
    _has_default_prior: tuple[bool, ...] = eqx.field(static=True)
    _wants_log: tuple[bool, ...] = eqx.field(static=True)
    _zero_is_off: tuple[bool, ...] = eqx.field(static=True)

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        vary: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Any] | None = None,
        priors: Mapping[str, PriorDistribution] | None = None,
        *,
        registry: ParameterRegistry | None = None,
    ):
        values, vary, bounds, priors = values or {}, vary or {}, bounds or {}, priors or {}
        if registry is None:
            registry = registry_with([*values, *vary, *bounds, *priors])
        infos = [registry[name] for name in (*registry.names, *SCALING_PARAMS)]
        n, names = len(registry.names), [info.name for info in infos]
        for given in (values, vary, bounds, priors):
            check_names(given, names)
        check_numbers(values, bounds)
        check_flags(vary)
        ends = {info.name: (info.min_bound, info.max_bound) for info in infos} | dict(bounds)
        flags = tuple(bool(vary.get(info.name, info.vary_default)) for info in infos)
        start = [values.get(info.name, info.default) for info in infos]

        self.names = registry.names
        self.analysis_mode = registry.analysis_mode
        self.units = tuple(info.unit for info in infos[:n])
        self.groups = tuple(info.group for info in infos[:n])
        self.given = np.array([name in values for name in self.names], np.float64)
        self.varying, self.scaling_varying = flags[:n], (flags[n], flags[n + 1])
        self.initial, self.scaling_initial = split(start, n)
        self.lower, self.scaling_lower = split([ends[name][0] for name in names], n)
        self.upper, self.scaling_upper = split([ends[name][1] for name in names], n)
        self._wants_log = tuple(info.log_space for info in infos[:n])
        self._zero_is_off = tuple(info.log_space and info.is_flow for info in infos[:n])
        self.log_space = log_flags(self._wants_log, self.lower)
        self._prior_location = stack_numbers([info.prior_location for info in infos])
        self._prior_scale = stack_numbers([info.prior_scale for info in infos])
        self._has_default_prior = tuple(name not in priors for name in names)
        self._priors = tuple(
            priors[i.name]
            if i.name in priors
            else default_prior(i.prior_location, i.prior_scale, *ends[i.name])
            for i in infos
        )

    def __check_init__(self) -> None:
        if tuple(self.scaling_initial.shape[-1:]) != (2,):
            raise ValueError(f"A space has contrast and offset; got {self.scaling_initial.shape}.")

    # What is in it

    @property
    def all_names(self) -> tuple[str, ...]:
        """Names of all parameters: physics in canonical order, then contrast and offset."""
        return (*self.names, *SCALING_PARAMS)

    @property
    def values(self) -> dict[str, Any]:
        """Name to value, a fresh dictionary."""
        return self._by_name(self.initial, self.scaling_initial)

    @property
    def vary(self) -> dict[str, bool]:
        """Name to whether it is fitted, a fresh dictionary."""
        return dict(zip(self.all_names, self.varying + self.scaling_varying, strict=True))

    @property
    def bounds(self) -> dict[str, tuple[Any, Any]]:
        """Name to (lower, upper), a fresh dictionary."""
        lower = self._by_name(self.lower, self.scaling_lower)
        upper = self._by_name(self.upper, self.scaling_upper)
        return {name: (lower[name], upper[name]) for name in self.all_names}

    @property
    def priors(self) -> dict[str, PriorDistribution]:
        """Name to prior, a fresh dictionary."""
        return dict(zip(self.all_names, self._priors, strict=True))

    @property
    def default_priors(self) -> tuple[str, ...]:
        """Names of the parameters whose prior is the default, which follows their bounds."""
        pairs = zip(self.all_names, self._has_default_prior, strict=True)
        return tuple(name for name, is_default in pairs if is_default)

    @property
    def scale(self) -> Numbers:
        """Typical width of each physics parameter: its default prior's scale [its unit]."""
        return self._prior_scale[..., : len(self.names)]

    @property
    def n_total(self) -> int:
        """Total number of parameters, contrast and offset among them."""
        return len(self.all_names)

    @property
    def n_varying(self) -> int:
        """Number of parameters that vary, contrast and offset among them."""
        return sum(self.vary.values())

    @property
    def varying_names(self) -> list[str]:
        """Names of the parameters that vary, contrast and offset among them."""
        return [name for name, varies in self.vary.items() if varies]

    def domain(self, name: str) -> tuple[Any, Any]:
        """Interval in which a parameter may lie: its bounds, cut to its prior's support."""
        lower, upper = self.bounds[name]
        low, high = self.priors[name].support
        if is_concrete(lower, upper, low, high):
            return max(lower, low), min(upper, high)
        return jnp.maximum(lower, low), jnp.minimum(upper, high)

    def get_initial_array(self) -> Numbers:
        """Get values of the physics parameters in canonical order."""
        return self.initial.copy()

    def get_bounds_arrays(self) -> tuple[Numbers, Numbers]:
        """Get (lower, upper) bounds of the physics parameters in canonical order."""
        return self.lower.copy(), self.upper.copy()

    def get_vary_mask(self) -> Bool[np.ndarray, " parameter"]:
        """Get whether each physics parameter varies, in canonical order."""
        return np.array(self.varying, bool)

    def array_to_dict(self, arr: Float[ArrayLike, " parameter"]) -> dict[str, Any]:
        """Convert an array of the physics parameters in canonical order to name and value.

        Raises:
            ValueError: If the array does not have one number per physics parameter.
        """
        if np.shape(arr) != (len(self.names),):
            raise ValueError(
                f"Parameters: expected one number for each of {', '.join(self.names)} "
                f"({len(self.names)}); got an array of shape {np.shape(arr)}."
            )
        array: Any = arr if hasattr(arr, "shape") else np.asarray(arr, np.float64)
        return {name: plain(array[i]) for i, name in enumerate(self.names)}

    # What makes another of it

    def with_values(self, values: Mapping[str, Any]) -> "ParameterSpace":
        """A new space with other values; whether they lie in the bounds, `validate` says.

        Raises:
            UnknownNameError: If a name is not in the space (a ValueError and a KeyError).
        """
        check_names(values, self.all_names)
        check_numbers(values, {})
        initial, scaling = self._arrays(self.values | dict(values))
        is_new = np.array([name in values for name in self.names])
        either = np.where if isinstance(self.given, np.ndarray) else jnp.where
        given = either(is_new, 1.0, self.given)
        return replaced(self, initial=initial, scaling_initial=scaling, given=given)

    def update_from_dict(self, params: Mapping[str, Any]) -> "ParameterSpace":
        """A new space with these values: the same as `with_values`."""
        return self.with_values(params)

    def with_vary(self, vary: Mapping[str, Any]) -> "ParameterSpace":
        """A new space with other parameters varying.

        Raises:
            UnknownNameError: If a name is not in the space (a ValueError and a KeyError).
        """
        check_names(vary, self.all_names)
        check_flags(vary)
        flags = tuple((self.vary | dict(vary)).values())
        n = len(self.names)
        return replaced(self, varying=flags[:n], scaling_varying=(flags[n], flags[n + 1]))

    def with_bounds(self, bounds: Mapping[str, Any]) -> "ParameterSpace":
        """A new space with other bounds; default priors are cut anew to them.

        Raises:
            UnknownNameError: If a name is not in the space (a ValueError and a KeyError).
            ValueError: If a lower bound is not below its upper bound.
        """
        check_names(bounds, self.all_names)
        check_numbers({}, bounds)
        for name, (lower, upper) in bounds.items():
            if is_concrete(lower, upper) and not np.all(np.less(lower, upper)):
                raise ValueError(
                    f"Parameter {name!r}: need lower < upper bound; got {lower} and {upper}."
                )
        new = self.bounds | {name: (ends[0], ends[1]) for name, ends in bounds.items()}
        lower, scaling_lower = self._arrays({name: ends[0] for name, ends in new.items()})
        upper, scaling_upper = self._arrays({name: ends[1] for name, ends in new.items()})
        priors = [
            default_prior(self._prior_location[..., i], self._prior_scale[..., i], *new[name])
            if name in bounds and self._has_default_prior[i]
            else self._priors[i]
            for i, name in enumerate(self.all_names)
        ]
        return replaced(
            self,
            lower=lower,
            upper=upper,
            scaling_lower=scaling_lower,
            scaling_upper=scaling_upper,
            log_space=log_flags(self._wants_log, lower),
            _priors=tuple(priors),
        )

    def with_priors(self, priors: Mapping[str, PriorDistribution]) -> "ParameterSpace":
        """A new space with other priors; these stay as they are when bounds change.

        Raises:
            UnknownNameError: If a name is not in the space (a ValueError and a KeyError).
        """
        check_names(priors, self.all_names)
        pairs = zip(self.all_names, self._has_default_prior, strict=True)
        return replaced(
            self,
            _priors=tuple((self.priors | dict(priors)).values()),
            _has_default_prior=tuple(was and name not in priors for name, was in pairs),
        )

    def convert_to_beta_priors(self) -> "ParameterSpace":
        """A new space whose truncated normal priors are beta priors of the same moments.

        Mean and standard deviation are those of the truncated distribution; priors of other
        families stay as they are.
        """
        return self.with_priors(
            {
                name: prior.as_beta()
                for name, prior in self.priors.items()
                if prior.prior_type is PriorType.TRUNCATED_NORMAL
            }
        )

    def with_single_angle_stabilization(self) -> "ParameterSpace":
        """A new space with tightened scaling bounds, for the analysis of a single angle.

        Contrast may leave its value by 0.2 and offset by 0.1, inside the old bounds.
        """
        bounds = {}
        for name, reach in (("contrast", 0.2), ("offset", 0.1)):
            value, (lower, upper) = self.values[name], self.bounds[name]
            if is_concrete(value, lower, upper):
                bounds[name] = (max(lower, value - reach), min(upper, value + reach))
            else:
                low, high = jnp.maximum(lower, value - reach), jnp.minimum(upper, value + reach)
                bounds[name] = (low, high)
        return self.with_bounds(bounds)

    # What is wrong with it

    def validate(self, *, sampling: bool = False) -> list[str]:
        """What is wrong with values, bounds and priors, one sentence each; empty if nothing.

        All parameters are looked at, fixed ones and scaling too. A velocity or shear rate that
        is fixed may be 0 (no flow) though its lower bound is above.

        Args:
            sampling: Whether default priors matter too. Bounds far from the default make them
                unusable, which a least-squares fit need not care about.
        """
        found = self.faults(sampling=sampling).items()
        return [f"{name}: {fault}" for name, faults in found for fault in faults]

    def faults(self, *, sampling: bool = False) -> dict[str, list[str]]:
        """What `validate` finds, by parameter; parameters without faults are left out."""
        is_off = dict(zip(self.names, self._zero_is_off, strict=True))
        unset = [name for name, given in zip(self.names, self.given, strict=True) if given == 0]
        values, bounds, priors, vary = self.values, self.bounds, self.priors, self.vary
        found = {}
        for name in self.all_names:
            if is_off.get(name, False) and not vary[name] and values[name] == 0:
                continue
            counts = vary[name] and (sampling or name not in self.default_priors)
            prior = priors[name] if counts else None
            found[name] = faults_of(values[name], bounds[name], prior, name in unset)
        return {name: faults for name, faults in found.items() if faults}

    # Where it comes from

    @classmethod
    def from_registry(cls, names: Iterable[str], registry: ParameterRegistry) -> "ParameterSpace":
        """The space of any model from a registry that knows its parameters.

        Args:
            names: The model's parameters in its order (`model.names`).
            registry: A registry that holds them, contrast and offset.
        """
        return cls(registry=registry.subset(names))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ParameterSpace":
        """Create the space that a configuration asks for.

        Reads `analysis_mode` (two_component where absent), `parameters` (grouped or direct),
        the groups of `analyzer_parameters` and the flat `initial_parameters`; where both forms
        speak of a parameter, `parameters` wins.

        Args:
            config: A configuration, whole or in part.

        Raises:
            ConfigurationError: If there are mistakes in it; all are told at once.
        """
        from twotime.config.reading import read

        _, space, found = read(config, is_whole=False)
        if found.problems or space is None:
            raise ConfigurationError(found.problems)
        return space

    def to_config(self) -> dict[str, Any]:
        """Write the space as a configuration that `from_config` reads back to the same.

        Values and flags are in the flat `initial_parameters`; bounds and priors are added under
        `parameters` only where they differ from the registry's.

        Raises:
            ValueError: If the space is of a model of one's own, which no file names.
        """
        if not self.analysis_mode:
            raise ValueError(
                "Only a space of an analysis mode can be written as a configuration; got one of "
                f"the parameters {', '.join(self.names)}."
            )
        usual = REGISTRIES[self.analysis_mode]
        parameters = {}
        for index, name in enumerate(self.all_names):
            entry: dict[str, Any] = {}
            lower, upper = self.bounds[name]
            if (lower, upper) != (usual[name].min_bound, usual[name].max_bound):
                entry |= {"min": lower, "max": upper}
            if not self._has_default_prior[index]:
                prior = self._priors[index]
                entry |= {"prior": prior.prior_type.value, "prior_params": prior.params}
            if entry:
                parameters[name] = entry
        flat = {
            "parameter_names": list(self.all_names),
            "values": list(self.values.values()),
            "active_parameters": self.varying_names,
        }
        config = {"analysis_mode": self.analysis_mode, "initial_parameters": flat}
        return config | ({"parameters": parameters} if parameters else {})

    def _by_name(self, physics: Any, scaling: Any) -> dict[str, Any]:
        numbers = [physics[..., i] for i in range(len(self.names))]
        numbers += [scaling[..., 0], scaling[..., 1]]
        return dict(zip(self.all_names, map(plain, numbers), strict=True))

    def _arrays(self, numbers: Mapping[str, Any]) -> tuple[Any, Any]:
        return split([numbers[name] for name in self.all_names], len(self.names))
