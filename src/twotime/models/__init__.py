"""Laws of the two-time correlation: rates, models, scaling.

`LAWS` holds every law that has a word for the configuration: it is found in its module, so that
adding a law adds one file.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from twotime.models.base import AbstractTwoTimeModel


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
