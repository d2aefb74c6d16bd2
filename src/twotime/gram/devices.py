"""Sums over several devices and processes.

The Gram matrix of every angle is a sum of its own, so devices take angles in equal shares, and
tiles where there are fewer angles than devices. What they pass on are the small matrices; all
that follows is done by every device alike, so a fit is the same program on one and on many.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from twotime.data.dataset import TwoTimeData

_AXIS = "device"
_SHARE, _WHOLE = PartitionSpec(_AXIS), PartitionSpec()


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
    leaves = jax.tree.leaves((data, others))
    if mesh is None or any(isinstance(x, jax.core.Tracer) for x in leaves):
        return data, others
    even = data.phi.shape[0] % mesh.size == 0
    planes, rest = eqx.partition(data, has_angles(data))
    planes = _put(NamedSharding(mesh, _SHARE if even else _WHOLE), planes)
    rest, others = _put(NamedSharding(mesh, _WHOLE), (rest, others))
    return eqx.combine(planes, rest), others


def _put(sharding: NamedSharding, tree: Any) -> Any:
    def one(x: Any) -> Any:
        if not eqx.is_array(x) and not isinstance(x, np.ndarray):
            return x
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)


def fetch(mesh: Mesh | None, result: Any) -> Any:
    """Bring a result on a mesh to the default device of every process."""
    leaves = jax.tree.leaves(result)
    if mesh is None or any(isinstance(x, jax.core.Tracer) for x in leaves):
        return result
    whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, _WHOLE))(result)
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), whole)


def has_angles(data: TwoTimeData) -> TwoTimeData:
    """Which arrays of the data have an angle as their first axis."""
    none = jax.tree.map(lambda _: False, data)
    told = [data.c2, data.phi, data.mask, data.sigma]
    return eqx.tree_at(
        lambda d: [d.c2, d.phi, d.mask, d.sigma],
        none,
        [x is not None and np.ndim(x) > 0 for x in told],
        is_leaf=lambda x: x is None,
    )


def over_angles(
    mesh: Mesh,
    grams: Callable[[Any, TwoTimeData, Any], Array],
    shared: Any,
    data: TwoTimeData,
    prepared: Any,
) -> Array:
    """`grams(shared, data, prepared)` with the angles of the last two shared among devices.

    Where they cannot be shared evenly the last angle is repeated; the repeats are left out.
    """
    n = data.phi.shape[0]
    planes, rest = eqx.partition(data, has_angles(data))
    planes = jax.tree.map(lambda x: _filled(jnp.asarray(x), -n % mesh.size), (planes, prepared))

    def share(mine: tuple[TwoTimeData, Any], arrays: Any) -> Array:
        whole, of_all = eqx.combine(arrays, static)
        return grams(whole, eqx.combine(mine[0], of_all), mine[1])

    arrays, static = eqx.partition((shared, rest), eqx.is_array)
    found = _mapped(mesh, share, (_SHARE, _WHOLE))(planes, arrays)
    return _held_by_all(mesh, found)[:n]


def over_tiles(
    mesh: Mesh,
    grams: Callable[[Any, Int[Array, "tile 2"]], Array],
    shared: Any,
    corners: Int[Array, "tile 2"],
    outside: int,
) -> Array:
    """The sum of `grams(shared, corners)` with the corners of tiles shared among devices.

    Where they cannot be shared evenly, tiles that begin at frame `outside`, where there is
    nothing, make up for it.
    """
    fill = jnp.full((-corners.shape[0] % mesh.size, 2), outside, corners.dtype)

    def share(mine: Array, arrays: Any) -> Array:
        return grams(eqx.combine(arrays, static), mine)[None]

    arrays, static = eqx.partition(shared, eqx.is_array)
    found = _mapped(mesh, share, (_SHARE, _WHOLE))(jnp.concatenate([corners, fill]), arrays)
    return _held_by_all(mesh, found).sum(axis=0)


def _mapped(mesh: Mesh, function: Callable[..., Array], taken: Any) -> Callable[..., Array]:
    # The check of replication does not know loops whose carries begin alike on all devices.
    return jax.shard_map(
        function, mesh=mesh, in_specs=taken, out_specs=_SHARE, check_vma=False
    )  # fmt: skip


def _held_by_all(mesh: Mesh, x: Array) -> Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, _WHOLE))


def _filled(x: Array, count: int) -> Array:
    return jnp.concatenate([x, jnp.repeat(x[-1:], count, axis=0)]) if count else x
