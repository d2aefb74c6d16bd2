"""The parameter space of a model: values, bounds, priors, and which parameters vary."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from twotime.compilation import check_is_outside
from twotime.config.parameter_names import mode_with
from twotime.config.parameter_registry import (
    REGISTRIES,
    ParameterRegistry,
    intersection,
    plain,
    stack_numbers,
    with_numbers,
)
from twotime.config.priors import PriorDistribution as PriorDistribution
from twotime.config.priors import PriorType as PriorType
from twotime.config.priors import clamp_to_open_interval as clamp_to_open_interval
from twotime.config.priors import default_prior, informative_prior
from twotime.config.space_parts import (
    asked_parameters,
    check_numbers,
    check_space,
    faults_of,
    written,
)
from twotime.config.space_parts import check_count as check_count
from twotime.errors import ConfigurationError, Mistakes
from twotime.kinds import checked
from twotime.models.base import (
    AbstractTwoTimeModel,
    ParameterInfo,
    are_known,
    is_concrete,
    read_only,
)
from twotime.tables import Table, Tabled

Numbers = Float[Array | np.ndarray, "*batch parameter"]
All = Float[Array | np.ndarray, "*batch all"]
Named = Mapping[str, Any]


@final
class ParameterSpace(Tabled, eqx.Module):
    """Complete parameter space of a model.

    `names` are the physics parameters in canonical order; contrast and offset follow them in the
    arrays of all parameters. Names without an entry in the arguments have the registry's numbers.
    Parameters that the registry fixes vary where `vary` says so, or where they have bounds or a
    prior; else they are at their `fixed_value`, 0 for most.

    Args:
        values: Name to value.
        vary: Name to whether it is fitted.
        bounds: Name to (lower, upper).
        priors: Name to prior. Others are sampled as uniform between their bounds, in the logarithm
            where `log_space`; `priors` lists the registry's default priors for them.
        registry: The model's parameters; left out: of the first shipped law that knows the names.
        base: A space that gives everything the arguments leave out, instead of the registry.

    Raises:
        UnknownNameError: If a name is not in the registry (a ValueError and a KeyError).
        TypeError: If a value is not a number, a flag not true or false.

    Attributes:
        registry: Names, units, groups and defaults of the model's parameters.
        all_values: Value of each parameter, contrast and offset last [each its unit].
        all_lower: Their lower bounds.
        all_upper: Their upper bounds.
        all_varying: Whether each is fitted.
        own_values: 1 where the user gave a value, 0 where it is the registry's; a leaf, so that
            spaces with other values given neither recompile nor fail to stack.
        own_bounds: The same for bounds. What nobody gave follows the data that are fitted.
        own_priors: Prior of each parameter; None where it is the default prior.
    """

    registry: ParameterRegistry
    all_values: All
    all_lower: All
    all_upper: All
    all_varying: tuple[bool, ...] = eqx.field(static=True)
    own_values: All
    own_bounds: All
    own_priors: tuple[PriorDistribution | None, ...]

    def __init__(
        self,
        values: Named | None = None,
        vary: Named | None = None,
        bounds: Named | None = None,
        priors: Mapping[str, PriorDistribution] | None = None,
        *,
        registry: ParameterRegistry | None = None,
        base: "ParameterSpace | None" = None,
    ):
        values, vary, bounds, priors = values or {}, vary or {}, bounds or {}, priors or {}
        if base is not None:
            registry = base.registry
        elif registry is None:
            registry = REGISTRIES[mode_with([*values, *vary, *bounds, *priors])]
        registry.check_names([*values, *vary, *bounds, *priors])
        check_numbers(values, vary, bounds)
        self.registry, infos = registry, registry.infos
        if base is None:
            asked = {*bounds, *priors}
            flags = tuple(vary.get(i.name, i.vary_default or i.name in asked) for i in infos)
            arrays = [*_usual(infos, flags), *np.zeros((2, len(infos)))]
            own: tuple[PriorDistribution | None, ...] = tuple(map(informative_prior, infos))
        else:
            arrays = [base.all_values, base.all_lower, base.all_upper]
            arrays += [base.own_values, base.own_bounds]
            flags, own = base.all_varying, base.own_priors
        lower, upper = ({name: ends[side] for name, ends in bounds.items()} for side in (0, 1))
        own_values, own_bounds = (dict.fromkeys(given, 1.0) for given in (values, bounds))
        changes = values, lower, upper, own_values, own_bounds
        names = list(registry)
        self.all_values, self.all_lower, self.all_upper, self.own_values, self.own_bounds = (
            with_numbers(array, {names.index(name): number for name, number in numbers.items()})
            for array, numbers in zip(arrays, changes, strict=True)
        )
        self.all_varying = tuple(map(bool, map(vary.get, names, flags)))
        self.own_priors = tuple(map(priors.get, names, own))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the physics parameters in canonical order."""
        return self.registry.names

    @property
    def all_names(self) -> tuple[str, ...]:
        """Names of all parameters: physics in canonical order, then contrast and offset."""
        return tuple(self.registry)

    @property
    def analysis_mode(self) -> str:
        """The configuration's word for the model; empty for a custom model."""
        return self.registry.analysis_mode

    @property
    def units(self) -> tuple[str, ...]:
        """Physical unit of each physics parameter; empty for pure numbers."""
        return tuple(self.registry[name].unit for name in self.names)

    @property
    def scale(self) -> Numbers:
        """Typical size of each physics parameter: its default prior's scale [its unit]."""
        return stack_numbers([self.registry[name].prior_scale for name in self.names])

    @property
    def initial(self) -> Numbers:
        """Value of each physics parameter [its unit]."""
        return self.all_values[..., : len(self.names)]

    @property
    def lower(self) -> Numbers:
        """Lower bound of each physics parameter [its unit]."""
        return self.all_lower[..., : len(self.names)]

    @property
    def upper(self) -> Numbers:
        """Upper bound of each physics parameter [its unit]."""
        return self.all_upper[..., : len(self.names)]

    @property
    def given(self) -> Numbers:
        """1 where the user gave a value of a physics parameter, 0 where it is the registry's."""
        return self.own_values[..., : len(self.names)]

    @property
    def varying(self) -> tuple[bool, ...]:
        """Whether each physics parameter is fitted."""
        return self.all_varying[: len(self.names)]

    @property
    def log_space(self) -> tuple[bool, ...]:
        """Whether samplers and random starts use the logarithm of a physics parameter.

        Where the registry says so and the lower bound is positive; one that is traced counts as
        such.
        """
        wanted = tuple(self.registry[name].log_space for name in self.names)
        if not is_concrete(self.all_lower):
            return wanted
        lowest = np.reshape(self.lower, (-1, len(wanted))).min(axis=0)
        return tuple(wants and bool(low > 0) for wants, low in zip(wanted, lowest, strict=True))

    scaling_initial = property(lambda s: s.all_values[..., -2:], doc="Contrast and offset.")
    scaling_lower = property(lambda s: s.all_lower[..., -2:], doc="Their lower bounds.")
    scaling_upper = property(lambda s: s.all_upper[..., -2:], doc="Their upper bounds.")
    scaling_varying = property(lambda s: s.all_varying[-2:], doc="Whether each is fitted.")

    @property
    def values(self) -> dict[str, Any]:
        """Name to value, a new dictionary."""
        return self._by_name(self.all_values)

    @property
    def vary(self) -> dict[str, bool]:
        """Name to whether it is fitted, a new dictionary."""
        return dict(zip(self.all_names, self.all_varying, strict=True))

    @property
    def bounds(self) -> dict[str, tuple[Any, Any]]:
        """Name to (lower, upper), a new dictionary."""
        lower, upper = self._by_name(self.all_lower), self._by_name(self.all_upper)
        return {name: (lower[name], upper[name]) for name in self.all_names}

    @property
    def priors(self) -> dict[str, PriorDistribution]:
        """Name to prior, a new dictionary."""
        bounds = self.bounds
        return {
            info.name: default_prior(info, *bounds[info.name]) if prior is None else prior
            for info, prior in zip(self.registry.infos, self.own_priors, strict=True)
        }

    @property
    def n_total(self) -> int:
        """Total number of parameters, contrast and offset among them."""
        return len(self.all_names)

    @property
    def n_varying(self) -> int:
        """Number of parameters that vary, contrast and offset among them."""
        return sum(self.all_varying)

    @property
    def varying_names(self) -> list[str]:
        """Names of the parameters that vary, contrast and offset among them."""
        return [name for name, varies in self.vary.items() if varies]

    def domain(self, name: str) -> tuple[Any, Any]:
        """Interval in which a parameter may lie: its bounds, cut to its prior's support."""
        return intersection(self.bounds[name], self.priors[name].support)

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
        check_count(arr, len(self.names), "physics")
        array: Any = arr if hasattr(arr, "shape") else np.asarray(arr, np.float64)
        return {name: plain(array[i]) for i, name in enumerate(self.names)}

    def _shown(self) -> Table | None:
        leaves = self.all_values, self.all_lower, self.all_upper
        if not are_known(leaves) or not all(np.ndim(x) == 1 for x in leaves):
            return None
        value, low, high = ([f"{float(x):.6g}" for x in leaf] for leaf in leaves)
        vary = ["fitted" if varies else "fixed" for varies in self.all_varying]
        units = [info.unit for info in self.registry.infos]
        rows = tuple(zip(self.all_names, value, vary, low, high, units, strict=True))
        of = f" of {self.analysis_mode}" if self.analysis_mode else ""
        title = f"ParameterSpace{of}: {self.n_varying} of {self.n_total} parameters fitted"
        return Table(title, ("parameter", "value", "", "min", "max", "unit"), rows)

    def _by_name(self, array: Any) -> dict[str, Any]:
        return {name: plain(array[..., i]) for i, name in enumerate(self.all_names)}

    @checked
    def with_values(self, values: Named) -> "ParameterSpace":
        """A new space with other values; `validate` says whether they lie in the bounds."""
        return ParameterSpace(values, base=self)

    def update_from_dict(self, params: Named) -> "ParameterSpace":
        """A new space with these values: the same as `with_values`."""
        return self.with_values(params)

    @checked
    def with_vary(self, vary: Named) -> "ParameterSpace":
        """A new space with other parameters varying."""
        return ParameterSpace(vary=vary, base=self)

    @checked
    def with_bounds(self, bounds: Named) -> "ParameterSpace":
        """A new space with other bounds; default priors are cut to them.

        Raises:
            ValueError: If a lower bound is not below its upper bound.
        """
        changed = ParameterSpace(bounds=bounds, base=self)
        for name, (lower, upper) in bounds.items():
            if is_concrete(lower, upper) and not np.all(np.less(lower, upper)):
                got = f"got {lower} and {upper}"
                raise ValueError(f"Parameter {name!r}: need lower < upper bound; {got}.")
        return changed

    @checked
    def with_priors(self, priors: Mapping[str, PriorDistribution]) -> "ParameterSpace":
        """A new space with other priors; these stay as they are when bounds change."""
        return ParameterSpace(priors=priors, base=self)

    def with_registry(self, registry: ParameterRegistry) -> "ParameterSpace":
        """A new space in which another registry of the same names gives what the user did not."""
        usual = _usual(registry.infos, self.all_varying)
        given = self.all_values, self.all_lower, self.all_upper
        own = self.own_values, self.own_bounds, self.own_bounds
        where: Any = np.where if is_concrete(*usual, *given, *own) else jnp.where
        chosen = (read_only(where(o > 0, g, u)) for o, g, u in zip(own, given, usual, strict=True))

        def parts(space: ParameterSpace) -> tuple[Any, ...]:
            return space.registry, space.all_values, space.all_lower, space.all_upper

        return eqx.tree_at(parts, self, (registry, *chosen))

    def convert_to_beta_priors(self) -> "ParameterSpace":
        """A new space whose truncated normal priors are beta priors of the same moments.

        Mean and standard deviation are those of the truncated distribution; priors of other
        families stay as they are.
        """
        cut = PriorType.TRUNCATED_NORMAL
        priors = {name: p.as_beta() for name, p in self.priors.items() if p.prior_type is cut}
        return self.with_priors(priors)

    def with_single_angle_stabilization(self) -> "ParameterSpace":
        """A new space with tightened scaling bounds, for the analysis of a single angle.

        Contrast may leave its value by 0.2 and offset by 0.1, inside the old bounds.
        """
        bounds = {}
        for name, reach in (("contrast", 0.2), ("offset", 0.1)):
            value = self.values[name]
            bounds[name] = intersection(self.bounds[name], (value - reach, value + reach))
        return self.with_bounds(bounds)

    def validate(self) -> list[str]:
        """What is wrong with values, bounds and priors, one sentence each; empty if nothing.

        All parameters are looked at, fixed ones and scaling too. A velocity or shear rate that
        is fixed may be 0 (no flow) though its lower bound is above. Default priors do not matter:
        sampling does not use them.
        """
        found = self.faults().items()
        return [f"{name}: {fault}" for name, faults in found for fault in faults]

    def faults(self) -> dict[str, list[str]]:
        """What `validate` finds, by parameter; parameters without faults are left out."""
        check_is_outside("validate", self, "Check the space before it is traced.")
        unset = [name for name, given in zip(self.names, self.given, strict=True) if given == 0]
        values, bounds, vary, found = self.values, self.bounds, self.vary, {}
        own = dict(zip(self.all_names, self.own_priors, strict=True))
        for info in self.registry.infos:
            name = info.name
            is_no_flow = info.log_space and info.is_flow and not vary[name] and values[name] == 0
            prior = own[name] if vary[name] else None
            faults = faults_of(values[name], bounds[name], prior, name in unset)
            if faults and not is_no_flow:
                found[name] = faults
        return found

    @classmethod
    def of(cls, law: AbstractTwoTimeModel) -> "ParameterSpace":
        """The space of a law: start, bounds, priors and flags from what it says of its parameters.

        Raises:
            TypeError: If it says nothing of them.
        """
        if not isinstance(law, AbstractTwoTimeModel):
            raise TypeError(f"ParameterSpace.of takes a law, StaticDiffusion() say; got {law!r}.")
        return cls(registry=ParameterRegistry.of(law))

    @classmethod
    def from_registry(cls, names: Iterable[str], registry: ParameterRegistry) -> "ParameterSpace":
        """The space of any model: its names in order, from a registry that holds them."""
        return cls(registry=registry.subset(names))

    @classmethod
    def from_config(cls, config: Named) -> "ParameterSpace":
        """Create the space that a configuration, whole or in part, asks for.

        Reads `analysis_mode` (two_component where absent), `parameters` (grouped or direct),
        the groups of `analyzer_parameters` and the flat `initial_parameters`; where both forms
        give the same parameter, `parameters` wins.

        Raises:
            ConfigurationError: If there are mistakes in it; all are reported at once.
        """
        _, space, found = read(config, is_whole=False)
        if space is None or found.problems:
            raise ConfigurationError(found.problems)
        return space

    def to_config(self, law: AbstractTwoTimeModel | None = None) -> dict[str, Any]:
        """Write the space as a configuration that `from_config` reads back to the same.

        Values and flags are in the flat `initial_parameters`; bounds and priors are added under
        `parameters` only where they differ from the registry's.

        Args:
            law: The law, if it is none of the analysis modes or has other parts.

        Raises:
            ValueError: If it is needed and not given.
        """
        return written(self, law)


Reading = tuple[dict[str, Any], ParameterSpace | None, Mistakes]


def read(config: Any, *, is_whole: bool = True) -> Reading:
    """The canonical form of a configuration, its space, and the mistakes in it.

    The space is None where parameters are wrong; `is_whole`: all that a run needs must be there.
    """
    # Pydantic is loaded when a configuration is read, not when this module is.
    from twotime.config.reading import read_keys

    canonical, law, found = read_keys(config, is_whole=is_whole)
    if law is None:
        return canonical, None, found
    registry = ParameterRegistry.of(law)
    asked: Any = asked_parameters(canonical, registry, found)
    space = ParameterSpace(**asked, registry=registry)
    return canonical, space if check_space(canonical, law, space, found) else None, found


def _usual(
    infos: Sequence[ParameterInfo], varying: Sequence[bool]
) -> tuple[Numbers, Numbers, Numbers]:
    """Values and bounds that a registry gives; that of a fixed one unless it is asked for."""
    values = [
        info.default if info.vary_default or info.is_scaling or varies else info.fixed_value
        for info, varies in zip(infos, varying, strict=True)
    ]
    lower, upper = [info.min_bound for info in infos], [info.max_bound for info in infos]
    return stack_numbers(values), stack_numbers(lower), stack_numbers(upper)
