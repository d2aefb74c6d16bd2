"""Which chains run on which device, and their draws brought together again.

Chains run in groups of fixed size, each group by itself on one device. The code is then the
same however many devices there are, and so is every bit of the draws: chains amplify the
smallest difference, and code for several devices at once rounds differently.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from twotime.sample.chains import Piece, Settings, State, Trace, draw_block
from twotime.sample.density import Posterior


def meet() -> None:
    """Wait for the other processes, if there are any: connections are made while all are near."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("twotime")


def spread(devices: Sequence[Any] | None, n_posteriors: int, n_chains: int) -> list[Any]:
    """The most devices that divide the groups of chains of all posteriors evenly.

    Raises:
        ValueError: If the processes would not have equally many of them.
    """
    found = list(devices) if devices else [jax.local_devices()[0]]
    n_groups = n_posteriors * n_chains // _group_size(n_chains, found[0].platform)
    used = found[: even_part(len(found), n_groups)]
    if len(used) != jax.process_count() * sum(_is_mine(device) for device in used):
        raise ValueError(
            f"{n_groups} groups of chains cannot be spread evenly over {len(found)} devices of "
            f"{jax.process_count()} processes; expected as many shards as devices, or a multiple, "
            "and devices=jax.devices()."
        )
    return used


def _is_mine(device: Any) -> bool:
    return device.process_index == jax.process_index()


def even_part(n_devices: int, n_groups: int) -> int:
    """The largest number of devices that divides the groups evenly."""
    return max(n for n in range(1, n_devices + 1) if n_groups % n == 0)


def _group_size(n_chains: int, platform: str) -> int:
    """Chains that run in step: few on processors, where the slowest of them sets the pace."""
    return 2 if platform == "cpu" and n_chains % 2 == 0 else 1 if platform == "cpu" else n_chains


class Program:
    """The compiled block with what does not change between calls, placed on the devices.

    Args:
        posteriors: Posteriors stacked along the first axis of their arrays.
        modes: Origin of each one's positions.
        key: Random key.
        settings: How to sample.
        devices: What `spread` gave.
    """

    def __init__(
        self,
        posteriors: Posterior,
        modes: np.ndarray,
        key: PRNGKeyArray,
        settings: Settings,
        devices: list[Any],
    ):
        self._settings = settings
        arrays, self._static = eqx.partition(posteriors, eqx.is_array_like)
        n, c = modes.shape[0], settings.n_chains
        size = _group_size(c, devices[0].platform)
        owners = np.repeat(np.arange(n), c // size)
        self._shape, self._cut = (n, c), (len(owners), size)
        placed = [(u, int(k), devices[u % len(devices)]) for u, k in enumerate(owners)]
        self._mine = [(u, k, device) for u, k, device in placed if _is_mine(device)]
        self._order = [u for p in range(jax.process_count())
                       for u, _, device in placed if device.process_index == p]  # fmt: skip
        fixed = jax.tree.map(np.asarray, (arrays, modes))
        self._fixed = {
            (k, device): jax.device_put(jax.tree.map(lambda x, k=k: x[k], fixed), device)
            for _, k, device in self._mine
        }
        keys = jax.vmap(
            lambda k: jax.vmap(lambda j: jax.random.fold_in(jax.random.fold_in(key, k), j))(
                jnp.arange(c)
            )
        )(jnp.arange(n))
        self._impl = str(jax.random.key_impl(key))
        self._keys = np.asarray(jax.random.key_data(keys))

    def run(self, state: State, done: int, piece: Piece) -> tuple[np.ndarray, np.ndarray, Trace]:
        """Make the draws of a block, `done` draws after the first.

        Returns:
            Positions and states of the dual averaging after it, and the draws.
        """
        facts = np.asarray([done, piece.n_draws, piece.is_warmup], np.int64)
        chains = [
            x.reshape(*self._cut, *x.shape[2:])
            for x in (self._keys, state.position, state.averaging)
        ]
        outs = []
        for u, k, device in self._mine:
            moving = (state.root[k], state.step[k]), tuple(x[u] for x in chains), facts
            by_posterior, by_chain, told = jax.device_put(moving, device)
            outs.append(
                draw_block(
                    self._static,
                    self._settings,
                    self._impl,
                    (self._fixed[k, device], by_posterior),
                    by_chain,
                    told,
                )  # fmt: skip
            )
        whole = jax.tree.map(self._gathered, *outs)
        position, averaging, trace = whole
        return position, averaging, Trace(*(x[:, :, : piece.n_draws] for x in trace))

    def _gathered(self, *parts: Array) -> np.ndarray:
        """Parts of all groups, those of other processes too, by posterior and chain."""
        x = np.stack([np.asarray(part) for part in parts])
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            x = np.asarray(multihost_utils.process_allgather(x)).reshape(-1, *x.shape[1:])
        back = np.argsort(self._order)
        return x[back].reshape(*self._shape, *x.shape[2:])
