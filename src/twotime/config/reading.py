"""Reading a configuration: from what a file says to the canonical form, with all mistakes."""

import copy
from collections.abc import Mapping
from typing import Any

from twotime.config import checks
from twotime.config.findings import Findings, lookup, show
from twotime.config.folding import folded
from twotime.config.parameter_names import DEFAULT_MODE
from twotime.config.parameter_space import ParameterSpace
from twotime.config.schema import check_types
from twotime.config.spelling import spelled

_LEGACY = ("temporal", "initial_parameters")


def read(
    config: Any, *, is_whole: bool = True
) -> tuple[dict[str, Any], ParameterSpace | None, Findings]:
    """Bring a configuration to its canonical form and collect its mistakes.

    Args:
        config: What a file says, as a dictionary.
        is_whole: Whether it must hold all that a run needs.

    Returns:
        The canonical configuration, the parameter space it asks for (None where its parameters
        are wrong), and what was found.
    """
    found = Findings()
    if not isinstance(config, Mapping):
        found.problems.append(
            f"A configuration is a mapping of sections (key: value); got {show(config)}."
        )
        return {}, None, found
    canonical = spelled(copy.deepcopy(dict(config)), found)
    is_legacy = any(section in canonical for section in _LEGACY)
    check_types(canonical, found)
    if found.is_wrong(("analysis_mode",)):
        return canonical, None, found
    mode = lookup(canonical, ("analysis_mode",)) or DEFAULT_MODE
    folded(canonical, mode, found)
    checks.together(canonical, mode, found)
    if is_whole:
        checks.need(canonical, mode, found)
    space = checks.space_of(canonical, mode, found)
    if space is not None:
        checks.physical(canonical, space, found, is_legacy)
    return canonical, space, found
