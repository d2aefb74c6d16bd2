r"""Laws composed of parts: components that move by rates, and their fractions.

The field correlation of component n is $e^{-\frac12 q^2\int J_n}$ times a phase (drift) or the
mean over a velocity gradient (shear); those of several components beat.
"""

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from twotime.models import base, rates
from twotime.models.base import Channels, Curve, Pair, Terms
from twotime.models.forms import AbstractForm, Rate
from twotime.models.fractions import AbstractFractions
from twotime.models.parameters import ParameterInfo, Setting, groups_of
from twotime.models.rates import AnyArray, At, Integration, Scalar, Times, sinc

STRETCH = ParameterInfo(
    "gamma", 1.0, 0.1, 2.0, "Exponent of the decay: exp(-(q² ∫J dt)^gamma)", "", "decay",
    log_space=True, prior_mean=1.0, prior_std=0.5, fixed_value=1.0,
)  # fmt: skip
Q_EXPONENT = ParameterInfo(
    "q_exponent", 2.0, 0.5, 4.0, "Exponent of q in the decay", "", "decay", False,
    log_space=True, prior_mean=2.0, prior_std=0.5, fixed_value=2.0,
)  # fmt: skip


COMMON = (
    Setting(
        "stretched", ("model", "stretched"), bool,
        "Make the exponent of the decay a parameter: exp(-(q² ∫J dt)^gamma).", default=False,
    ),
    Setting(
        "q_reference", ("model", "q_reference"), float,
        "Make the exponent of q in the decay a parameter, q_exponent: (q/q_reference)^q_exponent "
        "· q_reference² in place of q².", "1/Å", gt=0, le=1e3,
    ),
)  # fmt: skip
"""Keys of the configuration that every composed law has."""


def form_setting(name: str, what: str) -> Setting:
    """The key of the configuration for the form of a rate."""
    effect = f"Form of {what}: kind is power_law, constant, exponential or spline."
    return Setting(name, ("model", name), AbstractForm, effect)


FRACTIONS_SETTING = Setting(
    "fractions", ("model", "fractions"), AbstractFractions,
    "Fractions of the components: kind is exponential or simplex.",
)  # fmt: skip


class Drift(NamedTuple):
    """A rate with a direction: a velocity, or a shear rate across a gap."""

    rate: Rate
    direction: str


@dataclasses.dataclass(frozen=True)
class Mover:
    """A component of a law, its parameters named.

    Attributes:
        transport: Growth rate of the variance of the displacement; None for what rests.
        drift: Its velocity and the name of its direction; None without one.
        shear: Its shear rate and the name of its direction; None without one.
        index: Ending of its symbols ("_s").
        of: Whose it is, for descriptions (" of the sample").
    """

    transport: Rate | None
    drift: Drift | None = None
    shear: Drift | None = None
    index: str = ""
    of: str = ""

    @property
    def flow(self) -> Drift | None:
        """What turns its phase."""
        return self.drift or self.shear

    @property
    def rates(self) -> tuple[Rate, ...]:
        """Its rates."""
        flow = self.flow
        return (*filter(None, (self.transport,)), *((flow.rate,) if flow else ()))


class Composition(NamedTuple):
    """The parts of a law.

    Attributes:
        movers: Its components.
        fractions: Their fractions; None for one component.
        others: Further parameters (directions), behind those of rates and fractions.
    """

    movers: tuple[Mover, ...]
    fractions: AbstractFractions | None = None
    others: tuple[ParameterInfo, ...] = ()

    @property
    def rates(self) -> tuple[Rate, ...]:
        """Transport rates of all components, then what flows."""
        still = [m.transport for m in self.movers if m.transport]
        return (*still, *(m.flow.rate for m in self.movers if m.flow))


class OfDefault:
    """A fact of a composed law: of the law itself, or of its class as it is made by default.

    Settings that have no default are those of the law's example then.
    """

    def __init__(self, fact: Callable[[Any], Any]):
        self.fact = fact

    def __get__(self, law: Any, kind: Any) -> Any:
        if law is None and kind.__abstractmethods__:
            return self
        if law is None:
            law = kind(**{s.argument: s.example for s in kind.settings if s.needed})
        return self.fact(law)


def _parameters(law: "AbstractComposition") -> tuple[ParameterInfo, ...]:
    parts = law.composition
    found = [info for rate in parts.rates for info in rate.parameters]
    found += parts.fractions.parameters if parts.fractions else ()
    found += parts.others
    found += [STRETCH] * law.stretched
    return (*found, *[Q_EXPONENT] * (law.q_reference is not None))


class AbstractComposition(base.AbstractTwoTimeModel):
    r"""A law that is composed of parts: $C = |\sum_n x_n x_n' g_n|^2 / (f f')$.

    $g_n = e^{-\frac12 (q^2\int J_n)^\gamma}$ times $e^{i q\cos(\phi-\phi_n)\int v_n}$ or
    $\sin a/a$, $a = \frac12 q h\cos(\phi-\phi_n)\int\dot\gamma_n$; $f = \sum_n x_n^2$, primes at
    t2. With a `q_reference` $q_0$ the decay goes with $(q/q_0)^n q_0^2$ in place of $q^2$.

    Attributes:
        integration: "trapezoid" on the frames or "exact" (closed forms, where there are any).
        stretched: Whether gamma is a parameter; such laws are no sum of products.
        q_reference: The wavevector q₀ at which the decay is that of q² [1/Å]; given, n is the
            parameter `q_exponent`.

    Reference:
        He et al., PNAS 122, e2514216122 (2025), SI Eq. S-94.
    """

    integration: eqx.AbstractVar[Integration]
    stretched: eqx.AbstractVar[bool]
    q_reference: eqx.AbstractVar[Scalar | None]
    parameters = OfDefault(_parameters)
    names = OfDefault(lambda law: tuple(info.name for info in law.parameters))
    groups = OfDefault(lambda law: functools.partial(groups_of, law.parameters))

    @property
    @abstractmethod
    def composition(self) -> Composition:
        """Its parts."""

    @property
    def strain_factor(self) -> Scalar:
        """Phase of a shear per strain, q and cosine: half the gap [Å]."""
        raise TypeError(f"{type(self).__name__} has no gap, which a shear needs.")

    def profile(self, mean: Float[Array, "*pair"]) -> Float[Array, "*pair"]:
        """The field of a sheared component from sin(a)/a."""
        return mean

    def natural_rates(self, q: Scalar) -> Mapping[str, Scalar]:
        found = dict[str, Scalar]()
        for mover in self.composition.movers:
            found |= dict.fromkeys(mover.transport.amplitudes if mover.transport else (), q**2)
            if mover.drift:
                found |= dict.fromkeys(mover.drift.rate.amplitudes, q)
            if mover.shear:
                found |= dict.fromkeys(mover.shear.rate.amplitudes, q * self.strain_factor)
        return found

    # The correlation

    def channels(self, params, times, *, t, q, phi):
        values, parts = self.named(params), self.composition
        clocks = self._clocks(values, times, t=t, q=q)
        phases = [
            self._phase(values, mover, times, t=t, q=q, phi=phi)
            for mover in parts.movers
            if mover.flow
        ]
        levels = []
        if parts.fractions:
            x = parts.fractions.shares(values, times, t)
            norm = jnp.sqrt(sum(y**2 for y in x))
            levels = [y / norm for y in x]
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        half = clocks if len(parts.movers) == 1 else [0.5 * clock for clock in clocks]
        if self.stretched:
            # A power of the clock's difference, which the difference of phases gives exactly.
            phases, half = [*clocks, *phases], []
            levels = [*levels, jnp.broadcast_to(values["gamma"], times.shape)]
        return Channels(*(jnp.stack(x) if x else none for x in (half, phases, levels)))

    def _clocks(self, values: Mapping[str, Any], times: At, *, t: Times, q: Scalar) -> list[Any]:
        """q² ∫J of each component that decays."""
        square = q**2
        if self.q_reference is not None:
            # Not 0: with its logarithm's derivative.
            q0 = jnp.asarray(self.q_reference, times.dtype)
            square = q0**2 * jnp.exp(values["q_exponent"] * jnp.log(q / q0))
        still = [mover.transport for mover in self.composition.movers if mover.transport]
        return [
            square * rate.clock(values, times, t=t, integration=self.integration) for rate in still
        ]

    def _phase(
        self, values: Mapping[str, Any], mover: Mover, times: At, *, t: Times, q: Scalar,
        phi: Scalar,
    ) -> At:  # fmt: skip
        flow = mover.flow
        assert flow is not None
        path = flow.rate.clock(values, times, t=t, integration=self.integration)
        if mover.shear:
            q = jnp.asarray(self.strain_factor, times.dtype) * q
        return q * jnp.cos(jnp.deg2rad(phi - values[flow.direction])) * path

    def turn_per_frame(self, params, *, t, q, phi):
        values, place = self.named(params), {"t": t, "q": q, "phi": phi}
        drifting = [mover for mover in self.composition.movers if mover.drift]
        phases = [self._phase(values, mover, t, **place) for mover in drifting]
        steps = [jnp.max(jnp.abs(jnp.diff(phase))) for phase in phases]
        return jnp.max(jnp.stack(steps)) if steps else jnp.zeros((), t.dtype)

    def _fields(self, pair: Pair) -> list[tuple[Any, Any, Any]]:
        """Size, cosine and sine of the field of each component; None for a phase that is 0."""
        movers = self.composition.movers
        turn = sum(mover.transport is not None for mover in movers) if self.stretched else 0
        decays = iter(self._stretched(pair, turn, 0.5) if self.stretched else pair.decay)
        found = []
        for k, mover in enumerate(movers):
            size = pair.level1[k] * pair.level2[k]
            if mover.transport:
                size = size * next(decays)
            cos = sin = None
            if mover.drift:
                cos, sin, turn = pair.cos[turn], pair.sin[turn], turn + 1
            elif mover.shear:
                mean = self.profile(sinc(pair.shift[turn], pair.sin[turn]))
                size, turn = size * mean, turn + 1
            found.append((size, cos, sin))
        return found

    def _stretched(self, pair: Pair, n_clocks: int, factor: float) -> list[Array]:
        """exp(-factor · u^γ) of each clock's difference u."""
        gamma, found = pair.level1[-1], list[Array]()
        for u in pair.shift[:n_clocks]:
            apart = u > 0  # a stretched exponential has no derivative at 0
            decay = jnp.exp(-factor * jnp.where(apart, u, 1.0) ** gamma)
            found.append(jnp.where(apart, decay, 1.0))
        return found

    def correlation(self, pair):
        movers = self.composition.movers
        if len(movers) == 1:
            return self._alone(pair, squared=True)
        fields = self._fields(pair)
        total = sum(size**2 for size, _, _ in fields)
        for m, one in enumerate(fields):
            for other in fields[:m]:
                product = 2 * other[0] * one[0]
                wave = _difference(one, other)
                total = total + (product if wave is None else product * wave)
        return total

    def _alone(self, pair: Pair, *, squared: bool) -> Array:
        """Correlation, or its root, of the field of a single component."""
        (mover,) = self.composition.movers
        n_clocks = int(self.stretched)
        decay = self._stretched(pair, 1, 1.0)[0] if self.stretched else pair.decay[0]
        decay = decay if squared else jnp.sqrt(decay)
        if not mover.shear:
            return decay
        profile = self.profile(sinc(pair.shift[n_clocks], pair.sin[n_clocks]))
        return decay * (profile**2 if squared else profile)

    def field(self, pair: Pair) -> Num[Array, "*pair"]:
        if len(self.composition.movers) == 1:
            return self._alone(pair, squared=False)
        fields = self._fields(pair)
        waves = (size if c is None else size * jax.lax.complex(c, s) for size, c, s in fields)
        return sum(waves)  # type: ignore[return-value]

    @property
    def is_separable(self) -> bool:
        return not self.stretched and not any(m.shear for m in self.composition.movers)

    def terms(self, channels: Channels) -> Terms:
        if not self.is_separable:
            return super().terms(channels)
        movers, like = self.composition.movers, jnp.zeros(channels.level.shape[1])
        if len(movers) == 1:
            nothing = jnp.zeros_like(channels.decay)
            return Terms(
                jnp.ones_like(channels.decay), jnp.asarray(channels.decay), nothing, (False,)
            )
        clocks, phases = iter(channels.decay), iter(channels.phase)
        decay = [next(clocks) if m.transport else like for m in movers]
        phase = [next(phases) if m.drift else None for m in movers]
        x = channels.level
        pairs = [(m, n) for m in range(len(movers)) for n in range(m)]
        weight = [x[n] ** 2 for n in range(len(movers))]
        weight += [jnp.sqrt(2.0) * x[n] * x[m] for m, n in pairs]
        fall = [2 * clock for clock in decay] + [decay[n] + decay[m] for m, n in pairs]
        turns = [_less(phase[m], phase[n]) for m, n in pairs]
        zero = jnp.zeros_like(x[0])
        return Terms(
            weight=jnp.stack(weight),
            decay=jnp.stack([jnp.broadcast_to(f, zero.shape) for f in fall]),
            phase=jnp.stack([zero] * len(movers) + [zero if w is None else w for w in turns]),
            oscillates=(*[False] * len(movers), *(w is not None for w in turns)),
        )

    # Functions of time

    def functions(self, params, *, t):
        values, parts = self.named(params), self.composition
        found: dict[str, Curve] = {}
        for mover in parts.movers:
            if mover.transport:
                found |= transport_functions(mover.transport, values, t, mover.index, mover.of)
        for mover in parts.movers:
            if mover.flow:
                found |= self._flow_functions(mover, values, t)
        return found | (parts.fractions.functions(values, t) if parts.fractions else {})

    def _flow_functions(
        self, mover: Mover, values: Mapping[str, Any], t: Times
    ) -> dict[str, Curve]:
        flow = mover.flow
        assert flow is not None
        rate = flow.rate.rate(values, rates.regular(t))
        path = flow.rate.clock(values, t, t=t, integration=self.integration)
        moved, of, end = path - path[0], mover.of, flow.rate.of.suffix
        if mover.shear:
            return {
                f"shear_rate{end}": Curve(rate, "1/s", f"γ̇{end}", f"Shear rate{of}"),
                f"strain{end}": Curve(moved, "", f"Γ{end}", f"Strain since the first frame{of}"),
            }
        about = f"Displacement{of if end else ''} since the first frame"
        return {
            f"v{end}": Curve(rate, "Å/s", f"v{end}", f"Velocity{of}"),
            f"displacement{end}": Curve(moved, "Å", f"∫v{end} dt", about),
        }


def transport_functions(
    transport: Rate, values: Mapping[str, Any], t: Times, index: str = "", of: str = ""
) -> dict[str, Curve]:
    """J(t) and D(t) of a transport coefficient.

    Args:
        transport: The rate.
        values: Parameters by name.
        t: Times of the frames [s].
        index: Ending of their symbols.
        of: Whose transport it is, for the description.
    """
    rate, suffix = transport.rate(values, rates.regular(t)), transport.of.suffix
    variance = f"Growth rate of the variance of the displacement{of}"
    diffusion = f"Diffusion coefficient{of}, J/2"
    return {
        f"J{suffix}": Curve(rate, "Å²/s", f"J{index}", variance),
        f"D{suffix}": Curve(0.5 * rate, "Å²/s", f"D{index}", diffusion),
    }


def _difference(one: tuple[Any, Any, Any], other: tuple[Any, Any, Any]) -> AnyArray | None:
    """Cosine of the difference of two phases; None where both are 0."""
    (_, cos, sin), (_, other_cos, other_sin) = one, other
    if cos is None or other_cos is None:
        return other_cos if cos is None else cos
    return cos * other_cos + sin * other_sin


def _less(one: Any, other: Any) -> Any:
    """The difference of two phases; None where both are 0."""
    if one is None or other is None:
        return one if other is None else -other
    return one - other
