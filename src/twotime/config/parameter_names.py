"""Names of the parameters, their groups, order and aliases.

Names and groups follow from the laws (`twotime.models.LAWS`); `ALL_PARAM_NAMES` are those of the
two-component model.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from twotime.models import LAWS, scaling

ANALYSIS_MODES: tuple[str, ...] = tuple(LAWS)
DEFAULT_MODE = "two_component"

AnalysisMode = Literal[ANALYSIS_MODES]

SCALING_PARAMS = tuple(info.name for info in scaling.PARAMETERS)

PARAMETER_GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {mode: law.groups() | {"scaling": SCALING_PARAMS} for mode, law in LAWS.items()}
)
"""Analysis mode to group to names, all in canonical order; the scaling group stands last."""

PARAMETER_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {mode: law.names for mode, law in LAWS.items()}
)
"""Analysis mode to the names of its physics parameters in canonical order."""

ALL_PARAM_NAMES = PARAMETER_NAMES[DEFAULT_MODE]
ALL_PARAM_NAMES_WITH_SCALING = ALL_PARAM_NAMES + SCALING_PARAMS

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
    near = nearest(str(name), allowed) or "."
    return UnknownNameError(f"There is no {kind} {name!r}{near} Known: {', '.join(allowed)}.")


def mode_with(names: list[str]) -> str:
    """The first analysis mode whose parameters have all the names; two_component comes first."""
    known = {mode: (*PARAMETER_NAMES[mode], *SCALING_PARAMS) for mode in LAWS}
    for mode in (DEFAULT_MODE, *LAWS):
        if set(names) <= set(known[mode]):
            return mode
    everything = dict.fromkeys(name for members in known.values() for name in members)
    for name in names:
        if name not in everything:
            raise unknown_name("parameter", name, everything)
    listed = ", ".join(sorted(set(names)))
    raise ValueError(
        f"No model has all of the parameters {listed}: give the parameters of one model."
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
