"""The numbers of every parameter: the one place where they are written.

`HOMODYNE` holds the parameters of the static and the sheared model, `TWO_COMPONENT` those of the
two-component one; parameters that agree are one object.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import final

import equinox as eqx

from twotime.config.parameter_names import DEFAULT_MODE, PARAMETER_GROUPS, unknown_name
from twotime.models.base import ParameterInfo


def _transport(suffix: str, of: str) -> dict[str, ParameterInfo]:
    return {
        f"D0{suffix}": ParameterInfo(
            f"D0{suffix}", 1e4, 100.0, 1e6, f"Transport coefficient {of} at t = 1 s",
            "Å²/s^(1+α)", log_space=True, prior_mean=1e4, prior_std=1e4,
        ),
        f"alpha{suffix}": ParameterInfo(
            f"alpha{suffix}", 0.0, -5.0, 5.0, f"Exponent in time of the transport {of}",
            prior_mean=0.0, prior_std=1.0,
        ),
        f"D_offset{suffix}": ParameterInfo(
            f"D_offset{suffix}", 0.0, -1e5, 1e5, f"Constant part of the transport {of}",
            "Å²/s", prior_mean=0.0, prior_std=1e3,
        ),
    }  # fmt: skip


_SHARED = {
    "phi0": ParameterInfo(
        "phi0", 0.0, -10.0, 10.0, "Direction of the flow in the detector's frame", "degree",
        prior_mean=0.0, prior_std=5.0, is_flow=True,
    ),
    "contrast": ParameterInfo(
        "contrast", 0.5, 0.0, 1.0, "Speckle contrast: c2 = offset + contrast · C",
        prior_mean=0.5, prior_std=0.25, is_scaling=True, is_physical=False,
    ),
    "offset": ParameterInfo(
        "offset", 1.0, 0.5, 1.5, "Baseline: c2 = offset + contrast · C",
        prior_mean=1.0, prior_std=0.25, is_scaling=True, is_physical=False,
    ),
}  # fmt: skip

HOMODYNE: Mapping[str, ParameterInfo] = _SHARED | {
    "D0": ParameterInfo(
        "D0", 1e3, 100.0, 1e5, "Transport coefficient at t = 1 s", "Å²/s^(1+α)",
        log_space=True, prior_mean=1e3, prior_std=1e3,
    ),
    "alpha": ParameterInfo(
        "alpha", 0.5, -2.0, 2.0, "Exponent in time of the transport",
        prior_mean=0.5, prior_std=0.5,
    ),
    "D_offset": ParameterInfo(
        "D_offset", 10.0, -1e5, 1e5, "Constant part of the transport", "Å²/s",
        prior_mean=10.0, prior_std=200.0,
    ),
    "gamma_dot_t0": ParameterInfo(
        "gamma_dot_t0", 0.01, 1e-6, 0.5, "Shear rate at t = 1 s", "1/s^(1+β)",
        log_space=True, prior_mean=0.01, prior_std=0.1, is_flow=True,
    ),
    "beta": ParameterInfo(
        "beta", 0.5, -2.0, 2.0, "Exponent in time of the shear rate",
        prior_mean=0.0, prior_std=0.5, is_flow=True,
    ),
    "gamma_dot_t_offset": ParameterInfo(
        "gamma_dot_t_offset", 0.0, -0.1, 0.1, "Constant part of the shear rate", "1/s",
        prior_mean=0.0, prior_std=0.02, is_flow=True,
    ),
}  # fmt: skip

TWO_COMPONENT: Mapping[str, ParameterInfo] = (
    _SHARED
    | _transport("_ref", "of the reference")
    | _transport("_sample", "of the sample")
    | {
        "v0": ParameterInfo(
            "v0", 1e3, 1e-6, 1e4, "Velocity at t = 1 s", "Å/s^(1+β)",
            log_space=True, prior_mean=1e3, prior_std=1e3, is_flow=True,
        ),
        "beta": ParameterInfo(
            "beta", 0.0, -2.0, 2.0, "Exponent in time of the velocity",
            prior_mean=0.0, prior_std=1.0, is_flow=True,
        ),
        "v_offset": ParameterInfo(
            "v_offset", 0.0, -100.0, 100.0, "Constant part of the velocity", "Å/s",
            prior_mean=0.0, prior_std=25.0, is_flow=True,
        ),
        "f0": ParameterInfo(
            "f0", 0.5, 0.0, 1.0, "Amplitude of the sample fraction",
            prior_mean=0.5, prior_std=0.25,
        ),
        "f1": ParameterInfo(
            "f1", 0.0, -10.0, 10.0, "Rate of change of the sample fraction", "1/s",
            prior_mean=0.0, prior_std=5.0,
        ),
        "f2": ParameterInfo(
            "f2", 0.0, -1e4, 1e4, "Time at which the changing fraction is f0", "s",
            prior_mean=0.0, prior_std=1e3,
        ),
        "f3": ParameterInfo(
            "f3", 0.0, 0.0, 1.0, "Constant part of the sample fraction",
            prior_mean=0.0, prior_std=0.5,
        ),
    }
)  # fmt: skip


__all__ = ["REGISTRIES", "ParameterInfo", "ParameterRegistry"]


@final
class ParameterRegistry(eqx.Module):
    """Registry of a model's parameters: physics in canonical order, then scaling.

    A value: it never changes, and extending it makes a new one.

    Args:
        _parameters: Mapping of name to info, or infos in order; left out: the two-component
            model's.
        analysis_mode: The configuration's word for the model; empty for models of one's own.
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
            raise ValueError(
                f"A registry names each parameter once; got {', '.join(twice)} more than once."
            )

    def __getitem__(self, name: str) -> ParameterInfo:
        """Get parameter info by name.

        Raises:
            UnknownNameError: If there is no such parameter (a KeyError and a ValueError).
        """
        for info in self._parameters:
            if info.name == name:
                return info
        raise unknown_name("parameter", name, self)

    def __iter__(self) -> Iterator[str]:
        """Iterate over parameter names in canonical order, scaling last."""
        return iter([info.name for info in self._parameters])

    def __len__(self) -> int:
        return len(self._parameters)

    def __contains__(self, name: object) -> bool:
        return any(info.name == name for info in self._parameters)

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
        for name in vary_flags:
            self[name]
        return [
            index
            for index, info in enumerate(self._parameters)
            if vary_flags.get(info.name, info.vary_default)
        ]

    def get_log_space_names(self) -> list[str]:
        """Get names of parameters that should be sampled in log-space."""
        return [info.name for info in self._parameters if info.log_space]

    def extended(self, *infos: ParameterInfo) -> "ParameterRegistry":
        """A new registry with further parameters, for models of one's own.

        Args:
            infos: The new parameters; a name that exists already is replaced in its place.

        Returns:
            A new registry; it belongs to no analysis mode.
        """
        new = {info.name: info for info in (*self._parameters, *infos)}
        return ParameterRegistry(new)

    def subset(self, names: Iterable[str]) -> "ParameterRegistry":
        """A new registry of these physics parameters in this order, with this one's scaling.

        Raises:
            UnknownNameError: If a name is not in this registry.
        """
        infos = [self[name] for name in names]
        if tuple(info.name for info in infos) == self.names:
            return self
        scaling = [info for info in self._parameters if info.is_scaling and info not in infos]
        return ParameterRegistry([*infos, *scaling])


def _registry(mode: str, known: Mapping[str, ParameterInfo]) -> ParameterRegistry:
    return ParameterRegistry(
        [
            dataclasses.replace(known[name], group=group)
            for group, names in PARAMETER_GROUPS[mode].items()
            for name in names
        ],
        mode,
    )


REGISTRIES: Mapping[str, ParameterRegistry] = MappingProxyType(
    {
        "static": _registry("static", HOMODYNE),
        "laminar_flow": _registry("laminar_flow", HOMODYNE),
        "two_component": _registry("two_component", TWO_COMPONENT),
    }
)
"""Analysis mode to the registry of its parameters."""
