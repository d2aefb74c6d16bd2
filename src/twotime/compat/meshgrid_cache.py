"""A small cache of time grids, for programs that ask for the same grid again and again.

Nothing in this package needs it: models and the functional backend work on the times
themselves. It serves callers of `twotime.compat.jax_backend` who pass grids.
"""

import threading
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Grid = tuple[Float[Array, "first second"], Float[Array, "first second"]]
Given = Float[Array | np.ndarray, "..."]

MAX_ENTRIES = 16
MAX_TIMES = 2000


class MeshgridCache:
    """Least-recently-used cache of `jnp.meshgrid(t1, t2, indexing="ij")`.

    The key is the whole content of both arrays with type and place, so that two grids that
    share their ends and length never meet. One lock guards entries and counters.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grids: OrderedDict[tuple, Grid] = OrderedDict()
        self._counts = dict.fromkeys(
            ("hits", "misses", "evictions", "skipped_large", "skipped_traced"), 0
        )

    def get(self, t1: Array, t2: Array) -> Grid:
        """The grid of two time arrays, from the cache where it is there."""
        reason = _reason_to_skip(t1, t2)
        if reason:
            with self._lock:
                self._counts[reason] += 1
            return _grid(t1, t2)
        key = (_key(t1), _key(t2))
        with self._lock:
            if key in self._grids:
                self._counts["hits"] += 1
                self._grids.move_to_end(key)
                return self._grids[key]
            self._counts["misses"] += 1
            self._grids[key] = _grid(t1, t2)
            if len(self._grids) > MAX_ENTRIES:
                self._grids.popitem(last=False)
                self._counts["evictions"] += 1
            return self._grids[key]

    def clear(self) -> None:
        """Drop all grids; the counters go on."""
        with self._lock:
            self._grids.clear()

    def stats(self) -> dict[str, int | float]:
        """Counters, hit rate and number of grids at this moment."""
        with self._lock:
            lookups = self._counts["hits"] + self._counts["misses"]
            return {
                **self._counts,
                "hit_rate": self._counts["hits"] / lookups if lookups else 0.0,
                "cache_size": len(self._grids),
            }


def _reason_to_skip(t1: Array, t2: Array) -> str | None:
    if isinstance(t1, jax.core.Tracer) or isinstance(t2, jax.core.Tracer):
        return "skipped_traced"
    return "skipped_large" if max(t1.size, t2.size) > MAX_TIMES else None


def _grid(t1: Array, t2: Array) -> Grid:
    first, second = jnp.meshgrid(t1, t2, indexing="ij")
    return first, second


def _key(t: Array) -> tuple:
    content = np.asarray(t)
    return content.dtype.str, content.tobytes(), t.sharding


_CACHE = MeshgridCache()


def get_cached_meshgrid(t1: Given, t2: Given) -> Grid:
    """Get or create the cached grid of two time arrays.

    Args:
        t1: First times [s].
        t2: Second times [s].

    Returns:
        t1 and t2 on the grid, `indexing="ij"`. Arrays that are grids already come back as
        they are. Traced arrays and arrays of more than 2000 times are gridded afresh and
        not kept.

    Raises:
        ValueError: If one array is a grid and the other is not.
    """
    t1, t2 = jnp.asarray(t1), jnp.asarray(t2)
    if t1.ndim == 2 and t2.ndim == 2:
        return t1, t2
    if t1.ndim != 1 or t2.ndim != 1:
        raise ValueError(
            f"t1 and t2 have {t1.ndim} and {t2.ndim} axes; expected 1 and 1 (times) or 2 and 2 "
            "(grids); pass both as times."
        )
    return _CACHE.get(t1, t2)


def clear_meshgrid_cache() -> None:
    """Drop all cached grids, for example when switching between datasets.

    The counters of `get_cache_stats` go on.
    """
    _CACHE.clear()


def get_cache_stats() -> dict[str, int | float]:
    """Statistics of the grid cache.

    Returns:
        hits: Number of cache hits.
        misses: Number of cache misses.
        evictions: Number of grids dropped to make room (least recently used first).
        skipped_large: Arrays too large for caching.
        skipped_traced: Skipped due to JIT tracing.
        hit_rate: hits / (hits + misses); 0 before the first lookup.
        cache_size: Current number of cached grids.
    """
    return _CACHE.stats()
