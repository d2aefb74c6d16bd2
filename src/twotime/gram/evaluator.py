"""What computes Gram matrices, and how devices share the work.

The matrix of every angle is a sum of its own, so devices take angles in equal shares. What they
pass on are the small matrices; all that follows is done by every device alike, so a fit is the
same program on one and on many.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from twotime.data.dataset import TwoTimeData, on_device
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import Scalar

TILE = 128
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
    def prepare(self, data: TwoTimeData, shift: Scalar) -> Any:
        """Compute what depends on the data alone, less a shift, once for all evaluations."""

    def gram(
        self,
        model: AbstractTwoTimeModel,
        data: TwoTimeData,
        params: Float[Array, " param"],
        free: tuple[bool, ...],
        shift: Scalar,
        prepared: Any,
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

        return share_out(mesh, share, parts, (model, params, shift, others))[:n]


def all_devices() -> list[Any]:
    """All devices of the kind that is computed on, of all processes."""
    chosen = jax.config.values["jax_default_device"]
    return jax.devices() if chosen is None else jax.devices(chosen.platform)


def device_mesh(devices: Sequence[Any] | None) -> Mesh | None:
    """The mesh over devices; None, for JAX's default device, stays None."""
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


def _check_manual_axes(mesh: Mesh | None, tree: Any) -> None:
    """Refuse what a fit cannot do inside `jax.shard_map`.

    Raises:
        ValueError: If devices are given there, or JAX checks which values vary over the mesh.
    """
    if AxisType.Manual not in jax.sharding.get_abstract_mesh().axis_types:
        return
    if mesh is not None:
        raise ValueError("devices were given inside jax.shard_map, which places a fit; leave out.")
    kinds = (jax.typeof(x).manual_axis_type for x in jax.tree.leaves(tree) if _is_traced(x))
    if any(kind.varying for kind in kinds):
        raise ValueError(
            "A fit inside jax.shard_map needs check_vma=False: its loops begin with values that "
            "are the same on all devices."
        )


@contextmanager
def meshes_in_words() -> Iterator[None]:
    """Say in a sentence what the types of explicit meshes do not allow.

    Raises:
        ValueError: Instead of an error about types of shardings.
    """
    try:
        yield
    except Exception as exc:
        is_sharding = type(exc).__name__ == "ShardingTypeError"  # JAX has no public name for it
        if not is_sharding and "Resource axis" not in str(exc):
            raise
        raise ValueError(
            "Fits cannot be batched along an explicit axis of a mesh: make the mesh with "
            "axis_types=(jax.sharding.AxisType.Auto,), or fit inside "
            "jax.shard_map(..., check_vma=False)."
        ) from exc


def place(mesh: Mesh | None, data: TwoTimeData, others: Any) -> tuple[TwoTimeData, Any]:
    """Put the data of a fit, and what every device needs whole, on the devices of a mesh.

    Devices hold their share of the angles where these can be shared evenly, else all; every
    process passes the same values. Traced values stay where they are.

    Raises:
        ValueError: If a fit cannot run where these values are.
    """
    _check_manual_axes(mesh, (data, others))
    if _is_traced((data, others)):
        return data, others
    if mesh is None:
        return on_device(data), others

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
    """Which arrays of the data have the matrices as their first axis."""

    def arrays(d: TwoTimeData) -> list[Any]:
        return [d.c2, d.q, d.phi, d.mask, d.sigma, d.weight]

    none = jax.tree.map(lambda _: False, data)
    shared = [x is not None and np.ndim(x) > 0 for x in arrays(data)]
    return eqx.tree_at(arrays, none, shared, is_leaf=lambda x: x is None)


def share_out(mesh: Mesh, function: Callable[..., Array], parts: Any, whole: Any) -> Array:
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
