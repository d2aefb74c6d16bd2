"""Gram matrices: the one reduction under fits, posteriors and error bars.

For a pair of frames t1 < t2 let b = [data, 1, model, ∂model/∂θ_1 … ∂model/∂θ_P]. The Gram matrix
Σ w b bᵀ of an angle holds χ², its gradient and the Gauss-Newton matrix for any contrast and
offset. Two evaluators compute it: `Tiled` for any model and data, `Separable` for models that are
sums of products. The matrix of every angle is a sum of its own, so devices take angles in equal
shares, and tiles where there are fewer angles than devices. What they pass on are the small
matrices; all that follows is done by every device alike, so a fit is the same program on one and
on many.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from twotime.data.dataset import TwoTimeData
from twotime.gram.pairs import tile_corners
from twotime.gram.separable import SeparableData, separable_data, separable_gram
from twotime.gram.tiled import TILE, TiledData, tiled_data, tiled_gram
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import Scalar

Prepared = TiledData | SeparableData
_AXIS = "device"
_SHARE, _WHOLE = PartitionSpec(_AXIS), PartitionSpec()


class AbstractEvaluator(eqx.Module):
    """A way to compute Gram matrices.

    Attributes:
        tile: Largest edge of a tile [frame].
    """

    word: ClassVar[str]
    tile: int = eqx.field(static=True, default=TILE)

    @abc.abstractmethod
    def prepare(self, data: TwoTimeData, shift: Scalar) -> Prepared:
        """Compute what depends on the data alone, once for all evaluations.

        Args:
            data: The data.
            shift: Subtracted from the data, to keep digits.
        """

    def gram(
        self,
        model: AbstractTwoTimeModel,
        data: TwoTimeData,
        params: Float[Array, " param"],
        free: tuple[bool, ...],
        shift: Scalar,
        prepared: Prepared,
        *,
        with_normal: bool = True,
        mesh: Mesh | None = None,
    ) -> Float[Array, "angle row basis"]:
        """Gram matrix of each angle.

        Args:
            model: The model.
            data: The data.
            params: All parameters in the order of `model.names`.
            free: Which parameters are differentiated.
            shift: Subtracted from the data, to keep digits.
            prepared: What `prepare` returned for the same data and shift.
            with_normal: Whether products of derivatives are wanted.
            mesh: Devices that share the angles, or the tiles where there are fewer angles than
                devices (a separable model of one angle stays on one); None for one device.

        Returns:
            Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma², on
            every device; the rows of data, 1 and model alone if not `with_normal`.
        """
        at = model, data, params, free, shift, prepared, with_normal
        return self._on_one(*at) if mesh is None else self._on_mesh(mesh, *at)

    @abc.abstractmethod
    def _on_one(self, model, data, params, free, shift, prepared, with_normal) -> Array:
        """The same on one device."""

    def _on_mesh(self, mesh, model, data, params, free, shift, prepared, with_normal) -> Array:
        """The same with the angles shared among devices; the last is repeated to fill up."""
        n = data.phi.shape[0]
        index = np.minimum(np.arange(n + -n % mesh.size), n - 1)
        planes, others = eqx.partition(data, _has_angles(data))
        parts = jax.tree.map(jnp.asarray, (planes, prepared))
        if index.size > n:
            parts = jax.tree.map(lambda x: x[index], parts)

        def share(parts: Any, whole: Any) -> Array:
            (planes, prepared), (model, params, shift, others) = parts, whole
            data = eqx.combine(planes, others)
            return self._on_one(model, data, params, free, shift, prepared, with_normal)

        return _share_out(mesh, share, parts, (model, params, shift, others))[:n]


class Tiled(AbstractEvaluator):
    """Any model, mask and sigma: sums tile by tile."""

    word: ClassVar[str] = "tiled"

    def prepare(self, data: TwoTimeData, shift: Scalar) -> TiledData:
        return tiled_data(data, shift, self.tile)

    def _on_one(self, model, data, params, free, shift, prepared, with_normal) -> Array:
        corners = tile_corners(data.c2.shape[-1], self.tile)
        settings = params, free, shift, prepared, corners, self.tile
        return tiled_gram(model, data, *settings, with_normal=with_normal)

    def _on_mesh(self, mesh, model, data, params, free, shift, prepared, with_normal) -> Array:
        at = model, data, params, free, shift, prepared
        if data.phi.shape[0] >= mesh.size:
            return super()._on_mesh(mesh, *at, with_normal)
        n = data.c2.shape[-1]
        corners = tile_corners(n, self.tile)
        # Tiles behind the last frame, where there is nothing, make the shares equal.
        fill = jnp.full((-corners.shape[0] % mesh.size, 2), n, corners.dtype)

        def share(corners: Array, whole: Any) -> Array:
            model, data, params, shift, prepared = whole
            # What is summed at nodes and of the data alone counts once, with the first tile.
            is_first = jnp.any(jnp.all(corners == 0, axis=1))
            prepared = jax.tree.map(lambda x: jnp.where(is_first, x, 0.0), prepared)
            settings = params, free, shift, prepared, corners, self.tile
            return tiled_gram(model, data, *settings, with_normal=with_normal)[None]

        corners = jnp.concatenate([corners, fill])
        return _share_out(mesh, share, corners, (model, data, params, shift, prepared)).sum(axis=0)


class Separable(AbstractEvaluator):
    """Models that are sums of products, on data whose points all count alike."""

    word: ClassVar[str] = "factored"

    def prepare(self, data: TwoTimeData, shift: Scalar) -> SeparableData:
        return separable_data(data, shift, self.tile)

    def _on_one(self, model, data, params, free, shift, prepared, with_normal) -> Array:
        del shift
        settings = params, free, prepared, self.tile
        return separable_gram(model, data, *settings, with_normal=with_normal)


Evaluator = Tiled | Separable


def choose_evaluator(
    model: AbstractTwoTimeModel, data: TwoTimeData, asked: str | Evaluator, tile: int = TILE
) -> tuple[TwoTimeData, Evaluator]:
    """Turn a word into an evaluator, and drop a mask that hides nothing above the diagonal.

    `Separable` takes separable models where all points with t1 < t2 are finite and count alike. Of
    traced data without a mask it is assumed that they are finite.

    Args:
        model: The model.
        data: The data.
        asked: "auto", "tiled" (any model, mask and sigma), "factored" or "separable"; or an
            evaluator.
        tile: Largest edge of a tile [frame], where a word is given.

    Returns:
        The data to evaluate on, and the evaluator.

    Raises:
        ValueError: If the evaluator is unknown or cannot take this model or these data.
    """
    words = ("auto", "tiled", "factored", "separable")
    if not isinstance(asked, AbstractEvaluator) and asked not in words:
        raise ValueError(f"evaluator is {asked!r}; expected one of {', '.join(words)}.")
    if asked == "tiled" or isinstance(asked, Tiled):
        return data, asked if isinstance(asked, Tiled) else Tiled(tile)
    obstacle = _obstacle(model, data)
    if obstacle and asked == "auto":
        return data, Tiled(tile)
    if obstacle:
        raise ValueError(
            f"The factored evaluator cannot be used: {obstacle}; use 'auto' or 'tiled'."
        )
    found = asked if isinstance(asked, Separable) else Separable(tile)
    return dataclasses.replace(data, mask=None), found


def _obstacle(model: AbstractTwoTimeModel, data: TwoTimeData) -> str:
    if not model.is_separable:
        return f"{type(model).__name__} is not a sum of products of functions of one time"
    if data.sigma is not None and np.ndim(data.sigma) > 0:
        return "sigma differs from point to point"
    return "" if data.is_complete() else "some points are masked or not finite"


def all_devices() -> list[Any]:
    """All devices of the kind that is computed on, of all processes."""
    chosen = jax.config.values["jax_default_device"]
    return jax.devices() if chosen is None else jax.devices(chosen.platform)


def device_mesh(devices: Sequence[Any] | None) -> Mesh | None:
    """The mesh over devices, or None for JAX's default device.

    Args:
        devices: Devices, `jax.devices()` or some of them; with several processes each must own
            some.

    Raises:
        ValueError: If there is none, one twice, or none of this process.
    """
    if devices is None:
        return None
    if not devices or len(set(devices)) < len(devices):
        raise ValueError(
            f"devices is {list(devices)}; expected at least one, and none twice; give "
            "jax.devices(), or None for the default device."
        )
    if all(device.process_index != jax.process_index() for device in devices):
        raise ValueError(
            f"None of the devices {list(devices)} belongs to process {jax.process_index()}, which "
            "takes part in the fit; give jax.devices()."
        )
    return Mesh(np.asarray(devices), (_AXIS,), axis_types=(AxisType.Auto,))


def place(mesh: Mesh | None, data: TwoTimeData, others: Any) -> tuple[TwoTimeData, Any]:
    """Put the inputs of a fit on the devices of a mesh.

    Devices hold their share of the angles where these can be shared evenly, else all; every
    process passes the same values. Traced values stay where they are.

    Args:
        mesh: The mesh, or None to leave all as it is.
        data: The data.
        others: What every device needs whole.

    Returns:
        The data and the others.
    """
    if mesh is None or _is_traced((data, others)):
        return data, others

    def put(spec: PartitionSpec, tree: Any) -> Any:
        def one(x: Any) -> Any:
            if not eqx.is_array(x) and not isinstance(x, np.ndarray):
                return x
            x = np.asarray(x)
            sharding = NamedSharding(mesh, spec)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        return jax.tree.map(one, tree)

    even = data.phi.shape[0] % mesh.size == 0
    planes, rest = eqx.partition(data, _has_angles(data))
    rest, others = put(_WHOLE, (rest, others))
    return eqx.combine(put(_SHARE if even else _WHOLE, planes), rest), others


def fetch(mesh: Mesh | None, result: Any) -> Any:
    """Bring a result on a mesh to the default device of every process."""
    if mesh is None or _is_traced(result):
        return result
    whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, _WHOLE))(result)
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), whole)


def _is_traced(tree: Any) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def _has_angles(data: TwoTimeData) -> TwoTimeData:
    """Which arrays of the data have an angle as their first axis."""

    def arrays(d: TwoTimeData) -> list[Any]:
        return [d.c2, d.phi, d.mask, d.sigma]

    none = jax.tree.map(lambda _: False, data)
    shared = [x is not None and np.ndim(x) > 0 for x in arrays(data)]
    return eqx.tree_at(arrays, none, shared, is_leaf=lambda x: x is None)


def _share_out(
    mesh: Mesh, function: Callable[[Any, Any], Array], parts: Any, whole: Any
) -> Float[Array, "..."]:
    """`function(parts, whole)` with the first axis of the parts shared among devices.

    The results are joined along their first axis, on every device.
    """
    arrays, static = eqx.partition(whole, eqx.is_array)
    # The check of replication does not know loops whose carries begin alike on all devices.
    mapped = jax.shard_map(
        lambda parts, arrays: function(parts, eqx.combine(arrays, static)),
        mesh=mesh, in_specs=(_SHARE, _WHOLE), out_specs=_SHARE, check_vma=False,
    )  # fmt: skip
    return jax.lax.with_sharding_constraint(mapped(parts, arrays), NamedSharding(mesh, _WHOLE))
