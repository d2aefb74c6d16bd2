"""fit_cmc as users call it: what it takes, returns, saves and refuses."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats
from sampling import FEW, static_case

import twotime as tt
from twotime.results.cmc import CMCResult, Limits
from twotime.sample.chains import Hmc, Nuts
from twotime.sample.combine import Gaussian, Importance
from twotime.sample.inputs import LIMITS, NUTS, WHOLE, gathered
from twotime.sample.shards import Sharding

FRAMES = 24


def sampled(**kwargs):
    if "sampler" not in kwargs:
        kwargs = FEW | kwargs
    return tt.fit_cmc(*static_case(FRAMES), key=jax.random.key(1), **kwargs)


@pytest.fixture(scope="module")
def fit():
    return tt.fit_nlsq(*static_case(FRAMES))


@pytest.fixture(scope="module")
def post():
    return sampled(width="none", limits=Limits(max_r_hat=1.2, min_ess=20))


@pytest.fixture(scope="module")
def parts(fit):
    return sampled(start=fit, width="none", n_shards=2, n_samples=300)


def test_draws_surround_the_fit_as_wide_as_its_independent_errors(post, fit):
    assert post.names == ("D0", "alpha") and set(post.samples) == {"D0", "alpha"}
    for name, x in post.samples.items():
        assert x.shape == (2, 100)
        sd = fit.uncertainties_iid[name]
        assert abs(x.mean() - fit.params[name]) < 0.7 * sd
        assert 0.6 < x.std() / sd < 1.6
    assert post.params["D_offset"] == 0.0
    assert post.noise.mean() == pytest.approx(0.02, rel=0.15)
    assert post.contrast.shape == (2, 100, 1)
    assert post.contrast.mean() == pytest.approx(float(fit.contrast[0]), abs=0.02)
    assert post.offset.mean() == pytest.approx(float(fit.offset[0]), abs=0.02)


def test_the_result_tells_how_it_came_about(post):
    assert set(post.r_hat) == {"D0", "alpha", "noise"}
    assert post.converged and post.status.startswith("converged: R-hat at most")
    assert post.divergences == 0 and post.bfmi > 0.3
    assert min(post.ess_bulk.values()) > 20
    assert (post.sampler, post.scaling_kind, post.noise_kind) == ("nuts", "marginal", "sampled")
    assert post.evaluator == "factored" and post.combination == ""
    assert "too small for speckle" in post.report()
    summary = post.summary()
    assert summary["parameters"]["D0"]["sd"] == pytest.approx(post.uncertainties["D0"])
    assert summary["parameters"]["D_offset"]["sampled"] is False


def test_saved_posteriors_come_back_bit_for_bit(post, tmp_path):
    post.save(tmp_path / "out")
    again = tt.load_result(tmp_path / "out")
    assert isinstance(again, tt.CMCResult)
    for name in post.__dataclass_fields__:
        one, other = getattr(post, name), getattr(again, name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True), name
        elif name != "limits":
            assert one == other, name
    assert again.limits.max_r_hat == 1.2
    assert again.report() == post.report()
    with pytest.raises(tt.ResultError, match="already holds a result"):
        post.save(tmp_path / "out")
    (tmp_path / "out" / "posterior.npz").write_bytes(b"damaged")
    with pytest.raises(tt.ResultError, match="cannot be read"):
        tt.load_result(tmp_path / "out")


def test_arviz_takes_the_draws(post):
    arviz = pytest.importorskip("arviz")
    found = post.to_arviz()
    assert np.array_equal(found.posterior["D0"].values, post.samples["D0"])
    assert found.posterior["contrast"].dims == ("chain", "draw", "angle")
    assert found.sample_stats["energy"].shape == (2, 100)
    r_hat = float(arviz.rhat(found)["alpha"].values)
    assert post.r_hat["alpha"] == pytest.approx(r_hat, rel=1e-6)
    ess = float(arviz.ess(found, method="bulk")["alpha"].values)
    assert post.ess_bulk["alpha"] == pytest.approx(ess, rel=1e-4)


def test_fields_one_by_one_are_the_values_and_give_the_same_draws(post):
    """All old keywords, as they were, and as fields of the three values."""
    values = sampled(
        sampler=Nuts(n_chains=2, n_warmup=60, n_samples=100), sharding=Sharding(n_shards=1),
        width="none",
    )  # fmt: skip
    assert np.array_equal(values.draws, post.draws)
    old = {"n_chains": 2, "n_warmup": 30, "n_samples": 40, "target_accept": 0.7, "step_size": 0.3,
           "adapt_step": False, "adapt_shape": False, "jitter": 0.5}  # fmt: skip
    dealt = {"n_shards": 3, "strategy": "angles", "devices": None, "combine": "gaussian",
             "exclude": True}  # fmt: skip
    both = {"max_tree_depth": 6, "n_leapfrog": 4, "max_reduced_chi2": 9.0}
    for word, cls in (("nuts", Nuts(max_tree_depth=6)), ("hmc", Hmc(n_leapfrog=4))):
        found = gathered(word, WHOLE, LIMITS, old | dealt | both)
        limits = Limits(max_reduced_chi2=9.0)
        assert found == (dataclasses.replace(cls, **old), Sharding(**dealt), limits)
    assert gathered(NUTS, WHOLE, LIMITS, {}) == (Nuts(), Sharding(), Limits())
    with pytest.warns(DeprecationWarning, match="min_pixels is now min_points"):
        assert gathered(NUTS, WHOLE, LIMITS, {"min_pixels": 5})[1] == Sharding(min_points=5)
    with pytest.warns(DeprecationWarning, match="n_strata is now strata"):
        assert gathered(NUTS, WHOLE, LIMITS, {"n_strata": 5})[1] == Sharding(strata=5)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"n_chain": 3}, "did you mean 'n_chains'"),
        ({"samplers": "nuts"}, "did you mean 'sampler'"),
        ({"sampler": Nuts(), "n_chains": 3}, "n_chains twice"),
        ({"sharding": Sharding(n_shards=2), "combine": "gaussian"}, "combine twice"),
        ({"limits": Limits(max_reduced_chi2=3.0), "max_reduced_chi2": 2.0}, "chi2 twice"),
        ({"min_points": 3, "min_pixels": 3}, "twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:min_pixels is now")
def test_unknown_and_repeated_keywords_are_refused(keywords, words):
    with pytest.raises(TypeError, match=words):
        sampled(**{"sampler": "nuts"} | keywords)


@pytest.mark.long
def test_shards_combine_to_the_whole(parts, post):
    assert parts.n_shards == 2 and parts.evaluator == "point lists"
    assert parts.combination == "importance" and parts.strategy == "random"
    assert "Shards (random, importance)" in parts.report()
    assert parts.pareto_k < 0.5 and 300 < parts.ess_weights <= 600 and parts.weights_hold
    assert parts.disagreement.shape == (2, 2)
    for name, x in parts.samples.items():
        sd = post.uncertainties[name]
        assert abs(x.mean() - post.samples[name].mean()) < 0.6 * sd
        assert x.std() == pytest.approx(sd, rel=0.35)


def test_ways_to_combine_are_objects_or_words(parts, fit):
    """Matched at every round, weights are worth more; without, the product is kept."""
    how = Sharding(n_shards=2, combine=Gaussian())
    sampler = Nuts(n_chains=2, n_warmup=60, n_samples=300)
    found = sampled(start=fit, width="none", sampler=sampler, sharding=how)
    assert found.combination == "gaussian" and np.isnan(found.pareto_k)
    assert np.array_equal(found.shard_draws, parts.shard_draws)
    assert (Importance().wider, Importance().enough, Importance().rounds) == (1.1, 0.4, 3)


@pytest.mark.long
def test_the_width_correction_gives_the_robust_width(post, fit):
    wide = sampled(start=fit, n_samples=300)
    assert wide.width_kind == "curvature" and "speckle" in wide.width_text
    for k, name in enumerate(wide.names):
        ratio = fit.uncertainties[name] / fit.uncertainties_iid[name]
        assert wide.width_ratio[k] == pytest.approx(ratio, rel=1e-3)
        assert wide.uncertainties[name] / fit.uncertainties[name] == pytest.approx(1, rel=0.15)
    again = sampled(start=fit, n_samples=300, width="sandwich")
    assert np.array_equal(again.draws, wide.draws) and again.width_kind == "curvature"


@pytest.mark.slow
def test_tempering_widens_by_a_power(fit):
    tempered = sampled(start=fit, width="tempering")
    assert 0 < tempered.power <= 1 and tempered.width_kind == "tempering"
    np.testing.assert_allclose(tempered.width_ratio, tempered.power**-0.5)


@pytest.mark.long
def test_every_coordinate_that_is_judged_is_listed(fit):
    post = sampled(start=fit, width="none", scaling="sampled")
    assert set(post.judged) == set(post.r_hat) == {
        "D0", "alpha", "contrast[0]", "offset[0]", "noise",
    }  # fmt: skip
    assert np.array_equal(post.judged["noise"], post.noise)
    assert np.array_equal(post.judged["offset[0]"], post.offset[..., 0])
    rows = {row[0]: row for row in post.table.rows}
    for name, r_hat in post.r_hat.items():
        assert f"{r_hat:.4f}" in rows[name]
        assert post.summary()["judged"][name]["sd"] == pytest.approx(post.judged[name].std())


@pytest.mark.long
def test_priors_that_the_data_contradict_are_told(fit):
    """Whoever chose them; a prior that was not chosen contradicts nothing."""
    model, data, space = static_case(FRAMES)
    priors = {
        "D0": tt.PriorDistribution.truncated_normal(1e3, 1e3, 100, 1e5),
        "alpha": tt.PriorDistribution.normal(-0.3, 0.5),
        "offset": tt.PriorDistribution.normal(1.3, 0.02),
    }
    space = space.with_priors(priors)
    post = tt.fit_cmc(model, data, space, key=jax.random.key(1), start=fit, **FEW)
    assert post.prior_names == ("D0", "alpha", "offset[0]")
    mean, sd = float(priors["D0"].mean), float(priors["D0"].std)
    np.testing.assert_allclose([post.prior_means[0], post.prior_deviations[0]], [mean, sd], 1e-2)
    assert post.data_estimates[0] == pytest.approx(fit.params["D0"])
    assert post.data_errors[0] == pytest.approx(fit.uncertainties["D0"], rel=1e-3)
    conflicts = post.prior_conflicts
    assert [c.split(":")[0][-9:].split()[-1] for c in conflicts] == ["D0", "offset[0]"]
    away = (fit.params["D0"] - mean) / sd
    assert f"{away:.1f} prior deviations above the prior" in conflicts[0]
    assert all(c in post.status for c in conflicts) and "No prior was given" not in post.report()
    z = (1.3 - float(fit.offset[0])) / np.hypot(0.02, post.data_errors[2])
    expected = 2 * scipy.stats.norm.sf(z)
    assert post.prior_chances[2] == pytest.approx(expected, rel=0.1)
    agreed = scipy.stats.norm.sf(abs(fit.params["alpha"] + 0.3) / 0.5) * 2
    assert post.prior_chances[1] == pytest.approx(agreed, abs=0.01)


@pytest.mark.long
def test_chains_about_a_fit_that_another_start_rejects_have_not_converged(fit):
    """A fit that claims to be of three times the chi-squared of what other starts find.

    Without correction of the width chains know the whole likelihood, and the fit only where they
    begin.
    """
    wrong = dataclasses.replace(fit, chi2=3 * fit.chi2, ends_chi2=3 * fit.ends_chi2)
    lenient = {"limits": Limits(max_r_hat=1.2, min_ess=20)}
    post = sampled(start=wrong, **lenient)
    assert post.is_misplaced and not post.converged
    assert "another optimum is more likely" in post.status
    for right in (sampled(start=fit, **lenient), sampled(start=wrong, width="none", **lenient)):
        assert right.converged and float(right.misplaced) < 0.5


@pytest.mark.long
def test_hmc_samples_the_same(post):
    other = sampled(width="none", sampler=Hmc(n_chains=2, n_warmup=60, n_samples=300, n_leapfrog=6))
    assert other.sampler == "hmc" and np.all(other.tree_depth == 0)
    for name, x in other.samples.items():
        assert abs(x.mean() - post.samples[name].mean()) < 0.6 * post.uncertainties[name]
        assert x.std() == pytest.approx(post.uncertainties[name], rel=0.4)


@pytest.mark.slow
def test_chains_that_start_from_the_prior_find_the_same(post):
    other = sampled(width="none", start="prior", n_warmup=200)
    for name, x in other.samples.items():
        assert abs(x.mean() - post.samples[name].mean()) < 0.7 * post.uncertainties[name]


@pytest.mark.long
def test_priors_about_a_fit_are_an_explicit_choice(fit):
    tight = sampled(start=fit, width="none", prior_from_fit=0.1)
    for name, sd in tight.uncertainties.items():
        assert sd < 0.3 * fit.uncertainties[name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_shards": 500}, "n_shards is 500, more than the 276 usable points"),
        ({"n_shards": 0}, "n_shards is 0; expected at least 1"),
        ({"n_samples": 2}, "n_samples is 2; expected at least 10"),
        ({"sampler": "gibbs"}, "sampler is 'gibbs'; expected one of nuts, hmc"),
        ({"combine": "average"}, "combine is 'average'; expected one of consensus, gaussian"),
        ({"width": "wide"}, "width is 'wide'; expected one of curvature, tempering, none"),
        ({"noise": "loud"}, "noise is 'loud'; expected one of sampled, marginal"),
        ({"start": "somewhere"}, "start is 'somewhere'"),
        ({"max_reduced_chi2": 1e-9}, "nlsq_chi2_threshold"),
        ({"per_angle_mode": "some"}, "per_angle_mode is 'some'"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_sentence(change, words, fit):
    with pytest.raises(ValueError, match=words) as caught:
        sampled(**({"start": fit} if "per_angle_mode" not in change else {}) | change)
    assert "\n" not in str(caught.value)


def test_it_cannot_be_traced():
    model, data, space = static_case(FRAMES)
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda key: tt.fit_cmc(model, data, space, key=key).draws)(jax.random.key(0))


def refuse(words, data=None, space=None, **kwargs):
    model, usual_data, usual_space = static_case(FRAMES)
    case = model, data or usual_data, space or usual_space
    with pytest.raises(ValueError, match=words) as caught:
        tt.fit_cmc(*case, key=jax.random.key(0), **FEW | kwargs)
    assert "\n" not in str(caught.value)


def test_a_start_outside_the_support_is_refused(fit):
    _, _, space = static_case()
    narrow = space.with_priors({"D0": tt.PriorDistribution.uniform(2e4, 3e4)})
    refuse("outside the support", space=narrow)
    refuse("outside its bounds", space=space.with_bounds({"D0": (2e4, 3e4)}))
    moved = space.with_bounds({"D0": (2e4, 3e4)}).with_values({"D0": 2.5e4})
    refuse("The start has D0", space=moved, start=fit)
    refuse("the space varies", space=space.with_vary({"alpha": False}), start=fit)
    refuse("per_angle_mode", start=fit, per_angle_mode="averaged")


def test_a_prior_without_mass_is_refused():
    _, _, space = static_case()
    empty = space.with_priors({"D0": tt.PriorDistribution.normal(-1e9, 1.0)})
    refuse("D0", space=empty)


def test_data_that_cannot_be_used_are_refused():
    _, data, _ = static_case(FRAMES)
    nothing = tt.TwoTimeData(np.full((1, 24, 24), np.nan), data.t, data.q, data.phi)
    refuse("no usable", data=nothing)
    no_angle = tt.TwoTimeData(data.c2, data.t, data.q, np.array([np.nan]))
    refuse("phi is not finite", data=no_angle)
    no_sigma = tt.TwoTimeData(data.c2, data.t, data.q, data.phi, sigma=np.nan)
    refuse("sigma is nan at a used point", data=no_sigma)
    no_limit = tt.TwoTimeData(data.c2, data.t, data.q, data.phi, sigma=np.inf)
    refuse("sigma is infinite at points that count", data=no_limit)


@pytest.mark.long
def test_points_that_are_not_finite_do_not_count(post):
    model, data, space = static_case(FRAMES)
    c2 = np.array(data.c2)
    c2[0, 3, 9] = c2[0, 9, 3] = np.nan
    some = tt.TwoTimeData(c2, data.t, data.q, data.phi)
    found = tt.fit_cmc(model, some, space, key=jax.random.key(1), width="none", **FEW)
    assert found.n_points == post.n_points - 1
    assert found.evaluator == "point lists"


def test_unconverged_shards_are_left_out_only_if_asked(fit):
    strict = Limits(min_ess=1e9)
    kept = sampled(start=fit, width="none", limits=strict)
    assert not kept.converged and kept.excluded == ()
    assert "effective sample size" in kept.status
    with pytest.raises(ValueError, match="No shard converged"):
        sampled(start=fit, width="none", limits=strict, n_shards=2, exclude=True)


def test_public_names():
    assert tt.CMCResult is CMCResult and callable(tt.fit_cmc)
