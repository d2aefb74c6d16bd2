"""The interface of a law of the two-time correlation: parameters, channels, pairs of times."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from twotime.models.parameters import FLOW_DIRECTION as FLOW_DIRECTION
from twotime.models.parameters import INTEGRATION as INTEGRATION
from twotime.models.parameters import Check as Check
from twotime.models.parameters import Example as Example
from twotime.models.parameters import Finding as Finding
from twotime.models.parameters import ParameterInfo as ParameterInfo
from twotime.models.parameters import Setting as Setting
from twotime.models.parameters import Severity as Severity
from twotime.models.parameters import are_known as are_known
from twotime.models.parameters import exponent_check as exponent_check
from twotime.models.parameters import floating as floating
from twotime.models.parameters import groups_of
from twotime.models.parameters import is_concrete as is_concrete
from twotime.models.parameters import number as number
from twotime.models.parameters import numpy_of as numpy_of
from twotime.models.parameters import parameter_group as parameter_group
from twotime.models.parameters import read_only as read_only
from twotime.models.parameters import within as within
from twotime.models.proposals import Plan, Scene, default_plan
from twotime.models.rates import AnyArray, At, Scalar, Times
from twotime.tables import Table, titled_html

Params = Float[AnyArray, " param"]


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
        return groups_of(cls.parameters)

    def named(self, params: Params) -> dict[str, Any]:
        """Parameters by name."""
        return {name: params[index] for index, name in enumerate(self.names)}

    def __repr__(self) -> str:
        plain = jax.tree.map(lambda x: x.item() if isinstance(x, np.generic) else x, self)
        return eqx.tree_pformat(plain)

    def _repr_html_(self) -> str:
        known = {info.name: (info.unit, info.description) for info in self.parameters}
        rows = tuple((name, *known.get(name, ("", ""))) for name in self.names)
        return titled_html(Table(repr(self), ("parameter", "unit", "meaning"), rows))

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

    def turn_per_frame(self, params: Params, *, t: Times, q: Scalar, phi: Scalar) -> Scalar:
        """Largest phase by which a drift turns a component between neighbouring frames [rad]."""
        return jnp.zeros((), t.dtype)

    def proposals(self, scene: Scene) -> Plan:
        """How starts of a fit are proposed from the scales of the data.

        By default candidates are drawn where the parameters' priors and bounds say; a law that
        knows better has stages of its own (`twotime.models.proposals`).
        """
        return default_plan(scene)
