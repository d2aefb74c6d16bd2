"""What a law says of its parameters, of the keys that make it, and of its first configuration."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from twotime.models.rates import Integration, Scalar


def number(value: Any) -> Any:
    """A float64 scalar of numpy, so that JAX sees a number to trace; traced values pass."""
    return value if isinstance(value, jax.Array) else np.float64(value)


def optional_number(value: Any) -> Any:
    """The same of a value that may be None."""
    return None if value is None else number(value)


def is_concrete(*values: Any) -> bool:
    """Whether all values are known numbers (not traced), so that they can be checked."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def are_known(tree: Any) -> bool:
    """Whether all leaves are numbers that can be printed: not traced, no shapes alone."""
    leaves = jax.tree.leaves(tree)
    return is_concrete(*leaves) and all(map(eqx.is_array_like, leaves))


def numpy_of(*arrays: Any) -> Any:
    """NumPy for known numbers, that of JAX for traced ones."""
    return np if is_concrete(*arrays) else jnp


def read_only(array: Any) -> Any:
    """An array of NumPy that cannot be written into, nothing copied; anything else as it is."""
    if not isinstance(array, np.ndarray) or not array.flags.writeable:
        return array
    array = array.view()
    array.flags.writeable = False
    return array


def floating(value: Any) -> Any:
    """Numbers as a floating-point array, of JAX where they are one, else of NumPy and read-only.

    Integers become the default float: a wavevector cast to the type of integer times would be 0.
    """
    if isinstance(value, jax.Array):
        is_float = jnp.issubdtype(value.dtype, jnp.inexact)
        dtype = value.dtype if is_float else jnp.result_type(float)
        return value.astype(dtype) if value.weak_type or not is_float else value
    array = value if isinstance(value, np.ndarray) else np.asarray(value, np.float64)
    return read_only(array.astype(np.float64) if array.dtype.kind in "iu" else array)


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
            either, is at `fixed_value`, but for contrast and offset, which are at their default.
        log_space: Whether samplers and random starts should use its logarithm.
        prior_mean: Location of the default truncated normal prior; None: middle of the bounds.
        prior_std: Scale of the default prior before truncation; None: half the bounds' distance.
        is_scaling: Whether each angle may have its own (contrast and offset).
        is_physical: Whether it is a parameter of the physical model (not scaling).
        is_flow: Whether it describes flow or velocity.
        is_informative: Whether the default prior is part of the law, and not only where nothing
            else is said: it is sampled with, and fits with priors take it.
        fixed_value: Value of one that does not vary by default where none is given.
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
    prior_mean: float | None = eqx.field(converter=optional_number, default=None)
    prior_std: float | None = eqx.field(converter=optional_number, default=None)
    is_scaling: bool = eqx.field(static=True, default=False)
    is_physical: bool = eqx.field(static=True, default=True)
    is_flow: bool = eqx.field(static=True, default=False)
    is_informative: bool = eqx.field(static=True, default=False)
    fixed_value: float = eqx.field(converter=number, default=0.0)

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


def groups_of(parameters: Iterable[ParameterInfo]) -> dict[str, tuple[str, ...]]:
    """Groups of some parameters, with the names in each."""
    groups: dict[str, tuple[str, ...]] = {}
    for info in parameters:
        groups[info.group] = (*groups.get(info.group, ()), info.name)
    return groups


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
        kind: Its type: bool, int, float, str, a `Literal`, or a kind of part (`AbstractForm`).
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
