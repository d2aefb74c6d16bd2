"""Registries of parameters: those of every law (`REGISTRIES`) and of laws of your own."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from twotime.config.parameter_names import DEFAULT_MODE, unknown_name
from twotime.models import LAWS
from twotime.models.base import (
    AbstractTwoTimeModel,
    ParameterInfo,
    are_known,
    is_concrete,
    read_only,
)
from twotime.models.scaling import PARAMETERS
from twotime.tables import Table, Tabled

__all__ = ["REGISTRIES", "ParameterInfo", "ParameterRegistry"]


@final
class ParameterRegistry(Tabled, eqx.Module):
    """Registry of a model's parameters: physics in canonical order, then scaling.

    Args:
        _parameters: Mapping of name to info, or infos in order; left out: the two-component
            model's.
        analysis_mode: The configuration's word for the model; empty for custom models.
    """

    _parameters: tuple[ParameterInfo, ...]
    analysis_mode: str = eqx.field(static=True)

    def __init__(
        self,
        _parameters: Mapping[str, ParameterInfo] | Iterable[ParameterInfo] | None = None,
        analysis_mode: str | None = None,
    ):
        if _parameters is None:
            default = REGISTRIES[DEFAULT_MODE]
            _parameters, analysis_mode = default._parameters, analysis_mode or DEFAULT_MODE
        if isinstance(_parameters, Mapping):
            _parameters = _parameters.values()
        self._parameters = tuple(sorted(_parameters, key=lambda info: info.is_scaling))
        self.analysis_mode = analysis_mode or ""

    def __check_init__(self) -> None:
        names = [info.name for info in self._parameters]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            got = f"got {', '.join(twice)} more than once"
            raise ValueError(f"A registry names each parameter once; {got}.")

    @classmethod
    def of(cls, law: AbstractTwoTimeModel) -> "ParameterRegistry":
        """The registry of a law: its parameters, contrast and offset.

        Parameters without a group are in the group `law`.

        Raises:
            TypeError: If the law says its names alone.
        """
        usual = REGISTRIES.get(law.analysis_mode)
        if usual is not None and law.parameters == type(law).parameters:
            return usual
        if not law.parameters:
            raise TypeError(
                f"{type(law).__name__} has names but no `parameters`: nothing says their bounds; "
                "give it parameters = (ParameterInfo(name, default, lower, upper, ...), ...)."
            )
        infos = (i if i.group else dataclasses.replace(i, group="law") for i in law.parameters)
        return cls((*infos, *PARAMETERS))

    def __getitem__(self, name: str) -> ParameterInfo:
        """Get parameter info by name; an UnknownNameError if there is none."""
        for info in self._parameters:
            if info.name == name:
                return info
        raise unknown_name("parameter", name, self)

    def __iter__(self) -> Iterator[str]:
        """Iterate over parameter names in canonical order, scaling last."""
        return iter([info.name for info in self._parameters])

    def _shown(self) -> Table | None:
        numbers = [(i.default, i.min_bound, i.max_bound) for i in self._parameters]
        if not are_known(numbers) or any(np.ndim(x) for row in numbers for x in row):
            return None
        rows = tuple(
            (i.name, *(f"{float(x):.6g}" for x in row), i.unit, i.group, i.description)
            for i, row in zip(self._parameters, numbers, strict=True)
        )
        of = f" of {self.analysis_mode}" if self.analysis_mode else ""
        heads = ("parameter", "default", "min", "max", "unit", "group", "meaning")
        return Table(f"ParameterRegistry{of}: {len(self)} parameters", heads, rows)

    def __len__(self) -> int:
        return len(self._parameters)

    @property
    def infos(self) -> tuple[ParameterInfo, ...]:
        """What is known of each parameter, scaling last."""
        return self._parameters

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the physics parameters in canonical order."""
        return tuple(info.name for info in self._parameters if not info.is_scaling)

    @property
    def scaling_names(self) -> tuple[str, ...]:
        """Names of the scaling parameters (contrast, offset)."""
        return tuple(info.name for info in self._parameters if info.is_scaling)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group to the names in it, in canonical order."""
        groups: dict[str, tuple[str, ...]] = {}
        for info in self._parameters:
            groups[info.group] = (*groups.get(info.group, ()), info.name)
        return groups

    def get_defaults(self) -> dict[str, float]:
        """Get the default value of every parameter."""
        return {info.name: float(info.default) for info in self._parameters}

    def get_bounds(self) -> tuple[list[float], list[float]]:
        """Get (lower_bounds, upper_bounds) as lists in canonical order, scaling last."""
        lower = [float(info.min_bound) for info in self._parameters]
        return lower, [float(info.max_bound) for info in self._parameters]

    def get_varying_indices(self, vary_flags: Mapping[str, bool]) -> list[int]:
        """Get indices (canonical order, scaling last) of parameters that vary.

        Args:
            vary_flags: Name to flag; a parameter without one has its default.

        Raises:
            UnknownNameError: If a flag is given for a name that the registry lacks.
        """
        self.check_names(vary_flags)
        flags = [vary_flags.get(info.name, info.vary_default) for info in self._parameters]
        return [index for index, varies in enumerate(flags) if varies]

    def get_log_space_names(self) -> list[str]:
        """Get names of parameters that should be sampled in log-space."""
        return [info.name for info in self._parameters if info.log_space]

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse names that are not in the registry: an UnknownNameError at the first."""
        for name in names:
            self[name]

    def extended(self, *infos: ParameterInfo) -> "ParameterRegistry":
        """A new registry with further parameters, for custom models.

        Args:
            infos: The new parameters; a name that exists already is replaced in its place.
        """
        return ParameterRegistry({info.name: info for info in (*self._parameters, *infos)})

    def subset(self, names: Iterable[str]) -> "ParameterRegistry":
        """A new registry of these physics parameters in this order, with this one's scaling."""
        infos = [self[name] for name in names]
        if tuple(info.name for info in infos) == self.names:
            return self
        scaling = [info for info in self._parameters if info.is_scaling and info not in infos]
        return ParameterRegistry([*infos, *scaling])


REGISTRIES: Mapping[str, ParameterRegistry] = MappingProxyType(
    {mode: ParameterRegistry((*law.parameters, *PARAMETERS), mode) for mode, law in LAWS.items()}
)
"""Analysis mode to the registry of its parameters."""


def plain(value: Any) -> Any:
    """A known scalar as a Python float; arrays and traced values pass."""
    if is_concrete(value) and np.ndim(value) == 0:
        return float(value)
    return value


def stack_numbers(values: Sequence[Any]) -> Any:
    """Numbers along a last axis: a float64 array of numpy where all are known, else of JAX."""
    if is_concrete(*values):
        arrays = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in values))
        return read_only(np.stack(arrays, axis=-1))
    return jnp.stack(jnp.broadcast_arrays(*values), axis=-1)


def with_numbers(array: Any, changes: Mapping[int, Any]) -> Any:
    """An array with some numbers of its last axis changed."""
    if not is_concrete(array, *changes.values()):
        for i, number in changes.items():
            array = jnp.asarray(array).at[..., i].set(number)
    elif changes:
        array = np.array(array, np.float64)
        for i, number in changes.items():
            array[..., i] = number
    return read_only(array)


def intersection(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    """The interval that two intervals share."""
    is_known = is_concrete(*one, *other)
    low, high = (max, min) if is_known else (jnp.maximum, jnp.minimum)
    return low(one[0], other[0]), high(one[1], other[1])
