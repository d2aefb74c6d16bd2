"""Any number of components that beat: `Components`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, final

import equinox as eqx

from twotime.models import base, rates
from twotime.models.base import ParameterInfo
from twotime.models.composition import AbstractComposition, Composition, Drift, Mover
from twotime.models.forms import AbstractForm, PowerLaw, Rate, form
from twotime.models.fractions import AbstractFractions, Simplex, fractions
from twotime.models.laminar_flow import check_gap, shear_quantity
from twotime.models.parameters import optional_number
from twotime.models.rates import Integration, Scalar
from twotime.models.two_component import component_transport, velocity_quantity


@final
@dataclasses.dataclass(frozen=True)
class Component:
    """A component: how it moves.

    Attributes:
        name: Ending of the names of its parameters, a word; they stand in a group of this name.
        transport: Form of its transport coefficient; None for what does not diffuse (a gel, a
            window, a beam stop).
        velocity: Form of its velocity; None without one.
        shear: Form of its shear rate; None without one.
    """

    name: str
    transport: AbstractForm | None = PowerLaw()
    velocity: AbstractForm | None = None
    shear: AbstractForm | None = None

    def __post_init__(self) -> None:
        if not str(self.name).isidentifier():
            raise ValueError(f"A component's name must be a word; got {self.name!r}.")
        if self.velocity is not None and self.shear is not None:
            raise ValueError(f"Component {self.name!r}: give a velocity or a shear, not both.")

    @property
    def direction(self) -> ParameterInfo | None:
        """The direction of its flow, if it flows."""
        if self.velocity is None and self.shear is None:
            return None
        return ParameterInfo(
            f"phi0_{self.name}", 0.0, -90.0, 90.0,
            f"Direction of the flow of {self.name} in the detector's frame", "degree",
            f"flow_{self.name}", prior_mean=0.0, prior_std=45.0, is_flow=True,
        )  # fmt: skip

    def mover(self) -> Mover:
        """It, with the parameters named."""
        suffix, of, group = f"_{self.name}", f" of {self.name}", f"flow_{self.name}"
        transport = component_transport(suffix, of, self.name)
        drift = shear = None
        if self.velocity is not None:
            velocity = velocity_quantity(suffix, of, group)
            drift = Drift(Rate(self.velocity, velocity), f"phi0{suffix}")
        if self.shear is not None:
            drag = shear_quantity(suffix, of, group)
            shear = Drift(Rate(self.shear, drag), f"phi0{suffix}")
        still = None if self.transport is None else Rate(self.transport, transport)
        return Mover(still, drift, shear, suffix, of)


def _component(written: Any) -> Component:
    """A component from a configuration: its name, and the forms of its rates."""
    if isinstance(written, Component):
        return written
    if not isinstance(written, Mapping) or "name" not in written:
        raise ValueError(f"a component is a mapping with its name; got {written!r}.")
    allowed = [field.name for field in dataclasses.fields(Component)]
    for key in written:
        if key not in allowed:
            raise ValueError(f"a component has no {key!r}; it takes {', '.join(allowed)}.")
    forms: Any = {key: value for key, value in written.items() if key != "name"}
    made = {key: None if value is None else form(value) for key, value in forms.items()}
    return Component(written["name"], **made)


def _members(written: Any) -> tuple[Component, ...]:
    return tuple(_component(one) for one in written)


@final
class Components(AbstractComposition):
    r"""Components that beat, each with its motion and its fraction.

    See `AbstractComposition` for the equation. A component without transport, velocity and shear
    rests: what a static reference scatters.

    Attributes:
        members: The components, two at least; the first is that to which fractions refer.
        fractions: Their fractions.
        gap: h, the distance between stator and rotor of what is sheared [Å].
        integration: "trapezoid" on the frames or "exact" (closed forms, where there are any).
        stretched: Whether the decays have the exponent gamma.
        q_reference: See `AbstractComposition`.

    Reference:
        He et al., PNAS 122, e2514216122 (2025), SI Eq. S-94.
    """

    members: tuple[Component, ...] = eqx.field(
        default=(Component("reference"), Component("sample", velocity=PowerLaw())),
        static=True,
        converter=_members,
    )
    fractions: AbstractFractions = eqx.field(default=Simplex(), static=True, converter=fractions)
    gap: Scalar = eqx.field(default=2.0e6, converter=base.number)
    integration: Integration = eqx.field(
        default="trapezoid", static=True, converter=rates.check_integration
    )
    stretched: bool = eqx.field(default=False, static=True)
    q_reference: Scalar | None = eqx.field(default=None, converter=optional_number)

    def __check_init__(self) -> None:
        names = [one.name for one in self.members]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                f"Components: expected two or more with different names; got {names}; for one use "
                "StaticDiffusion or LaminarFlow."
            )
        check_gap(self.gap)
        self.fractions.of(tuple(names))

    @property
    def composition(self) -> Composition:
        movers = tuple(one.mover() for one in self.members)
        labels = tuple(one.name for one in self.members)
        others = tuple(filter(None, (one.direction for one in self.members)))
        return Composition(movers, self.fractions.of(labels), others)

    @property
    def strain_factor(self) -> Scalar:
        return 0.5 * self.gap
