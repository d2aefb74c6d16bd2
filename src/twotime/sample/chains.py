"""NUTS and HMC, the compiled block of draws of a few chains, and its adaptation between blocks.

Positions are y with v = root y + mode in the coordinates of the posterior, so that its shape is
nearly round. Random numbers depend on posterior, chain and draw alone. Every device runs the same
program on one group of chains, so that devices do not change a bit of the draws: chains amplify
the smallest difference.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from twotime.models.rates import AnyArray
from twotime.sample.density import Density

Fact = Float[np.ndarray, "posterior chain draw"]

LogDensity = Callable[[Array], Array]
Transition = tuple[Any, Any, Any]
BLOCK = 25
"""Draws between two looks of the host."""


def check_counts(value: Any, **least: int) -> None:
    """Refuse fields of a value that are below their least, where it has them.

    Raises:
        ValueError: If one is.
    """
    for name, low in least.items():
        if getattr(value, name, low) < low:
            raise ValueError(f"{name} is {getattr(value, name)}; expected at least {low}.")


@dataclass(frozen=True, kw_only=True)
class AbstractSampler(ABC):
    """How chains are run.

    Attributes:
        n_chains: Chains of each shard.
        n_warmup: Warm-up draws of each chain, which are not kept.
        n_samples: Kept draws of each chain.
        target_accept: Acceptance that the step is adapted to.
        step_size: First step of the integrator [standard deviation].
        adapt_step: Whether the step is adapted in the warm-up.
        adapt_shape: Whether the shape of the posterior is measured again in the warm-up.
        jitter: Spread of the chains' starts about the mode [standard deviation].
    """

    n_chains: int = 4
    n_warmup: int = 500
    n_samples: int = 1000
    target_accept: float = 0.9
    step_size: float = 0.5
    adapt_step: bool = True
    adapt_shape: bool = True
    jitter: float = 1.0
    word: ClassVar[str]

    def __post_init__(self) -> None:
        check_counts(self, n_chains=1, n_warmup=10, n_samples=10, max_tree_depth=1, n_leapfrog=1)
        if not 0 < self.target_accept < 1:
            raise ValueError(
                f"target_accept is {self.target_accept}; expected between 0 and 1, such as 0.9."
            )
        if not self.step_size > 0 or not self.jitter >= 0:
            raise ValueError(
                f"step_size is {self.step_size} and jitter {self.jitter}; expected a positive step "
                "and a jitter that is not negative."
            )

    @property
    def compiled(self) -> "AbstractSampler":
        """The sampler with the fields that all samplers have at their defaults."""
        shared = {field.name for field in fields(AbstractSampler)}
        own = {field.name for field in fields(self)} - shared
        return type(self)(**{name: getattr(self, name) for name in own})

    @abstractmethod
    def draw(self, key: PRNGKeyArray, state: Any, density: LogDensity, step: Array) -> Transition:
        """Make a draw from BlackJAX's state of a chain.

        Returns:
            The next state, BlackJAX's facts about the trajectory, and its doublings.
        """


@dataclass(frozen=True, kw_only=True)
class Nuts(AbstractSampler):
    """The no-U-turn sampler: trajectories as long as the posterior asks for.

    Attributes:
        max_tree_depth: Doublings of a trajectory at most.

    Reference:
        Hoffman & Gelman, J. Mach. Learn. Res. 15, 1593 (2014).
    """

    max_tree_depth: int = 10
    word = "nuts"

    def draw(self, key: PRNGKeyArray, state: Any, density: LogDensity, step: Array) -> Transition:
        from blackjax.mcmc import nuts

        metric = jnp.ones_like(state.position)
        state, info = nuts.build_kernel()(key, state, density, step, metric, self.max_tree_depth)
        return state, info, info.num_trajectory_expansions


@dataclass(frozen=True, kw_only=True)
class Hmc(AbstractSampler):
    """Hamiltonian Monte Carlo with trajectories of a fixed number of steps.

    The length of the steps varies at random: equal trajectories can resonate with the shape.

    Attributes:
        n_leapfrog: Steps of a trajectory.
    """

    n_leapfrog: int = 10
    word = "hmc"
    spread: ClassVar[tuple[float, float]] = (0.6, 1.4)

    def draw(self, key: PRNGKeyArray, state: Any, density: LogDensity, step: Array) -> Transition:
        from blackjax.mcmc import hmc

        key, spread_key = jax.random.split(key)
        step = step * jax.random.uniform(spread_key, (), step.dtype, *self.spread)
        metric = jnp.ones_like(state.position)
        state, info = hmc.build_kernel()(key, state, density, step, metric, self.n_leapfrog)
        return state, info, 0


SAMPLERS: dict[str, type[AbstractSampler]] = {cls.word: cls for cls in (Nuts, Hmc)}


class Trace(NamedTuple):
    """Draws and facts about them; axes (posterior, chain, draw)."""

    position: Float[np.ndarray, "posterior chain draw coordinate"]
    joint: Float[np.ndarray, "posterior chain draw joint"]
    log_density: Fact
    energy: Fact
    divergent: Fact
    depth: Fact
    n_steps: Fact
    acceptance: Fact


class Frame(NamedTuple):
    """The coordinates y in which the chains of one posterior move, and their step once adapted."""

    mode: AnyArray
    root: AnyArray
    step: AnyArray


class Clock(NamedTuple):
    """Draws made before a block, and the stage it belongs to."""

    done: Any
    is_warmup: Any
    is_adapting: Any
    target_accept: Any


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def draw_block(
    static: Density, sampler: AbstractSampler, impl: str, mesh: Mesh, by_group: Any, clock: Clock
) -> Any:
    """A block of draws of one group of chains on every device.

    Args:
        static: The static part of the posteriors.
        sampler: How to sample; only what is compiled counts.
        impl: Kind of the random keys.
        mesh: The devices.
        by_group: (arrays of the posterior, `Frame`, chains, number of draws) for each device.
        clock: Where the block stands.

    Returns:
        Positions, states of the dual averaging and the fields of `Trace`, group by group.
    """

    def of_device(by_group: Any, clock: Clock) -> Any:
        arrays, frame, chains, n_draws = jax.tree.map(lambda x: x[0], by_group)
        settings = eqx.combine(arrays, static), sampler, impl, frame, n_draws, clock
        found = jax.vmap(lambda chain: _chain(chain, *settings))(chains)
        return jax.tree.map(lambda x: x[None], found)

    share = PartitionSpec(mesh.axis_names)
    # The check of replication does not know the loops and branches of BlackJAX.
    return jax.shard_map(
        of_device, mesh=mesh, in_specs=(share, PartitionSpec()), out_specs=share, check_vma=False
    )(by_group, clock)


def _chain(
    chain: Any, posterior: Density, sampler: AbstractSampler, impl: str, frame: Frame,
    n_draws: Array, clock: Clock,
) -> Any:  # fmt: skip
    """Some draws of one chain."""
    from blackjax.adaptation import step_size
    from blackjax.mcmc import hmc

    key_data, position, averaging = chain
    key, joint_key = jax.random.split(jax.random.wrap_key_data(key_data, impl=impl))
    update = step_size.dual_averaging_adaptation(clock.target_accept)[1]

    def density(y: Array) -> Array:
        return posterior.log_density(jnp.asarray(frame.mode + frame.root @ y))

    def draw(i: Array, carry: Any) -> Any:
        state, average, out = carry
        step = jnp.where(clock.is_adapting, jnp.exp(average[0]), frame.step)
        own = jax.random.fold_in(key, clock.done + i)
        state, info, depth = sampler.draw(own, state, density, step)
        rate = jnp.where(jnp.isfinite(info.acceptance_rate), info.acceptance_rate, 0.0)
        new = update(step_size.DualAveragingAdaptationState(*average), rate)
        average = jnp.stack([jnp.asarray(x, position.dtype) for x in new])
        place, length = frame.mode + frame.root @ state.position, info.num_integration_steps
        facts = place, state.logdensity, info.energy, info.is_divergent, depth, length, rate
        out = tuple(o.at[i].set(jnp.asarray(x, o.dtype)) for o, x in zip(out, facts, strict=True))
        return state, average, out

    blank = (jnp.zeros((BLOCK, *position.shape)), *(jnp.zeros(BLOCK) for _ in range(6)))
    carry = (hmc.init(position, density), averaging, blank)
    state, averaging, out = jax.lax.fori_loop(0, n_draws, draw, carry)
    joint = _joint(posterior, out[0], joint_key, clock)
    return state.position, averaging, (out[0], joint, *out[1:])


def _joint(posterior: Density, v: Array, key: Array, clock: Clock) -> Array:
    """Draws with what was integrated out drawn too; none in the warm-up."""
    shape = jax.eval_shape(posterior.complete, v[0], key).shape

    def complete() -> Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, clock.done + i))(jnp.arange(v.shape[0]))
        return jax.lax.map(lambda x: posterior.complete(*x), (v, keys))

    return jax.lax.cond(clock.is_warmup, lambda: jnp.zeros((v.shape[0], *shape)), complete)


_FIRST, _WINDOWS = 0.15, (0.15, 0.25, 0.3)
"""Parts of the warm-up: for the step alone, for each measure of the shape; the rest for the step
again."""


class State(NamedTuple):
    """Where the chains stand between two blocks; `window` has the draws for the next shape."""

    position: np.ndarray
    averaging: np.ndarray
    step: np.ndarray
    root: np.ndarray
    window: np.ndarray


class Piece(NamedTuple):
    """Draws made in one call; `ends_window` asks for the shape to be measured after it."""

    n_draws: int
    is_warmup: bool
    in_window: bool
    ends_window: bool


def make_plan(sampler: AbstractSampler) -> list[Piece]:
    """Blocks of draws in order, those of the warm-up first."""
    n = sampler.n_warmup
    parts = [round(_FIRST * n), *(round(part * n) for part in _WINDOWS)]
    parts.append(n - sum(parts))
    pieces = []
    for k, part in enumerate(parts):
        window = sampler.adapt_shape and 0 < k <= len(_WINDOWS)
        pieces += [Piece(size, True, window, False) for size in _cut(part)]
        pieces[-1] = pieces[-1]._replace(ends_window=window)
    return pieces + [Piece(size, False, False, False) for size in _cut(sampler.n_samples)]


def _cut(total: int) -> list[int]:
    return [min(BLOCK, total - begun) for begun in range(0, total, BLOCK)]


def first_state(roots: np.ndarray, starts: np.ndarray, sampler: AbstractSampler) -> State:
    """Chains at their starts, y, with the first guesses of shape and step."""
    step = np.full(starts.shape[0], sampler.step_size)
    none = np.zeros((*starts.shape[:2], 0, starts.shape[2]))
    return State(starts, _restart(step, starts.shape[1]), step, roots, none)


def next_state(
    state: State, position: np.ndarray, averaging: np.ndarray, trace: Trace, piece: Piece,
    sampler: AbstractSampler,
) -> State:  # fmt: skip
    """Step and shape after a block, from the chains together."""
    if not piece.is_warmup:
        return state._replace(position=position)
    step, root, window = state.step, state.root, state.window
    if piece.in_window:
        y = np.linalg.solve(root[:, None, None], trace.position[..., None])[..., 0]
        window = np.concatenate([window, y], axis=2)
    if sampler.adapt_step:
        step = np.exp(averaging[..., 1].mean(axis=1))
    if piece.ends_window:
        factor = np.linalg.cholesky(_shape(window))
        root = root @ factor
        position = np.linalg.solve(factor[:, None], position[..., None])[..., 0]
        window = window[:, :, :0]
        averaging = _restart(step, position.shape[1])
    return State(position, averaging, step, root, window)


def _restart(step: np.ndarray, n_chains: int) -> np.ndarray:
    """Dual averaging about a step: (log step, its average, count, error, centre).

    The centre is ten times the step: longer steps are cheaper, so they are tried first.

    Reference:
        Hoffman & Gelman, J. Mach. Learn. Res. 15, 1593 (2014), section 3.2.
    """
    log = np.broadcast_to(np.log(step)[:, None], (step.shape[0], n_chains))
    zero = np.zeros_like(log)
    return np.stack([log, zero, zero + 1.0, zero, log + np.log(10.0)], axis=-1)


def _shape(y: np.ndarray) -> np.ndarray:
    """Covariance of y over chains and draws, drawn towards 1 as far as draws are few."""
    size = y.shape[-1]
    flat = y.reshape(y.shape[0], -1, size)
    flat = flat - flat.mean(axis=1, keepdims=True)
    count = flat.shape[1]
    square = np.einsum("kni,knj->kij", flat, flat)
    return (square + size * np.eye(size)) / (count + size)
