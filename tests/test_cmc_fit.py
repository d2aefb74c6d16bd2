"""fit_cmc as users call it: what it returns, saves and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.results import storage as folders
from twotime.results.cmc import CMCResult, Limits
from twotime.sample.result import predictive
from twotime.sample.width import widths

FEW = {"n_chains": 2, "n_warmup": 60, "n_samples": 100}


def case(frames=24, angles=1, noise=0.02, seed=0):
    t = jnp.arange(1, frames + 1) * 0.1
    model, values = tt.StaticDiffusion(), {"D0": 1e4, "alpha": -0.3, "D_offset": 0.0}
    data = tt.simulate(
        model, jnp.asarray(list(values.values())), t=t, q=0.01, phi=50.0 * jnp.arange(angles),
        contrast=0.3, offset=1.0, noise=noise, key=jax.random.key(seed),
    )  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"}).with_values(values)
    space = space.with_priors({"D0": tt.PriorDistribution.truncated_normal(1e4, 1e4, 100, 1e5)})
    return model, data, space.with_vary({"D_offset": False})


def sampled(**kwargs):
    model, data, space = case()
    return tt.fit_cmc(model, data, space, key=jax.random.key(1), **FEW | kwargs)


@pytest.fixture(scope="module")
def post():
    return sampled(width="none", limits=Limits(max_r_hat=1.2, min_ess=20))


def test_draws_surround_the_fit_as_wide_as_its_independent_errors(post):
    model, data, space = case()
    fit = tt.fit_nlsq(model, data, space)
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
    with pytest.raises(folders.ResultError, match="already holds a result"):
        post.save(tmp_path / "out")
    (tmp_path / "out" / "posterior.npz").write_bytes(b"damaged")
    with pytest.raises(folders.ResultError, match="cannot be read"):
        tt.load_result(tmp_path / "out")


def test_arviz_takes_the_draws(post, tmp_path):
    arviz = pytest.importorskip("arviz")
    found = post.to_arviz()
    assert np.array_equal(found.posterior["D0"].values, post.samples["D0"])
    assert found.posterior["contrast"].dims == ("chain", "draw", "angle")
    assert found.sample_stats["energy"].shape == (2, 100)
    r_hat = float(arviz.rhat(found)["alpha"].values)
    assert post.r_hat["alpha"] == pytest.approx(r_hat, rel=1e-6)
    ess = float(arviz.ess(found, method="bulk")["alpha"].values)
    assert post.ess_bulk["alpha"] == pytest.approx(ess, rel=1e-4)


def test_predictions_cover_the_data(post):
    model, data, _ = case()
    mean, deviation = predictive(post, model, data, 50)
    early, late = np.triu_indices(24, 1)
    pull = ((np.asarray(data.c2) - mean) / deviation)[0, early, late]
    assert pull.std() == pytest.approx(1.0, abs=0.12)
    assert deviation.min() >= 0.9 * post.noise.mean()
    with pytest.raises(ValueError, match="n_draws"):
        predictive(post, model, data, 0)


@pytest.mark.slow
def test_the_width_correction_gives_the_robust_width():
    model, data, space = case()
    fit = tt.fit_nlsq(model, data, space)
    plain = sampled(start=fit, width="none")
    wide = sampled(start=fit)
    assert wide.width_kind == "sandwich" and "speckle" in wide.width_text
    for k, name in enumerate(wide.names):
        ratio = fit.uncertainties[name] / fit.uncertainties_iid[name]
        assert wide.width_ratio[k] == pytest.approx(ratio, rel=0.05)
        assert wide.uncertainties[name] / plain.uncertainties[name] == pytest.approx(ratio, rel=0.1)
    tempered = sampled(start=fit, width="tempering")
    assert tempered.power <= 1 and tempered.width_kind == "tempering"


def test_what_the_prior_determines_is_not_widened():
    model, data, space = case()
    prior = {"alpha": tt.PriorDistribution.normal(-0.3, 1e-4)}
    fit = tt.fit_nlsq(model, data, space)
    from twotime.sample.coordinates import parameter_coordinates

    found = widths(parameter_coordinates(space.with_priors(prior)), fit)
    free = widths(parameter_coordinates(space), fit)
    assert found.robust[1, 1] == pytest.approx(found.naive[1, 1], rel=0.01)
    assert free.robust[1, 1] > free.naive[1, 1]


@pytest.mark.slow
def test_shards_combine_to_the_whole(post):
    model, data, space = case()
    parts = tt.fit_cmc(
        model, data, space, key=jax.random.key(2), n_shards=2, width="none",
        **FEW | {"n_samples": 300},
    )  # fmt: skip
    assert parts.n_shards == 2 and parts.evaluator == "pixel lists"
    assert parts.combination == "importance" and parts.strategy == "random"
    assert "Shards (random, importance)" in parts.report()
    assert parts.pareto_k < 0.5 and 300 < parts.ess_weights <= 600 and parts.weights_hold
    assert parts.disagreement.shape == (2, 2)
    for name, x in parts.samples.items():
        sd = post.uncertainties[name]
        assert abs(x.mean() - post.samples[name].mean()) < 0.6 * sd
        assert x.std() == pytest.approx(sd, rel=0.35)


@pytest.mark.slow
def test_hmc_samples_the_same(post):
    other = sampled(width="none", sampler="hmc", n_leapfrog=6, n_samples=300)
    assert other.sampler == "hmc" and np.all(other.tree_depth == 0)
    for name, x in other.samples.items():
        assert abs(x.mean() - post.samples[name].mean()) < 0.6 * post.uncertainties[name]
        assert x.std() == pytest.approx(post.uncertainties[name], rel=0.4)


@pytest.mark.slow
def test_priors_about_a_fit_are_an_explicit_choice():
    model, data, space = case()
    fit = tt.fit_nlsq(model, data, space)
    tight = sampled(start=fit, width="none", prior_from_fit=0.1)
    for name, sd in tight.uncertainties.items():
        assert sd < 0.3 * fit.uncertainties[name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_shards": 500}, "n_shards is 500, more than the 276 usable pixels"),
        ({"n_shards": 0}, "n_shards is 0; expected at least 1"),
        ({"n_chains": 0}, "n_chains is 0; expected at least 1"),
        ({"n_samples": 2}, "n_samples is 2; expected at least 10"),
        ({"target_accept": 1.5}, "target_accept is 1.5"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"sampler": "gibbs"}, "sampler is 'gibbs'"),
        ({"combine": "average"}, "combine is 'average'"),
        ({"width": "wide"}, "width is 'wide'"),
        ({"noise": "loud"}, "noise is 'loud'"),
        ({"start": "somewhere"}, "start is 'somewhere'"),
        ({"max_reduced_chi2": 1e-9}, "nlsq_chi2_threshold"),
        ({"per_angle_mode": "some"}, "per_angle_mode is 'some'"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_sentence(change, words):
    with pytest.raises(ValueError, match=words) as caught:
        sampled(**change)
    assert "\n" not in str(caught.value)


def refuse(words, data=None, space=None, **kwargs):
    model, usual_data, usual_space = case()
    with pytest.raises(ValueError, match=words) as caught:
        tt.fit_cmc(
            model, data or usual_data, space or usual_space, key=jax.random.key(0), **FEW | kwargs
        )
    assert "\n" not in str(caught.value)


def test_a_start_outside_the_support_is_refused():
    _, _, space = case()
    narrow = space.with_priors({"D0": tt.PriorDistribution.uniform(2e4, 3e4)})
    refuse("outside the support", space=narrow)
    refuse("outside its bounds", space=space.with_bounds({"D0": (2e4, 3e4)}))
    model, data, _ = case()
    fit = tt.fit_nlsq(model, data, space)
    moved = space.with_bounds({"D0": (2e4, 3e4)}).with_values({"D0": 2.5e4})
    refuse("The start has D0", space=moved, start=fit)
    refuse("the space varies", space=space.with_vary({"alpha": False}), start=fit)
    refuse("per_angle_mode", start=fit, per_angle_mode="averaged")


def test_a_prior_without_mass_is_refused():
    _, _, space = case()
    empty = space.with_priors({"D0": tt.PriorDistribution.normal(-1e9, 1.0)})
    refuse("D0", space=empty)


def test_data_that_cannot_be_used_are_refused():
    _, data, _ = case()
    nothing = tt.TwoTimeData(np.full((1, 24, 24), np.nan), data.t, data.q, data.phi)
    refuse("no usable pixel", data=nothing)
    no_angle = tt.TwoTimeData(data.c2, data.t, data.q, np.array([np.nan]))
    refuse("phi is not finite", data=no_angle)
    no_sigma = tt.TwoTimeData(data.c2, data.t, data.q, data.phi, sigma=np.nan)
    refuse("sigma is not finite and positive", data=no_sigma)


@pytest.mark.slow
def test_pixels_that_are_not_finite_do_not_count(post):
    model, data, space = case()
    c2 = np.array(data.c2)
    c2[0, 3, 9] = c2[0, 9, 3] = np.nan
    some = tt.TwoTimeData(c2, data.t, data.q, data.phi)
    found = tt.fit_cmc(model, some, space, key=jax.random.key(1), width="none", **FEW)
    assert found.n_points == post.n_points - 1
    assert found.evaluator == "pixel lists"


@pytest.mark.slow
def test_unconverged_shards_are_left_out_only_if_asked():
    strict = Limits(min_ess=1e9)
    kept = sampled(width="none", limits=strict)
    assert not kept.converged and kept.excluded == ()
    assert "effective sample size" in kept.status
    with pytest.raises(ValueError, match="No shard converged"):
        sampled(width="none", limits=strict, n_shards=2, exclude=True)


def test_public_names():
    assert tt.CMCResult is CMCResult and callable(tt.fit_cmc)
