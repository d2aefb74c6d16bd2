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

Laws = Mapping[str, type[AbstractTwoTimeModel]]


def check_law(law: type[AbstractTwoTimeModel], known: Laws) -> None:
    """Refuse a law that a configuration could not name.

    Raises:
        TypeError: If its word is none or taken, or a parameter has no place in a configuration.
    """
    word, name = law.analysis_mode, law.__name__
    if not word.isidentifier():
        raise TypeError(f"{name}: analysis_mode is {word!r}; expected a word of letters and _.")
    if known.get(word, law) is not law:
        raise TypeError(f"{name}: analysis_mode {word!r} is taken by {known[word].__name__}.")
    if not law.parameters:
        raise TypeError(f"{name} has no `parameters`, which a law with an analysis_mode needs.")
    for info in law.parameters:
        if not info.group:
            raise TypeError(f"{name}: {info.name} has no group; give ParameterInfo(group=...).")


def _laws() -> Laws:
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    known: dict[str, type[AbstractTwoTimeModel]] = {}
    for law in (kind for module in modules for kind in vars(module).values()):
        if isinstance(law, type) and issubclass(law, AbstractTwoTimeModel):
            if vars(law).get("analysis_mode"):
                check_law(law, known)
                known[law.analysis_mode] = law
    return dict(sorted(known.items(), key=lambda item: (len(item[1].names), item[0])))


LAWS: Laws = MappingProxyType(_laws())
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
