"""The measured two-time correlation as a value."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from twotime.models.base import are_known, floating, is_concrete, read_only
from twotime.tables import Table, Tabled

SAME_Q = 1e-6
"""Relative difference of wavevectors that are the same number."""
SAME_TIME = 1e-6
"""Difference of times that are the same [frame]."""

AnyArray = Array | np.ndarray
Index = int | slice | Int[Array, ""]
Corner = tuple[Any, Any] | Array
Sigma = Float[AnyArray, ""] | Float[AnyArray, "angle time time"] | None


def _optional(value: object) -> AnyArray | None:
    return None if value is None else floating(value)


def _span(numbers: np.ndarray) -> str:
    """A few numbers, or the first and the last of many."""
    flat = numbers.ravel()
    if flat.size <= 4:
        return ", ".join(f"{x:.6g}" for x in flat)
    return f"{np.nanmin(flat):.6g} to {np.nanmax(flat):.6g}"


def _flags(value: object) -> AnyArray | None:
    if value is None or isinstance(value, jax.Array):
        return value
    return read_only(np.asarray(value))


class TwoTimeData(Tabled, eqx.Module):
    r"""Two-time correlation $c_2(q, \phi, t_1, t_2)$ and its axes, of one wavevector or several.

    Symmetric in its last two axes. A point of c2 is a pair of frames; only points with t1 < t2
    are ever fitted (see `usable`), so neither the diagonal (shot noise) nor the lower half carries
    information. Arrays are kept as they are: nothing is copied to a device and no precision is
    changed, but integers become floats; those of NumPy cannot be written into through this value.
    Masked points may hold any number, NaN included.

    Attributes:
        c2: Correlation.
        t: Time of each frame [s].
        q: Wavevector, one number or one per matrix [1/Å].
        phi: Detector angle of each matrix [degree].
        mask: True where a point is used; None uses all.
        sigma: Standard deviation of a point, one number or one per point; None if not known.
        baseline: What c2 is by definition where the intensities are uncorrelated: 1, or 0 where
            the numbers are c2 - 1. A fit's offset is near it.
        rings: Ring of each matrix, from 0, where there is a q per matrix. Matrices of one ring
            count as of one wavevector, as bins do whose own mean q differ a little. Left out:
            matrices of equal q. Empty where q is one number.
        weight: How much each matrix counts, relative to the others; None: all alike. Joint fits of
            several rings find it from the noise.

    Raises:
        ValueError: If the shapes do not fit each other, or rings must be given: q is traced.
    """

    c2: Float[AnyArray, "angle time time"] = eqx.field(converter=floating)
    t: Float[AnyArray, " time"] = eqx.field(converter=floating)
    q: Float[AnyArray, ""] | Float[AnyArray, " angle"] = eqx.field(converter=floating)
    phi: Float[AnyArray, " angle"] = eqx.field(converter=floating)
    mask: Bool[AnyArray, "angle time time"] | None = eqx.field(converter=_flags, default=None)
    sigma: Sigma = eqx.field(converter=_optional, default=None)
    baseline: Float[AnyArray, ""] = eqx.field(converter=floating, default=1.0)
    rings: tuple[int, ...] = eqx.field(static=True, default=())
    weight: Float[AnyArray, " angle"] | None = eqx.field(converter=_optional, default=None)

    def __post_init__(self) -> None:
        if np.ndim(self.q) == 0:
            self.rings = ()
        elif not self.rings and is_concrete(self.q):
            self.rings = _equal(np.asarray(self.q))

    def __check_init__(self) -> None:
        shape = self.c2.shape
        if not jnp.issubdtype(self.c2.dtype, jnp.floating):
            raise ValueError(
                f"c2 is of type {self.c2.dtype}; expected real numbers; give the real part, or "
                "np.asarray(c2, float)."
            )
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(
                f"c2 has shape {shape}; expected (angle, time, time); "
                "one matrix needs a leading axis: c2[None]."
            )
        wanted = {"t": (shape[1:2],), "q": ((), shape[:1]), "phi": (shape[:1],)}
        for name, shapes in wanted.items():
            got = getattr(self, name).shape
            if got not in shapes:
                raise ValueError(
                    f"{name} has shape {got}; expected {' or '.join(map(str, shapes))} for c2 of "
                    f"shape {shape}; give one time per frame, one angle per matrix, and one q or "
                    "one per matrix."
                )
        if self.q.ndim and (len(self.rings) != shape[0] or not _is_numbered(self.rings)):
            raise ValueError(
                f"rings is {self.rings} for {shape[0]} matrices with a q each; expected one number "
                "per matrix, counted from 0; give rings=(0, 0, 1, …), or leave it out where q is "
                "not traced."
            )
        if self.mask is not None and (self.mask.shape != shape or self.mask.dtype != bool):
            raise ValueError(
                f"mask is {self.mask.dtype} of shape {self.mask.shape}; expected bool of shape "
                f"{shape}, True where a point is used."
            )
        if self.sigma is not None and self.sigma.shape not in ((), shape):
            got = self.sigma.shape
            raise ValueError(f"sigma has shape {got}; expected one number or shape {shape}.")

    def _shown(self) -> Table | None:
        if not are_known(self) or np.ndim(self.c2) != 3 or not self.phi.size:
            return None
        t, q, phi = (np.asarray(x, float) for x in (self.t, self.ring_q, self.phi))
        sigma = "not given" if self.sigma is None else _span(np.asarray(self.sigma, float))
        rows = (
            ("wavevectors", str(q.size), _span(q), "Å⁻¹"),
            ("angles", str(phi.size), _span(phi), "degree"),
            ("frames", str(t.size), _span(t), "s"),
            ("σ of a point", "", sigma, ""),
            ("masked", "", "nothing" if self.mask is None else self._masked(), ""),
            ("baseline", "", f"{float(self.baseline):g}", ""),
        )
        return Table(f"TwoTimeData: c2 {self.c2.shape}", ("", "number", "values", "unit"), rows)

    def _masked(self) -> str:
        """The part of the points that is not used."""
        return f"{100 * (1 - np.mean(np.asarray(self.mask))):.3g} % of the points"

    @property
    def ring(self) -> tuple[int, ...]:
        """Ring of each matrix, from 0."""
        return self.rings or (0,) * self.phi.shape[0]

    @property
    def ring_q(self) -> Float[np.ndarray, " ring"]:
        """Mean wavevector of each ring, where q is not traced [1/Å]."""
        q, ring = np.broadcast_to(np.asarray(self.q, float), self.phi.shape), np.asarray(self.ring)
        return np.array([q[ring == k].mean() for k in range(max(self.ring) + 1)])

    def place(self, k: Index) -> dict[str, Float[Array, ""]]:
        """Wavevector `q` [1/Å] and angle `phi` [degree] of matrix `k`, as models take them."""
        q = jnp.asarray(self.q)
        return {"q": q[k] if q.ndim else q, "phi": jnp.asarray(self.phi)[k]}

    def relative(self, k: Index) -> Float[AnyArray, "*#matrix"] | float:
        """How much matrix `k` counts, relative to others."""
        if self.weight is None:
            return 1.0
        return self.weight[k] if _is_host(k, self.weight) else jnp.asarray(self.weight)[k]

    def light_level(self, offset: Any) -> Any:
        """The offset that c2 would have with its baseline at 1: the product of mean intensities."""
        return offset + (1.0 - self.baseline)

    def usable(
        self, k: Index, first: Corner = (0, 0), size: int | None = None
    ) -> Bool[AnyArray, "*matrix row column"]:
        """Which points of matrix `k` count: t1 < t2, finite, and not masked.

        Every other module asks this function. Traceable, with a traced `k` and `first`; a NumPy
        array where the data are NumPy arrays and `k` is not a JAX array.

        Args:
            k: Position of the matrix, or a slice of positions (not with a window).
            first: First frames (t1, t2) of a square window.
            size: Edge of the window [frame]; None takes the whole matrix.
        """
        on_host = size is None and _is_host(k, self.c2, self.mask)
        xp: Any = np if on_host else jnp
        # Floating-point numbers, because CPUs compare few 64-bit integers at once.
        frames = xp.arange(size or self.c2.shape[-1], dtype=jnp.result_type(self.t))
        rows, columns = (frames + corner for corner in (first if size else (0, 0)))
        used = (rows[:, None] < columns) & xp.isfinite(window(self.c2, k, first, size))
        return used if self.mask is None else used & window(self.mask, k, first, size)

    def weights(
        self, k: Index, first: Corner = (0, 0), size: int | None = None
    ) -> Float[AnyArray, "*matrix row column"]:
        """Weights of the points of matrix `k`: 0 where not `usable`, else 1 or 1/sigma².

        Times the matrix's `relative` weight.

        Example:
            >>> data = TwoTimeData(np.ones((1, 2, 2)), np.arange(2.0), 0.01, np.zeros(1), sigma=0.5)
            >>> data.weights(0).tolist()
            [[0.0, 4.0], [0.0, 0.0]]
        """
        used = self.usable(k, first, size)
        xp: Any = np if isinstance(used, np.ndarray) and _is_host(self.sigma) else jnp
        dtype = jnp.result_type(self.t)
        relative: Any = self.relative(k)
        if np.ndim(relative):
            relative = relative[:, None, None]
        if self.sigma is None:
            return xp.where(used, xp.ones((), dtype) * relative, 0.0)
        sigma = window(self.sigma, k, first, size) if self.sigma.ndim else self.sigma
        return xp.where(used, relative / xp.where(used, sigma, 1.0).astype(dtype) ** 2, 0.0)

    def weights_at(
        self, k: Index, early: Int[Array, "*point"], late: Int[Array, "*point"]
    ) -> Float[Array, "*point"]:
        """Weights of single points of matrix `k`, by their frames, early < late; see `weights`."""
        return self._weights_by(k, lambda x: jnp.asarray(x)[k, early, late], early < late)

    def stripes(
        self, k: Index, frames: Int[Array, " row"]
    ) -> tuple[Float[Array, "row time"], Float[Array, "row time"]]:
        """c2 of matrix `k` between some frames and all, and its weights; see `weights_at`."""
        others = jnp.arange(self.c2.shape[-1])
        is_row = frames[:, None] <= others

        def read(x: AnyArray) -> Array:
            plane = jnp.asarray(x)[k]
            return jnp.where(is_row, plane[frames], plane[:, frames].T)

        weight = self._weights_by(k, read, frames[:, None] != others)
        return jnp.where(weight > 0, read(self.c2), 0.0).astype(weight.dtype), weight

    def _weights_by(
        self, k: Index, read: Callable[[AnyArray], Array], apart: Array
    ) -> Float[Array, "*point"]:
        """The rule of `usable` and `weights` for points that `read` takes from an array."""
        used = apart & jnp.isfinite(read(self.c2))
        if self.mask is not None:
            used = used & read(self.mask)
        sigma = jnp.ones(()) if self.sigma is None else jnp.asarray(self.sigma)
        sigma = jnp.where(used, read(sigma) if sigma.ndim else sigma, 1.0)
        return jnp.where(used, self.relative(k) / sigma.astype(self.t.dtype) ** 2, 0.0)

    def is_complete(self) -> bool:
        """Whether all points with t1 < t2 count; traced c2 counts as finite, traced mask not."""
        if isinstance(self.mask, jax.core.Tracer):
            return False
        is_known = not isinstance(self.c2, jax.core.Tracer)
        c2 = np.asarray(self.c2) if is_known else np.broadcast_to(0.0, self.c2.shape)
        mask = None if self.mask is None else np.asarray(self.mask)
        zeros = np.zeros(c2.shape[1]), np.zeros(()), np.zeros(c2.shape[0])
        known = TwoTimeData(c2, *zeros, mask)
        count = c2.shape[1] * (c2.shape[1] - 1) // 2
        return all(np.count_nonzero(known.usable(k)) == count for k in range(c2.shape[0]))


def on_device(data: TwoTimeData) -> TwoTimeData:
    """The data in arrays of JAX, which share the memory of NumPy's where their addresses allow."""
    put = partial(jax.device_put, may_alias=True)
    return jax.tree.map(lambda x: put(x) if isinstance(x, np.ndarray) else x, data)


def window(planes: AnyArray, k: Index, first: Corner, size: int | None) -> AnyArray:
    """Cut matrix `k`, or a square window of it, out of arrays (angle, time, time)."""
    if size is None:
        return planes[k] if _is_host(k, planes) else jnp.asarray(planes)[k]
    corner: Any = k, first[0], first[1]
    return jax.lax.dynamic_slice(planes, corner, (1, size, size))[0]


def select(data: TwoTimeData, chosen: Sequence[int]) -> TwoTimeData:
    """The data of some matrices, in this order; q is one number where it is the same for all."""
    index = np.asarray(chosen, int)
    if not data.q.ndim and np.array_equal(index, np.arange(data.phi.shape[0])):
        return data  # no copy of all

    def cut(x: AnyArray | None) -> AnyArray | None:
        return x if x is None or not x.ndim else x[index]

    names = ("c2", "phi", "mask", "sigma", "q", "weight")
    parts: dict[str, Any] = {name: cut(getattr(data, name)) for name in names}
    if parts["q"].ndim:
        parts["q"], parts["rings"] = one_if_same(parts["q"], [data.ring[k] for k in chosen])
    return dataclasses.replace(data, **parts)


def unstack(values: Any) -> list[Any]:
    """The values that are stacked along the first axis of all arrays of one: of fits or data.

    `vmap` makes such values, and `jax.tree.map(lambda *x: jnp.stack(x), one, other)`, which this
    undoes.

    Raises:
        ValueError: If the first axes of the arrays differ, or there is none.
    """
    sizes = {x.shape[:1] for x in jax.tree.leaves(values)}
    if len(sizes) != 1 or () in sizes:
        raise ValueError(
            f"unstack got arrays with first axes {sorted(sizes)}; expected the same for all; give "
            "what vmap returned, or values stacked by jax.tree.map."
        )
    return [jax.tree.map(lambda x, i=i: x[i], values) for i in range(*sizes.pop())]


def join(*data: TwoTimeData) -> TwoTimeData:
    """Matrices of several values in one, of several wavevectors or measured again.

    Rings whose mean wavevectors agree (to 1e-6) become one.

    Args:
        data: Data with the same frame times and baseline.

    Raises:
        ValueError: If there are none, or their times, baselines or kinds of sigma differ.
    """
    if not data or not all(isinstance(x, TwoTimeData) for x in data):
        got = ", ".join(type(x).__name__ for x in data) or "nothing"
        raise ValueError(f"join got {got}; expected values of TwoTimeData: join(one, another).")
    first = data[0]
    for k, other in enumerate(data[1:], start=2):
        check_alike("join", first, other, k)
    masks: list[Any] = [x.mask for x in data]
    if any(mask is not None for mask in masks):
        masks = [np.ones(x.c2.shape, bool) if x.mask is None else x.mask for x in data]
    sigmas: list[Any] = [x.sigma for x in data]
    is_one = first.sigma is None or (
        all(s.ndim == 0 and is_concrete(s) for s in sigmas) and len(set(map(float, sigmas))) == 1
    )
    if not is_one:
        sigmas = [_xp(s).broadcast_to(s, x.c2.shape) for s, x in zip(sigmas, data, strict=True)]
    if any(x.weight is not None for x in data):
        raise ValueError(
            "join got data with weights, which are relative to each other; expected none; give "
            "dataclasses.replace(joined, weight=...) those of all matrices."
        )
    q = _joined([_xp(x.q).broadcast_to(x.q, x.phi.shape) for x in data])
    q, rings = one_if_same(q, _joint_rings(data))
    return TwoTimeData(
        c2=_joined([x.c2 for x in data]),
        t=first.t,
        q=q,
        phi=_joined([x.phi for x in data]),
        mask=None if masks[0] is None else _joined(masks),
        sigma=first.sigma if is_one else _joined(sigmas),
        baseline=first.baseline,
        rings=rings,
    )


def check_alike(verb: str, first: TwoTimeData, other: TwoTimeData, k: int) -> None:
    """Refuse data of other times, baseline or kind of sigma than the first; `verb` is for words."""
    if first.t.shape != other.t.shape:
        raise ValueError(
            f"{verb} got {first.t.shape[0]} frames in its first data and {other.t.shape[0]} in "
            f"number {k}; expected the same times; select the same frames of both."
        )
    if (first.sigma is None) != (other.sigma is None):
        raise ValueError(f"{verb} got sigma for some data, but not for all (number {k}); give all.")
    if not is_concrete(first.t, other.t, first.baseline, other.baseline):
        return
    t, also = np.asarray(first.t, float), np.asarray(other.t, float)
    if np.max(np.abs(t - also)) > SAME_TIME * np.min(np.abs(np.diff(t)), initial=np.inf):
        raise ValueError(
            f"{verb} got times from {t[0]:g} to {t[-1]:g} s and, in number {k}, from {also[0]:g} "
            f"to {also[-1]:g} s; expected the same times; select the same frames, or set t0 for "
            "both."
        )
    if first.baseline != other.baseline:
        raise ValueError(
            f"{verb} got baseline {first.baseline:g} and, in number {k}, {other.baseline:g}; "
            "expected the same; add the difference to c2 of one."
        )


def _joint_rings(data: tuple[TwoTimeData, ...]) -> list[int]:
    """Ring of each matrix of several values, those of equal mean wavevector together."""
    seen: list[float] = []
    found: list[int] = []
    for x in data:
        here = []
        for q in x.ring_q:
            same = [k for k, other in enumerate(seen) if abs(q - other) <= SAME_Q * abs(q)]
            here.append(same[0] if same else len(seen))
            seen += [] if same else [q]
        found += [here[k] for k in x.ring]
    return found


def one_if_same(q: AnyArray, rings: Sequence[int]) -> tuple[AnyArray, tuple[int, ...]]:
    """One wavevector where all are equal, else one for each matrix with its ring, from 0."""
    if is_concrete(q) and np.all(np.asarray(q) == np.asarray(q)[0]):
        return _xp(q).asarray(q[0]), ()
    order = list(dict.fromkeys(rings))
    return q, tuple(order.index(k) for k in rings)


def _joined(parts: Sequence[AnyArray]) -> AnyArray:
    return parts[0] if len(parts) == 1 else _xp(*parts).concatenate(parts)


def _xp(*values: object) -> Any:
    """NumPy for arrays of NumPy, else that of JAX."""
    return np if _is_host(*values) else jnp


def _equal(q: Float[np.ndarray, " angle"]) -> tuple[int, ...]:
    """Matrices of equal wavevector, numbered in the order in which they come."""
    seen: dict[float, int] = {}
    return tuple(seen.setdefault(value, len(seen)) for value in q.tolist())


def _is_numbered(rings: tuple[int, ...]) -> bool:
    return set(rings) == set(range(len(set(rings))))


def _is_host(*values: object) -> bool:
    return not any(isinstance(value, jax.Array) for value in values)
