"""NUTS and HMC, the compiled block of draws of a few chains, and its adaptation between blocks.

Positions are y with v = root y + mode in the coordinates of the posterior, so that its shape is
nearly round. Random numbers depend on posterior, chain and draw alone. Every device runs the same
program on one group of chains, so that devices do not change a bit of the draws: chains amplify
the smallest difference. `whole_run` is the same plan of blocks as one traceable program.
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

from twotime.kinds import check_fields
from twotime.models.parameters import numpy_of
from twotime.models.rates import AnyArray
from twotime.sample.density import Density

Fact = Float[Any, "*posterior chain draw"]

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
        check_fields(self)
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
    """Draws and facts about them; axes (posterior, chain, draw).

    Attributes:
        position: Where the draws are, in the coordinates of the posterior.
        joint: The same with what was integrated out drawn too.
        log_density: Log density there.
        energy: Energy of the trajectory.
        divergent: Whether it diverged.
        depth: Its doublings.
        n_steps: Its steps.
        acceptance: Its mean acceptance.
    """

    position: Float[Any, "*posterior chain draw coordinate"]
    joint: Float[Any, "*posterior chain draw joint"]
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
    """Where the chains stand between two blocks.

    Attributes:
        position: Positions y.
        averaging: States of the dual averaging.
        step: Step of the integrator.
        root: The shape: v = root y + mode.
        window: Sums of the products of (1, y) over the draws for the next shape.
    """

    position: Float[Any, "posterior chain coordinate"]
    averaging: Float[Any, "posterior chain 5"]
    step: Float[Any, " posterior"]
    root: Float[Any, "posterior coordinate coordinate"]
    window: Float[Any, "posterior sum sum"]


class Piece(NamedTuple):
    """Draws made in one call; `ends_window` asks for the shape to be measured after it."""

    n_draws: Any
    is_warmup: Any
    in_window: Any
    ends_window: Any


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


def first_state(roots: AnyArray, starts: AnyArray, sampler: AbstractSampler) -> State:
    """Chains at their starts, y, with the first guesses of shape and step."""
    n, chains, size = starts.shape
    step, none = np.full(n, sampler.step_size), np.zeros((n, size + 1, size + 1))
    return State(starts, _restart(step, chains), step, roots, none)


def next_state(
    state: State, mode: AnyArray, position: AnyArray, averaging: AnyArray, draws: AnyArray,
    piece: Piece, sampler: AbstractSampler,
) -> State:  # fmt: skip
    """Step and shape after a block, from the chains together.

    Args:
        state: The state before it.
        mode: Origin of the positions of each posterior.
        position: Positions after it.
        averaging: States of the dual averaging after it.
        draws: What was drawn, as v; what lies beyond the draws of the piece does not count.
        piece: What block it was; its numbers may be traced.
        sampler: How to adapt.
    """
    xp = numpy_of(position, draws)
    y = xp.linalg.solve(state.root[:, None, None], (draws - mode[:, None, None])[..., None])
    is_drawn = xp.broadcast_to(xp.arange(draws.shape[2]) < piece.n_draws, draws.shape[:3])
    u = is_drawn[..., None] * xp.concatenate([xp.ones_like(y[..., :1, 0]), y[..., 0]], axis=-1)
    window = state.window + xp.where(piece.in_window, xp.einsum("kcni,kcnj->kij", u, u), 0.0)
    is_adapting = piece.is_warmup & sampler.adapt_step
    step = xp.where(is_adapting, xp.exp(averaging[..., 1].mean(axis=1)), state.step)
    size, ends = position.shape[-1], piece.ends_window
    factor = xp.where(ends, xp.linalg.cholesky(_shape(window)), xp.eye(size))
    return State(
        position=xp.linalg.solve(factor[:, None], position[..., None])[..., 0],
        averaging=xp.where(ends, _restart(step, position.shape[1]), averaging),
        step=step,
        root=state.root @ factor,
        window=xp.where(ends, 0.0, window),
    )


def _restart(step: AnyArray, n_chains: int) -> AnyArray:
    """Dual averaging about a step: (log step, its average, count, error, centre).

    The centre is ten times the step: longer steps are cheaper, so they are tried first.

    Reference:
        Hoffman & Gelman, J. Mach. Learn. Res. 15, 1593 (2014), section 3.2.
    """
    xp = numpy_of(step)
    log = xp.broadcast_to(xp.log(step)[:, None], (step.shape[0], n_chains))
    zero = xp.zeros_like(log)
    return xp.stack([log, zero, zero + 1.0, zero, log + np.log(10.0)], axis=-1)


def _shape(window: AnyArray) -> AnyArray:
    """Covariance of y over chains and draws, drawn towards 1 as far as draws are few."""
    xp = numpy_of(window)
    count, total = window[:, :1, :1], window[:, 1:, :1]
    square = window[:, 1:, 1:] - total @ total.swapaxes(1, 2) / xp.maximum(count, 1.0)
    size = square.shape[-1]
    return (square + size * xp.eye(size)) / (count + size)


def beginning(
    key: PRNGKeyArray, places: tuple[int, int, int], jitter: float
) -> tuple[Array, PRNGKeyArray]:
    """Where chains start, as y, and the key of their draws; places are (posterior, chain, y)."""
    away = jax.random.normal(jax.random.fold_in(key, 2), places, jnp.float64)
    return jitter * away, jax.random.fold_in(key, 3)


def keys_of(key: PRNGKeyArray, n: int, n_chains: int) -> Array:
    """Data of the random key of each chain of each posterior."""
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = jax.vmap(fold, (0, None))(fold(key, jnp.arange(n)), jnp.arange(n_chains))
    return jax.random.key_data(keys)


def whole_run(
    posterior: Density, mode: Array, root: Array, key: PRNGKeyArray, sampler: AbstractSampler
) -> Trace:
    """All blocks of the chains of one posterior as one program, for use inside others.

    Args:
        posterior: The posterior.
        mode: Origin of the positions.
        root: First guess of the shape.
        key: Random key.
        sampler: How to sample.

    Returns:
        The draws that are kept, axes (chain, draw).
    """
    starts, key = beginning(key, (1, sampler.n_chains, mode.size), sampler.jitter)
    impl, keys = str(jax.random.key_impl(key)), keys_of(key, 1, sampler.n_chains)[0]
    plan = make_plan(sampler)
    pieces = Piece(*map(np.asarray, zip(*plan, strict=True)))
    done = np.cumsum(pieces.n_draws) - pieces.n_draws

    def block(state: State, x: tuple[Piece, Array]) -> tuple[State, Trace]:
        piece, done = x
        is_adapting = piece.is_warmup & sampler.adapt_step
        clock = Clock(done, piece.is_warmup, is_adapting, sampler.target_accept)
        frame = Frame(mode, state.root[0], state.step[0])

        def one(chain: Any) -> Any:
            return _chain(chain, posterior, sampler, impl, frame, piece.n_draws, clock)

        found = jax.vmap(one)((keys, state.position[0], state.averaging[0]))
        position, averaging, drawn = jax.tree.map(lambda x: x[None], found)
        after = next_state(state, mode[None], position, averaging, drawn[0], piece, sampler)
        return after, Trace(*found[2])

    first = jax.tree.map(jnp.asarray, first_state(root[None], starts, sampler))
    trace = jax.lax.scan(block, first, (pieces, jnp.asarray(done)))[1]
    kept = [(k, i) for k, p in enumerate(plan) if not p.is_warmup for i in range(p.n_draws)]
    k, i = np.asarray(kept).T
    return jax.tree.map(lambda x: jnp.moveaxis(x[k, :, i], 0, 1), trace)
