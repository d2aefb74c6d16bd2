"""Samplers: plans of blocks, adaptation of step and shape, and draws of a known posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import drawn, normals

from twotime.sample import driver
from twotime.sample.chains import (
    BLOCK,
    Hmc,
    Nuts,
    Piece,
    beginning,
    first_state,
    make_plan,
    next_state,
    whole_run,
)


@pytest.mark.parametrize(("n_warmup", "n_samples"), [(10, 10), (500, 1000), (61, 77)])
def test_plans_make_all_draws_in_blocks(n_warmup, n_samples):
    plan = make_plan(Nuts(n_warmup=n_warmup, n_samples=n_samples))
    assert sum(p.n_draws for p in plan if p.is_warmup) == n_warmup
    assert sum(p.n_draws for p in plan if not p.is_warmup) == n_samples
    assert max(p.n_draws for p in plan) <= BLOCK and min(p.n_draws for p in plan) > 0
    assert sum(p.ends_window for p in plan) == 3


def test_the_shape_is_measured_between_two_stages_of_the_step_alone():
    plan = make_plan(Nuts(n_warmup=1000))
    counts = [sum(p.n_draws for p in plan if p.is_warmup and p.in_window == x) for x in (0, 1)]
    assert counts == [300, 700]  # 15 % before, 15 % after
    ends = np.cumsum([p.n_draws for p in plan])[[p.ends_window for p in plan]]
    assert ends.tolist() == [300, 550, 850]
    assert not any(p.in_window for p in make_plan(Nuts(adapt_shape=False)))


@pytest.mark.parametrize(
    ("cls", "fields", "words"),
    [
        (Nuts, {"n_chains": 0}, "n_chains is 0; expected at least 1"),
        (Nuts, {"n_warmup": 9}, "n_warmup is 9; expected at least 10"),
        (Hmc, {"n_samples": 9}, "n_samples is 9; expected at least 10"),
        (Nuts, {"max_tree_depth": 0}, "max_tree_depth is 0"),
        (Hmc, {"n_leapfrog": 0}, "n_leapfrog is 0"),
        (Nuts, {"target_accept": 1.0}, "target_accept is 1.0"),
        (Hmc, {"step_size": 0.0}, "step_size is 0.0"),
        (Hmc, {"jitter": -1.0}, "jitter -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(cls, fields, words):
    with pytest.raises(ValueError, match=words):
        cls(**fields)


def test_only_what_is_compiled_distinguishes_programs():
    assert Nuts(n_samples=50, target_accept=0.8).compiled == Nuts().compiled
    assert Nuts(max_tree_depth=5).compiled != Nuts().compiled != Hmc().compiled
    assert Hmc(n_leapfrog=10).compiled != Nuts(max_tree_depth=10).compiled
    assert Nuts().target_accept == Hmc().target_accept == 0.9  # see docs/posterior.md


def test_windows_give_shape_and_step():
    """After a window positions are round, and the step starts anew from its average."""
    sampler, rng, mode = Nuts(n_chains=4), np.random.default_rng(0), np.array([[50.0, -3.0]])
    root = np.array([[[2.0, 0.0], [1.0, 0.5]]])
    state = first_state(np.broadcast_to(np.eye(2), (1, 2, 2)), np.zeros((1, 4, 2)), sampler)
    y = np.einsum("kij,kcnj->kcni", root, rng.normal(size=(1, 4, 1000, 2)))
    position, averaging = y[:, :, -1], state.averaging.copy()
    averaging[..., 1] = np.log(0.2)
    piece = Piece(1000, True, True, True)
    v = np.concatenate([mode + y, np.full((1, 4, 2, 2), 1e9)], axis=2)  # the last two do not count
    after = next_state(state, mode, position, averaging, v, piece, sampler)
    covariance = after.root[0] @ after.root[0].T
    np.testing.assert_allclose(covariance, root[0] @ root[0].T, atol=0.2)
    np.testing.assert_allclose(after.root[0] @ after.position[0, 1], position[0, 1])
    assert np.all(after.window == 0) and after.step == pytest.approx(0.2)
    # Dual averaging begins at the step and is drawn towards ten times it.
    np.testing.assert_allclose(after.averaging[0, 0], [np.log(0.2), 0, 1, 0, np.log(2.0)])
    last = Piece(1000, False, False, False)
    kept = next_state(after, mode, position, after.averaging, v, last, sampler)
    for name in ("step", "averaging", "root", "window"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(after, name))
    np.testing.assert_array_equal(kept.position, position)
    # Blocks of a window count together, and traced as known.
    half, rest = piece._replace(ends_window=False, n_draws=600), piece._replace(n_draws=400)
    one = next_state(state, mode, position, averaging, v[:, :, :600], half, sampler)
    args = mode, position, averaging, v[:, :, 600:]
    for call in (next_state, jax.jit(next_state, static_argnums=6)):
        both = call(one._replace(position=position), *args, rest, sampler)
        np.testing.assert_allclose(both.root, after.root, rtol=1e-9)


def test_few_draws_hardly_change_the_shape():
    sampler = Nuts(n_chains=1)
    state = first_state(np.eye(2)[None], np.zeros((1, 1, 2)), sampler)
    y = np.array([[[[10.0, 0.0], [-10.0, 0.0]]]])
    piece, mode = Piece(2, True, True, True), np.zeros((1, 2))
    after = next_state(state, mode, y[:, :, 0], state.averaging, y, piece, sampler)
    np.testing.assert_allclose(after.root[0] ** 2, np.diag([(200 + 2) / 4, 2 / 4]))


@pytest.fixture(scope="module", params=[Nuts, Hmc])
def chains(request):
    return drawn(2, 2, 60, 400, sampler=request.param)


def test_chains_have_the_moments_of_a_known_posterior(chains):
    assert chains.is_complete and chains.n_gradients > 2 * 2 * 460
    for k, scale in enumerate((1.0, 2.0)):
        flat = chains.trace.position[k].reshape(-1, 2)
        covariance = scale * np.linalg.inv([[1.5, 0.5], [0.5, 0.7]])
        error = np.sqrt(np.diag(covariance) / 150)  # of 800 draws, correlated
        assert np.all(np.abs(flat.mean(0) - scale * np.array([1.0, -2.0])) < 4 * error)
        np.testing.assert_allclose(np.cov(flat.T), covariance, atol=0.35 * covariance.max())
        joint = chains.trace.joint[k]
        assert np.array_equal(joint[..., :2], chains.trace.position[k])
        assert joint[..., 2].std() == pytest.approx(1.0, abs=0.12)


def test_the_step_is_adapted_to_the_acceptance_that_is_asked_for(chains):
    accepted = chains.trace.acceptance.mean(axis=(1, 2))
    assert np.all(np.abs(accepted - 0.9) < 0.08)
    assert np.all((chains.step > 0.2) & (chains.step < 3))
    assert np.all(chains.trace.divergent == 0)


def test_random_numbers_belong_to_shard_chain_and_draw():
    """More shards and more chains leave the draws of the first as they are."""
    fixed = {"adapt_step": False, "adapt_shape": False}
    few, many = (drawn(*shape, 10, 20, **fixed).trace.joint for shape in ((1, 2), (3, 4)))
    assert np.array_equal(few[0], many[0, :2])
    flat = many.reshape(12, -1)
    assert len(np.unique(flat, axis=0)) == 12


def test_one_traceable_program_makes_the_draws_of_the_blocks():
    """Under jit and vmap over keys; posteriors that are stacked are batched too."""
    sampler, posteriors = Nuts(n_chains=2, n_warmup=60, n_samples=40), normals(2)
    mode, root = np.array([[1.0, -2.0], [2.0, -4.0]]), np.broadcast_to(np.eye(2), (2, 2, 2))
    keys = jax.random.split(jax.random.key(7), 2)

    def whole(posterior, key):
        return whole_run(posterior, jnp.asarray(mode[0]), jnp.asarray(root[0]), key, sampler)

    found = jax.jit(jax.vmap(whole))(posteriors, keys)
    assert found.position.shape == (2, 2, 40, 2) and found.divergent.shape == (2, 2, 40)
    starts, key = beginning(keys[0], (1, 2, 2), sampler.jitter)
    blocks = driver.sample(normals(1), mode[:1], root[:1], np.asarray(starts), key, sampler).trace
    for name in ("position", "joint", "log_density", "n_steps"):
        same = getattr(found, name)[0], getattr(blocks, name)[0]
        np.testing.assert_allclose(*same, rtol=1e-6, atol=1e-9)
    assert not np.allclose(found.position[0], found.position[1])
