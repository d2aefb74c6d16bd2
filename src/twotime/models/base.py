"""The interface of a law of the two-time correlation: parameters, channels, pairs of times."""

import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from twotime.models.proposals import Plan, Scene
from twotime.models.rates import AnyArray, At, Integration, Scalar, Times

Params = Float[AnyArray, " param"]


def number(value: Any) -> Any:
    """A float64 scalar of numpy, so that JAX sees a number to trace; traced values pass."""
    return value if isinstance(value, jax.Array) else np.float64(value)


def _optional_number(value: Any) -> Any:
    return None if value is None else number(value)


def is_concrete(*values: Any) -> bool:
    """Whether all values are known numbers (not traced), so that they can be checked."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


class Curve(eqx.Module):
    """A function of time, with or without a band.

    Attributes:
        values: The function at each time [unit].
        unit: Its unit; empty for pure numbers.
        symbol: Symbol for tables and axes.
        description: Its meaning.
        lower: Lower end of the band; None without a band.
        upper: Upper end of the band; None without a band.
    """

    values: Float[AnyArray, "*draw time"]
    unit: str = eqx.field(static=True)
    symbol: str = eqx.field(static=True)
    description: str = eqx.field(static=True)
    lower: Float[AnyArray, "*draw time"] | None = None
    upper: Float[AnyArray, "*draw time"] | None = None


@final
class ParameterInfo(eqx.Module):
    """Metadata of one model parameter.

    Attributes:
        name: Name as models and configurations spell it.
        default: Value where none is given [unit].
        min_bound: Lower bound of the fit [unit].
        max_bound: Upper bound of the fit [unit].
        description: What it is, for people.
        unit: Physical unit; empty for pure numbers.
        group: Group under which configurations list it.
        vary_default: Whether it is fitted where nothing is said; one that is not, and has no value
            either, is 0, but for contrast and offset, which are at their default.
        log_space: Whether samplers and random starts should use its logarithm.
        prior_mean: Location of the default truncated normal prior; None: middle of the bounds.
        prior_std: Scale of the default prior before truncation; None: half the bounds' distance.
        is_scaling: Whether each angle may have its own (contrast and offset).
        is_physical: Whether it is a parameter of the physical model (not scaling).
        is_flow: Whether it describes flow or velocity.
    """

    name: str = eqx.field(static=True)
    default: float = eqx.field(converter=number)
    min_bound: float = eqx.field(converter=number)
    max_bound: float = eqx.field(converter=number)
    description: str = eqx.field(static=True)
    unit: str = eqx.field(static=True, default="")
    group: str = eqx.field(static=True, default="")
    vary_default: bool = eqx.field(static=True, default=True)
    log_space: bool = eqx.field(static=True, default=False)
    prior_mean: float | None = eqx.field(converter=_optional_number, default=None)
    prior_std: float | None = eqx.field(converter=_optional_number, default=None)
    is_scaling: bool = eqx.field(static=True, default=False)
    is_physical: bool = eqx.field(static=True, default=True)
    is_flow: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(
                f"A parameter's name must be a word of letters, digits and _; got {self.name!r}."
            )
        low, default, high, std = self.min_bound, self.default, self.max_bound, self.prior_std
        if not is_concrete(low, default, high, std):
            return
        if not (np.isfinite([low, high]).all() and low < high and low <= default <= high):
            got = f"{low} .. {default} .. {high} {self.unit}".rstrip()
            raise ValueError(
                f"Parameter {self.name!r}: need finite min_bound < max_bound with the default "
                f"between them; got {got}."
            )
        if std is not None and not std > 0:
            raise ValueError(f"Parameter {self.name!r}: prior_std must be > 0; got {std}.")

    @property
    def prior_location(self) -> Scalar:
        """Location of the default prior [unit]: `prior_mean` or the middle of the bounds."""
        if self.prior_mean is None:
            return 0.5 * (self.min_bound + self.max_bound)
        return self.prior_mean

    @property
    def prior_scale(self) -> Scalar:
        """Scale of the default prior [unit]: `prior_std` or half the bounds' distance."""
        if self.prior_std is None:
            return 0.5 * (self.max_bound - self.min_bound)
        return self.prior_std


def parameter_group(
    group: str,
    *rows: tuple[str, float, float, float, float, float, str, str],
    is_flow: bool = False,
    fixed: Collection[str] = (),
) -> tuple[ParameterInfo, ...]:
    """Parameters of one group from the rows of a table.

    Args:
        group: Group under which configurations list them.
        rows: Name, default, lower and upper bound, mean and standard deviation of the prior, unit
            and description. Parameters that cannot be 0 are sampled by their logarithm.
        is_flow: Whether they describe flow or velocity.
        fixed: Names of those that are fitted only where that is asked for: others can take their
            place.
    """
    found = []
    for name, default, low, high, mean, std, unit, what in rows:
        prior: Any = {"log_space": low > 0, "prior_mean": mean, "prior_std": std}
        facts = name, default, low, high, what, unit, group
        found.append(ParameterInfo(*facts, name not in fixed, is_flow=is_flow, **prior))
    return tuple(found)


(FLOW_DIRECTION,) = parameter_group(
    "angle",
    ("phi0", 0.0, -10.0, 10.0, 0.0, 5.0, "degree", "Direction of the flow in the detector's frame"),
    is_flow=True,
)


Severity = Literal["error", "warning", "info"]
Finding = tuple[Severity, str]


class Check(NamedTuple):
    """A physics check of parameters by name, beyond their bounds.

    `judge` takes their values and the frame times [s] (empty where unknown) and yields findings.
    """

    names: tuple[str, ...]
    judge: Callable[..., Iterator[Finding]]


def within(name: str, severity: Severity, low: float, high: float, why: str) -> Check:
    """The check that a parameter lies in [low, high]; `why` completes "name = value …"."""

    def judge(x: float, t: np.ndarray) -> Iterator[Finding]:
        if not low <= x <= high:
            yield severity, f"{name} = {x:g} {why}"

    return Check((name,), judge)


def exponent_check(name: str) -> Check:
    """The check of the exponent of a flow."""
    return within(name, "warning", -2, 2, "is beyond 2 in size, which is rarely physical.")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A key of the configuration that is an argument of a law.

    Attributes:
        argument: Argument of the law's constructor.
        path: Sections and key; in `model` or `analyzer_parameters.geometry`.
        kind: Its type, float or a `Literal`.
        effect: What it does, for the manual.
        unit: Physical unit; empty for pure numbers and words.
        default: Value where it is left out.
        gt: Number that must be exceeded.
        le: Largest number.
        needed: Why a run needs it; empty if it may be left out.
        example: Value that templates show for a key that is needed.
    """

    argument: str
    path: tuple[str, ...]
    kind: Any
    effect: str
    unit: str = ""
    default: Any = None
    gt: float | None = None
    le: float | None = None
    needed: str = ""
    example: Any = None


INTEGRATION = Setting(
    "integration",
    ("model", "integration"),
    Integration,
    "Running integrals of the rates: trapezoid rule on the frames, or closed form.",
    default="trapezoid",
)


@dataclasses.dataclass(frozen=True)
class Example:
    """Numbers of a law's first configuration, and of the data it is tried on.

    Attributes:
        summary: The law in plain text, one equation or sentence a line.
        q: Wavevector [1/Å].
        phi: Detector angles of the data [degree].
        start: Values where a fit starts, by name; the others start at their defaults.
        truth: Values of the data that differ from the start.
        fixed: Parameters that are not fitted, with the reason.
    """

    summary: str = ""
    q: float = 0.01
    phi: tuple[float, ...] = (0.0, 60.0, 120.0)
    start: Mapping[str, float] = dataclasses.field(default_factory=dict)
    truth: Mapping[str, float] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Channels(eqx.Module):
    """Functions of one time that a model needs, before pairs are formed.

    Attributes:
        decay: Clocks that never decrease; a pair sees exp(-(difference)) of each.
        phase: Clocks of any sign [rad]; a pair sees their differences, sines and cosines.
        level: Values that a pair sees at both of its times.
    """

    decay: Float[AnyArray, "decay time"]
    phase: Float[AnyArray, "phase time"]
    level: Float[AnyArray, "level time"]


class Pair(eqx.Module):
    """What `correlation` is computed from, at pairs of times t1 <= t2.

    Attributes:
        decay: exp(-(clock(t2) - clock(t1))) of each decay clock, at most 1.
        shift: clock(t2) - clock(t1) of each phase clock [rad].
        sin: Sine of `shift`.
        cos: Cosine of `shift`.
        level1: Each level at t1.
        level2: Each level at t2.
    """

    decay: Float[AnyArray, "decay *pair"]
    shift: Float[AnyArray, "phase *pair"]
    sin: Float[AnyArray, "phase *pair"]
    cos: Float[AnyArray, "phase *pair"]
    level1: Float[AnyArray, "level *pair"]
    level2: Float[AnyArray, "level *pair"]


class Terms(eqx.Module):
    """A correlation as a sum of products, for models that are one (`is_separable`).

    C(t1, t2) = sum over k of weight_k(t1) weight_k(t2) exp(-(decay_k(t2) - decay_k(t1)))
    cos(phase_k(t2) - phase_k(t1)). `oscillates` says which terms have a phase at all.
    """

    weight: Float[Array, "term time"]
    decay: Float[Array, "term time"]
    phase: Float[Array, "term time"]
    oscillates: tuple[bool, ...] = eqx.field(static=True)


def _warn(method: str, stacklevel: int) -> None:
    sentence = f"{method} is called correlation now, its argument a Pair; rename it."
    warnings.warn(sentence, DeprecationWarning, stacklevel=stacklevel)


Components = Float[Array, "component quantity time"]


class AbstractTwoTimeModel(eqx.Module):
    """A law for the normalised two-time correlation C(phi, t1, t2), 1 on the diagonal.

    A model is its parameters and two methods: `channels`, functions of one time, and
    `correlation`, a function of the channels at two times. Everything else (the plane, pairs, fits,
    posteriors, derivatives) follows from these; the other methods have defaults. Parameters are
    passed as one array in the order of `names`; angles are degrees, times s, lengths Å.

    Attributes:
        names: Names of the parameters; follow from `parameters` where these are given.
        parameters: Unit, default, bounds, prior and group of each parameter.
        analysis_mode: The configuration's word for the law; empty for laws of your own.
        settings: Keys of the configuration that are arguments of the law.
        checks: Physics checks of its parameters.
        example: Numbers of the template that `twotime init` writes.
    """

    names: eqx.AbstractVar[tuple[str, ...]]
    parameters: ClassVar[tuple[ParameterInfo, ...]] = ()
    analysis_mode: ClassVar[str] = ""
    settings: ClassVar[tuple[Setting, ...]] = ()
    checks: ClassVar[tuple[Check, ...]] = ()
    example: ClassVar[Example] = Example()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        given = cls.__dict__
        if "parameters" in given and "names" not in given:
            cls.names = tuple(info.name for info in cls.parameters)
        if "pixel" in given and "correlation" not in given:
            _warn(f"{cls.__name__}.pixel", 6)
            cls.correlation = given["pixel"]  # type: ignore[method-assign]

    @classmethod
    def groups(cls) -> dict[str, tuple[str, ...]]:
        """Groups of the parameters in the configuration, with the names in each."""
        groups = dict.fromkeys(info.group for info in cls.parameters)
        return {g: tuple(info.name for info in cls.parameters if info.group == g) for g in groups}

    def named(self, params: Params) -> dict[str, Any]:
        """Parameters by name."""
        return {name: params[index] for index, name in enumerate(self.names)}

    def __repr__(self) -> str:
        plain = jax.tree.map(lambda x: x.item() if isinstance(x, np.generic) else x, self)
        return eqx.tree_pformat(plain)

    @abstractmethod
    def channels(self, params: Params, times: At, *, t: Times, q: Scalar, phi: Scalar) -> Channels:
        """Evaluate the clocks and levels at some times.

        Args:
            params: Parameters in the order of `names`.
            times: Where to evaluate; inside the span of `t` [s].
            t: Frame grid on which rates are integrated [s].
            q: Wavevector [1/Å].
            phi: Detector angle [degree].
        """

    @abstractmethod
    def correlation(self, pair: Pair) -> Float[Array, "*pair"]:
        """Normalised correlation of pairs with t1 <= t2, from the channels at both times.

        Must be 1 where both times are equal, use array operations that broadcast, and have
        finite derivatives there.
        """

    def pixel(self, pair: Pair) -> Float[Array, "*pair"]:
        """Former name of `correlation`."""
        _warn(f"{type(self).__name__}.pixel", 4)
        return self.correlation(pair)

    def natural_rates(self, q: Scalar) -> Mapping[str, Scalar]:
        """How fast one unit of each amplitude changes the correlation, at most [1/s].

        Where a configuration gives no bounds of these parameters, they follow from it and from the
        times of the data. Parameters left out keep the bounds of `parameters`.

        Args:
            q: Wavevector [1/Å].
        """
        return {}

    @property
    def is_separable(self) -> bool:
        """Whether `terms` writes the same correlation as a sum of products."""
        return type(self).terms is not AbstractTwoTimeModel.terms

    def terms(self, channels: Channels) -> Terms:
        """The correlation as a sum of products, from the same channels as `correlation`.

        Raises:
            TypeError: If the model is not such a sum (`is_separable` is False).
        """
        raise TypeError(
            f"{type(self).__name__} is not a sum of products of functions of one time; "
            "use the tiled evaluator, which takes any model."
        )

    def field(self, pair: Pair) -> Num[Array, "*pair"]:
        """Field correlation g1 with |g1|² equal to `correlation`, for simulating speckle.

        Raises:
            TypeError: If the model has no field correlation.
        """
        raise TypeError(
            f"{type(self).__name__} has no field correlation; "
            "use `simulate`, which adds independent noise, instead of `simulate_speckle`."
        )

    def functions(self, params: Params, *, t: Times) -> dict[str, Curve]:
        """The functions of time that the parameters stand for, by name (J, strain, x_s).

        Amplitude, exponent and offset of a rate are strongly degenerate over a finite window; the
        rate itself is not. Bands follow from draws (`jax.vmap` over parameters) or a covariance
        (`jax.jacfwd`). A first frame at t = 0 is read half a frame later, where power laws are
        finite.

        Args:
            params: Parameters in the order of `names`.
            t: Times of the frames [s].
        """
        return {}

    def components(self, params: Params, t: Times) -> Components | None:
        """What distinguishes two components with exchangeable labels; None without such labels.

        Gives the logarithm of the transport coefficient and the share of each, in their order.
        """
        return None

    def exchanged(self, params: Params, t: Times) -> Params:
        """Parameters with the components exchanged, as nearly as the law allows."""
        return params

    def is_exchanged(self, a: Components, b: Components) -> Array:
        """Whether two descriptions (see `components`) are the same except for the labels.

        Transport coefficients must agree within 20 % and shares within 0.1 at all times, and
        better than without exchange.
        """

        def distance(x: Components) -> Array:
            away = jnp.abs(x - b).max(axis=(0, 2))
            return jnp.max(away / jnp.asarray([0.2, 0.1]))

        swapped, plain = distance(a[::-1]), distance(a)
        return (swapped <= 1.0) & (swapped < plain)

    def is_canonical(self, a: Components) -> Array:
        """Whether the first component is the slower one on average over time, the convention."""
        first, second = a[:, 0].mean(axis=1)
        return first <= second

    def off_plateau(self, params: Params, t: Times) -> Params:
        """Parameters moved away from where some of them have no effect at all."""
        return params

    def proposals(self, scene: Scene) -> Plan:
        """How starts of a fit are proposed from the scales of the data.

        Raises:
            ValueError: If the law proposes none.
        """
        raise ValueError(
            f"No way to estimate a start from the data is known for {type(self).__name__}; give "
            "values, or define its method `proposals` (twotime.models.proposals)."
        )
