"""All laws and their names, from a word or an import path to a law and back.

A law has the word of its `analysis_mode`, the name of an entry point in the group `twotime.laws`,
or the path under which it is imported (`package.module.Class`). `LAWS` holds
every law that has a word: it is found in its module, so that adding a law adds one file.
"""

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any

import numpy as np

from twotime.kinds import checked
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.parameters import Setting

GROUP = "twotime.laws"
"""Entry-point group in which packages name their laws."""

Law = type[AbstractTwoTimeModel]
Laws = Mapping[str, Law]


def check_law(law: Law, known: Laws) -> None:
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


def _shipped() -> Laws:
    names = (module.name for module in iter_modules([str(Path(__file__).parent)]))
    here, _, own = __name__.rpartition(".")
    modules = [import_module(f"{here}.{name}") for name in names if name != own]
    kinds = (kind for module in modules for kind in vars(module).values())
    laws = (k for k in kinds if isinstance(k, type) and issubclass(k, AbstractTwoTimeModel))
    return {law.__name__: law for law in laws if not law.__abstractmethods__}


SHIPPED: Laws = MappingProxyType(_shipped())
"""Name of a class to the law, of all that are part of twotime."""


def _laws() -> Laws:
    known: dict[str, Law] = {}
    for law in SHIPPED.values():
        if vars(law).get("analysis_mode"):
            check_law(law, known)
            known[law.analysis_mode] = law
    return dict(sorted(known.items(), key=lambda item: (len(item[1].names), item[0])))


LAWS: Laws = MappingProxyType(_laws())
"""Analysis mode to its law, laws of few parameters first."""


def own_words() -> dict[str, str]:
    """Words of the laws of installed packages, with their import paths."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def find_law(name: str) -> Law:
    """The law of a word, an entry point, or an import path.

    Raises:
        ValueError: If there is none of this name, its package is not installed, or it is no law.
    """
    if name in LAWS:
        return LAWS[name]
    if name in SHIPPED:
        return SHIPPED[name]
    named = own_words()
    module, _, member = named.get(name, name).replace(":", ".").rpartition(".")
    if not module:
        known = ", ".join((*LAWS, *SHIPPED, *sorted(named)))
        raise ValueError(
            f"there is no law {name!r}; expected one of {known}, or an import path "
            "(package.module.Class)."
        )
    try:
        found = getattr(import_module(module), member)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(
                f"the law {name!r} cannot be imported: there is no module {error.name!r}; install "
                "the package that defines it."
            ) from None
        raise ValueError(f"the law {name!r} cannot be imported: {error}.") from error
    except AttributeError:
        raise ValueError(f"the module {module!r} has no {member!r}; correct the name.") from None
    except Exception as error:
        raise ValueError(f"the law {name!r} cannot be imported: {error!r}.") from error
    if not (isinstance(found, type) and issubclass(found, AbstractTwoTimeModel)):
        raise ValueError(f"{name!r} is no law: expected a class made of AbstractTwoTimeModel.")
    return found


def law_name(kind: Law) -> str:
    """The name of a law that results keep: its class, with the path of one that is not ours."""
    is_ours = SHIPPED.get(kind.__name__) is kind
    return kind.__name__ if is_ours else f"{kind.__module__}.{kind.__qualname__}"


def settings_of(kind: Law) -> tuple[Setting, ...]:
    """Keys of the configuration that are arguments of a law: its `settings`, and other fields.

    A field that no setting speaks of is a key of the section `model`.
    """
    told = {setting.argument for setting in kind.settings}
    return (*kind.settings, *(_own(f) for f in dataclasses.fields(kind) if _is_own(f, told)))


def _is_own(field: Any, told: set[str]) -> bool:
    return field.init and field.name not in told and field.name != "names"


def _own(field: Any) -> Setting:
    default = None if field.default is dataclasses.MISSING else field.default
    has_none = field.default is dataclasses.MISSING is field.default_factory
    needed = f"the law needs its argument {field.name}" if has_none else ""
    return Setting(
        field.name, ("model", field.name), field.type, f"Argument {field.name} of the law.",
        default=default, needed=needed,
    )  # fmt: skip


@checked
def law_config(law: AbstractTwoTimeModel) -> dict[str, Any]:
    """The part of a configuration that asks for a law: its word or path, and its arguments."""
    kind = type(law)
    word = kind.analysis_mode if LAWS.get(kind.analysis_mode) is kind else ""
    config: dict[str, Any] = {"analysis_mode": word} if word else {"model": {"law": law_name(kind)}}
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    for setting in settings_of(kind):
        value = getattr(law, setting.argument)
        if value is None or not setting.needed and value == defaults[setting.argument]:
            continue
        section = config
        for name in setting.path[:-1]:
            section = section.setdefault(name, {})
        section[setting.path[-1]] = _plain(value)
    return config


def _plain(value: Any) -> Any:
    """A value as a configuration file has it; parts of laws by their kind."""
    if dataclasses.is_dataclass(value):
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        members = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return kind | {n: _plain(x) for n, x in members if n != "labels"}
    if isinstance(value, Mapping):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(x) for x in value]
    return np.asarray(value).tolist() if hasattr(value, "dtype") else value
