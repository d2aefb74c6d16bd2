"""Samplers: plans of blocks, adaptation of step and shape, and draws of a known posterior."""

import numpy as np
import pytest
from sampling import drawn

from twotime.sample.chains import BLOCK, Hmc, Nuts, Piece, Trace, first_state, make_plan, next_state


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


def trace(position):
    return Trace(position, *(None for _ in Trace._fields[1:]))


def test_windows_give_shape_and_step():
    """After a window positions are round, and the step starts anew from its average."""
    sampler, rng = Nuts(n_chains=4), np.random.default_rng(0)
    root = np.array([[[2.0, 0.0], [1.0, 0.5]]])
    state = first_state(np.broadcast_to(np.eye(2), (1, 2, 2)), np.zeros((1, 4, 2)), sampler)
    y = np.einsum("kij,kcnj->kcni", root, rng.normal(size=(1, 4, 1000, 2)))
    position, averaging = y[:, :, -1], state.averaging.copy()
    averaging[..., 1] = np.log(0.2)
    piece = Piece(1000, True, True, True)
    after = next_state(state, position, averaging, trace(y), piece, sampler)
    covariance = after.root[0] @ after.root[0].T
    np.testing.assert_allclose(covariance, root[0] @ root[0].T, atol=0.2)
    np.testing.assert_allclose(after.root[0] @ after.position[0, 1], position[0, 1])
    assert after.window.shape[2] == 0 and after.step == pytest.approx(0.2)
    # Dual averaging begins at the step and is drawn towards ten times it.
    np.testing.assert_allclose(after.averaging[0, 0], [np.log(0.2), 0, 1, 0, np.log(2.0)])
    kept = next_state(after, position, averaging, trace(y), Piece(25, False, False, False), sampler)
    assert kept.step == after.step and kept.averaging is after.averaging


def test_few_draws_hardly_change_the_shape():
    sampler = Nuts(n_chains=1)
    state = first_state(np.eye(2)[None], np.zeros((1, 1, 2)), sampler)
    y = np.array([[[[10.0, 0.0], [-10.0, 0.0]]]])
    after = next_state(
        state, y[:, :, 0], state.averaging, trace(y), Piece(2, True, True, True), sampler
    )
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
