"""Laws of the two-time correlation: rates, models, scaling.

`LAWS` holds every law that has a word for the configuration: it is found in its module, so that
adding a law adds one file.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

import numpy as np
from jaxtyping import ArrayLike, Float

from twotime.models.base import AbstractTwoTimeModel, Finding
from twotime.models.scaling import CHECKS


def _laws() -> Mapping[str, type[AbstractTwoTimeModel]]:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    known = {
        kind.analysis_mode: kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, AbstractTwoTimeModel)
        if vars(kind).get("analysis_mode")
    }
    return dict(sorted(known.items(), key=lambda item: (len(item[1].names), item[0])))


LAWS: Mapping[str, type[AbstractTwoTimeModel]] = MappingProxyType(_laws())
"""Analysis mode to its law, laws of few parameters first."""


def findings(
    values: Mapping[str, float], t: Float[ArrayLike, " time"] | None = None
) -> list[Finding]:
    """All that is noteworthy about parameter values: severity and sentence of each finding.

    Args:
        values: Name to value, of any of the laws; scaling may be left out.
        t: Time of each frame [s]; without it rules that need frames are left out.
    """
    times = np.atleast_1d(np.asarray([] if t is None else t, float))
    checks = [check for law in LAWS.values() for check in law.checks]
    found = [
        finding
        for check in (*checks, *CHECKS)
        if all(name in values for name in check.names)
        for finding in check.judge(*(float(values[name]) for name in check.names), t=times)
    ]
    return list(dict.fromkeys(found))
