"""Sections of the configuration that follow from the laws: `model`, geometry, `parameters`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from twotime.config.keys import key
from twotime.config.parameter_names import PARAMETER_GROUPS
from twotime.config.parameter_registry import REGISTRIES
from twotime.config.priors import PriorType
from twotime.models import LAWS
from twotime.models.forms import FORMS, AbstractForm
from twotime.models.fractions import FRACTIONS, AbstractFractions
from twotime.models.parameters import Setting

Number = Annotated[float, Field(ge=-1e30, le=1e30)]
PriorName = Literal[tuple(kind.value for kind in PriorType)]

_FIXED = dict.fromkeys(
    info.name
    for registry in REGISTRIES.values()
    for info in registry.infos
    if not info.vary_default
)
_VARIES = f"true; {', '.join(_FIXED)}: false unless bounds or a prior are given"


class ParameterConfig(TypedDict, total=False):
    """One parameter; a bare number in its place is its value."""

    value: Annotated[Number, key(otherwise="the parameter's default")]
    """Value of a fixed parameter, start value of a varying one, in the parameter's unit."""
    min: Annotated[Number, key(otherwise="the parameter's bound")]
    """Lower bound. Give both min and max, or neither."""
    max: Annotated[Number, key(otherwise="the parameter's bound")]
    """Upper bound. Give both min and max, or neither."""
    vary: Annotated[bool, key(otherwise=_VARIES)]
    """Whether the parameter is fitted (true) or fixed (false)."""
    prior: Annotated[PriorName, key(otherwise="uniform between the bounds")]
    """Prior distribution for sampling."""
    prior_params: dict[str, Number]
    """Numbers of the prior, see Priors. low and high default to the bounds."""


def _section(name: str, about: str, keys: Mapping[str, Any]) -> Any:
    """A section whose keys follow from the laws."""
    section: Any = TypedDict(name, dict(keys), total=False)  # type: ignore[misc, operator]
    section.__doc__ = about
    return section


class FormConfig(TypedDict, total=False):
    """Form of a rate."""

    kind: Annotated[Literal[tuple(FORMS)], key(otherwise="power_law")]
    """Power law with offset, constant, exponential between two values, or spline."""
    knots: Annotated[int, key(otherwise="8", ge=2, le=200)]
    """Knots of a spline."""
    between: Annotated[Literal["monotone", "cubic"], key(otherwise="monotone")]
    """Splines that do not ring, or cubic ones through the values at the knots."""
    spacing: Annotated[Literal["linear", "log"], key(otherwise="linear")]
    """Knots spaced evenly in time or in its logarithm."""


class FractionsConfig(TypedDict, total=False):
    """Fractions of the components."""

    kind: Annotated[Literal[tuple(FRACTIONS)], key(otherwise="exponential")]
    """An exponential in time, or positive numbers or splines whose sum is 1."""
    knots: Annotated[int, key(otherwise="1", ge=1, le=200)]
    """Knots in time of simplex; 1 for fractions that do not change."""


_PARTS = {AbstractForm: FormConfig, AbstractFractions: FractionsConfig}
_LAW = "analysis_mode; arguments of the law are further keys of this section"


def of_setting(setting: Setting) -> Any:
    """The type of a key that is an argument of a law, with its field."""
    kind: Any = _PARTS.get(setting.kind, setting.kind)
    facts = {"unit": setting.unit, "gt": setting.gt, "le": setting.le}
    return Annotated[kind, key(setting.default, description=setting.effect, **facts)]


def _settings(section: str) -> dict[str, Any]:
    """Keys of a section that are arguments of laws."""
    keys = {}
    for setting in (setting for law in LAWS.values() for setting in law.settings):
        if ".".join(setting.path[:-1]) == section:
            keys[setting.path[-1]] = of_setting(setting)
    return keys


ParameterGroupConfig = _section(
    "ParameterGroupConfig",
    "Parameters of one group; which names it takes depends on the group.",
    {name: ParameterConfig for registry in REGISTRIES.values() for name in registry},
)
_GROUPS = dict.fromkeys(group for groups in PARAMETER_GROUPS.values() for group in groups)
ParametersConfig = _section(
    "ParametersConfig",
    "Parameters by group, or each directly by its name.",
    {name: ParameterGroupConfig for name in sorted(_GROUPS, key="scaling".__eq__)},
)
_ABOUT_LAW = "Law in place of analysis_mode: a name of an installed package, or an import path."
_LAW_KEY = {"law": Annotated[str, key(otherwise=_LAW, description=_ABOUT_LAW)]}
_IN_MODEL, _IN_GEOMETRY = _LAW_KEY | _settings("model"), _settings("analyzer_parameters.geometry")
ModelConfig = _section("ModelConfig", "How the model is evaluated.", _IN_MODEL)
GeometryConfig = _section("GeometryConfig", "Shear cell.", _IN_GEOMETRY)
