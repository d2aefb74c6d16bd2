"""Names of the parameters: the one place where names, groups, order and aliases are written.

`PARAMETER_GROUPS` says for each analysis mode which groups of parameters it has; everything
else here follows from it. Constants without a mode in their name are those of the two-component
model, as its configuration files have them.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal, get_args

AnalysisMode = Literal["static", "laminar_flow", "two_component"]

ANALYSIS_MODES: tuple[AnalysisMode, ...] = get_args(AnalysisMode)
DEFAULT_MODE: AnalysisMode = "two_component"

REFERENCE_PARAMS = ("D0_ref", "alpha_ref", "D_offset_ref")
SAMPLE_PARAMS = ("D0_sample", "alpha_sample", "D_offset_sample")
VELOCITY_PARAMS = ("v0", "beta", "v_offset")
FRACTION_PARAMS = ("f0", "f1", "f2", "f3")
ANGLE_PARAMS = ("phi0",)
TRANSPORT_PARAMS = ("D0", "alpha", "D_offset")
FLOW_PARAMS = ("gamma_dot_t0", "beta", "gamma_dot_t_offset")
SCALING_PARAMS = ("contrast", "offset")

_GROUPS = {
    "static": {"transport": TRANSPORT_PARAMS, "scaling": SCALING_PARAMS},
    "laminar_flow": {
        "transport": TRANSPORT_PARAMS,
        "flow": FLOW_PARAMS,
        "angle": ANGLE_PARAMS,
        "scaling": SCALING_PARAMS,
    },
    "two_component": {
        "reference": REFERENCE_PARAMS,
        "sample": SAMPLE_PARAMS,
        "velocity": VELOCITY_PARAMS,
        "fraction": FRACTION_PARAMS,
        "angle": ANGLE_PARAMS,
        "scaling": SCALING_PARAMS,
    },
}

PARAMETER_GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {mode: MappingProxyType(groups) for mode, groups in _GROUPS.items()}
)
"""Analysis mode to group to names, all in canonical order; the scaling group stands last."""

PARAMETER_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        mode: tuple(n for group, names in groups.items() if group != "scaling" for n in names)
        for mode, groups in _GROUPS.items()
    }
)
"""Analysis mode to the names of its physics parameters in canonical order."""

ALL_PARAM_NAMES = PARAMETER_NAMES[DEFAULT_MODE]
ALL_PARAM_NAMES_WITH_SCALING = ALL_PARAM_NAMES + SCALING_PARAMS
PARAM_GROUPS = PARAMETER_GROUPS[DEFAULT_MODE]

PARAMETER_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "D0_reference": "D0_ref",
        "alpha_reference": "alpha_ref",
        "D_offset_reference": "D_offset_ref",
        "velocity": "v0",
        "v_0": "v0",
        "velocity_offset": "v_offset",
        "fraction_0": "f0",
        "fraction_1": "f1",
        "fraction_2": "f2",
        "fraction_3": "f3",
        "angle_phi0": "phi0",
        "gamma_dot_0": "gamma_dot_t0",
        "gamma_dot_offset": "gamma_dot_t_offset",
        "phi_0": "phi0",
    }
)
"""Other spellings accepted on input. A group of the same name is meant where one can stand."""


class UnknownNameError(KeyError, ValueError):
    """A name that no parameter, group or mode has; the message is one sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Phrase that proposes the spelling nearest to a wrong name; empty where none is near."""
    choices = {choice.lower(): choice for choice in allowed}
    close = get_close_matches(name.lower(), choices, n=1, cutoff=0.6)
    return f"; did you mean {choices[close[0]]!r}?" if close else ""


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> UnknownNameError:
    """The error that a name is not among the allowed ones, with the nearest spelling."""
    allowed = tuple(allowed)
    return UnknownNameError(
        f"There is no {kind} {name!r}{nearest(str(name), allowed) or '.'} "
        f"Known: {', '.join(allowed)}."
    )


def get_param_index(name: str, analysis_mode: str = DEFAULT_MODE) -> int:
    """Get the index of a physics parameter in the array of its model.

    Args:
        name: Parameter name; not contrast or offset, which stand in no parameter array.
        analysis_mode: Which model's array.

    Raises:
        UnknownNameError: If the model has no such parameter (a KeyError and a ValueError).
    """
    if analysis_mode not in PARAMETER_NAMES:
        raise unknown_name("analysis mode", analysis_mode, ANALYSIS_MODES)
    names = PARAMETER_NAMES[analysis_mode]
    if name not in names:
        raise unknown_name("physics parameter", name, names)
    return names.index(name)


def get_group_indices(group: str, analysis_mode: str = DEFAULT_MODE) -> tuple[int, ...]:
    """Get the indices of a group's parameters in the array of its model.

    Raises:
        UnknownNameError: If the model has no such group of physics parameters.
    """
    groups = [g for g in PARAMETER_GROUPS[analysis_mode] if g != "scaling"]
    if group not in groups:
        raise unknown_name("group", group, groups)
    names = PARAMETER_GROUPS[analysis_mode][group]
    return tuple(get_param_index(name, analysis_mode) for name in names)
