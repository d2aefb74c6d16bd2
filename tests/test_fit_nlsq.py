import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.data.simulate import simulate
from twotime.fit import fit_nlsq
from twotime.fit.robust import Huber
from twotime.models.correlation import correlation
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent
from twotime.solver import RESULTS

T = jnp.arange(1, 61) * 0.25
PHI = jnp.linspace(0.0, 150.0, 4)
Q = 0.005
LAMINAR = {
    "D0": 20000.0,
    "alpha": 0.1,
    "D_offset": 10.0,
    "gamma_dot_t0": 3e-3,
    "beta": 0.1,
    "gamma_dot_t_offset": 0.0,
    "phi0": 3.0,
}
STATIC = {"D0": 30000.0, "alpha": -0.4, "D_offset": 3000.0}


def space_of(mode, values):
    space = ParameterSpace.from_config({"analysis_mode": mode}).with_values(values)
    return space.with_vary(dict.fromkeys(space.names, True))


def data_of(model, params, noise=0.01, key=0, phi=PHI):
    return simulate(
        model,
        jnp.asarray(list(params.values())),
        t=T,
        q=Q,
        phi=phi,
        contrast=0.3,
        offset=1.0,
        noise=noise,
        key=jax.random.key(key),
    )


@pytest.fixture(scope="module")
def static():
    model = StaticDiffusion()
    return model, data_of(model, STATIC), space_of("static", {**STATIC, "D0": 20000.0})


def chi2_at(model, data, values):
    """Smallest chi-squared over one contrast and offset, pixel by pixel."""
    c = correlation(model, jnp.asarray(values), t=data.t, q=data.q, phi=data.phi)
    upper = np.triu(np.ones((T.size, T.size), bool), 1)
    y, x = np.asarray(data.c2)[:, upper].ravel(), np.asarray(c)[:, upper].ravel()
    a = np.stack([x, np.ones_like(x)], axis=1)
    return np.linalg.lstsq(a, y, rcond=None)[1][0]


def test_finds_the_truth_and_says_what_it_did(static):
    model, data, space = static
    fit = fit_nlsq(model, data, space)
    assert fit.converged
    assert fit.status.startswith("converged")
    assert fit.names == ("D0", "alpha", "D_offset")
    assert fit.per_angle_mode == "averaged"
    c = correlation(model, fit.values, t=T, q=Q, phi=PHI)
    truth = correlation(model, jnp.asarray(list(STATIC.values())), t=T, q=Q, phi=PHI)
    assert np.max(np.abs(c - truth)) < 0.02
    np.testing.assert_allclose(fit.contrast, 0.3, atol=0.003)
    np.testing.assert_allclose(fit.offset, 1.0, atol=0.002)
    np.testing.assert_allclose(fit.chi2, chi2_at(model, data, fit.values), rtol=1e-8)
    n = 4 * T.size * (T.size - 1) // 2
    assert int(fit.n_points) == n
    assert int(fit.dof) == n - 5
    assert abs(float(fit.reduced_chi2) - 1e-4) < 3e-6


def test_no_neighbour_is_better_and_the_result_is_not_the_start(static):
    model, data, space = static
    fit = fit_nlsq(model, data, space)
    best = chi2_at(model, data, fit.values)
    deviation = np.asarray(list(fit.uncertainties_iid.values()))
    for step in np.random.default_rng(0).normal(size=(20, 3)):
        assert chi2_at(model, data, np.asarray(fit.values) + 0.5 * deviation * step) > best
    assert fit.params["D0"] != 20000.0


@pytest.mark.statistics
def test_independent_noise_scatters_as_the_iid_uncertainties_say():
    model = StaticDiffusion()
    space = space_of("static", STATIC).with_vary({"D_offset": False})
    sets = [data_of(model, STATIC, key=k, phi=PHI[:1]) for k in range(60)]
    c2 = jnp.stack([d.c2 for d in sets])
    first = sets[0]

    def fit(c2):
        return fit_nlsq(model, TwoTimeData(c2, first.t, first.q, first.phi), space)

    fits = jax.jit(jax.vmap(fit))(c2)
    scatter = np.std(np.asarray(fits.values)[:, :2], axis=0, ddof=1)
    said = np.sqrt(np.mean(np.asarray(fits.covariance_iid), axis=0).diagonal())
    np.testing.assert_allclose(scatter / said, 1.0, atol=0.25)
    assert np.all(fits.result == RESULTS.successful)


def test_a_start_on_a_bound_moves_off_it_and_an_optimum_on_one_is_flagged(static):
    model, data, space = static
    for name in ("D0", "alpha", "D_offset"):
        for bound in space.bounds[name]:
            fit = fit_nlsq(model, data, space.with_values({name: bound}))
            assert fit.params[name] != bound or name in fit.at_bound
    tight = space.with_bounds({"alpha": (-0.2, 1.0)}).with_values({"alpha": 0.0})
    fit = fit_nlsq(model, data, tight)
    assert fit.at_bound == ("alpha",)
    assert fit.params["alpha"] == -0.2
    assert np.isnan(fit.uncertainties_iid["alpha"])
    assert np.isfinite(fit.uncertainties_iid["D0"])


def test_fixed_parameters_stay_and_scaling_bounds_are_respected(static):
    model, data, space = static
    fit = fit_nlsq(model, data, space.with_vary({"alpha": False}))
    assert fit.params["alpha"] == -0.4
    assert fit.names == ("D0", "D_offset")
    fit = fit_nlsq(
        model, data, space.with_bounds({"contrast": (0.05, 0.2)}).with_values({"contrast": 0.1})
    )
    assert np.all(np.asarray(fit.contrast) <= 0.2)
    assert "contrast" in fit.at_bound


@pytest.mark.long
def test_what_the_data_do_not_determine_is_said():
    model = TwoComponent()
    truth = {
        "D0_ref": 3e3, "alpha_ref": 0.0, "D_offset_ref": 0.0,
        "D0_sample": 1e3, "alpha_sample": 0.0, "D_offset_sample": 0.0,
        "v0": 100.0, "beta": 0.0, "v_offset": 0.0,
        "f0": 0.3, "f1": 0.05, "f2": 0.0, "f3": 0.0, "phi0": 0.0,
    }  # fmt: skip
    data = data_of(model, truth, phi=PHI[:1])
    fixed = [n for n in truth if n not in ("D0_ref", "D0_sample", "v0", "f0", "f1", "f2")]
    space = space_of("two_component", truth).with_vary(dict.fromkeys(fixed, False))
    fit = fit_nlsq(model, data, space)
    assert any("f0" in d and "f2" in d and "v0" not in d for d in fit.null_directions)
    assert np.isinf(fit.uncertainties_iid["f0"])
    assert np.isfinite(fit.uncertainties_iid["v0"])
    assert np.isfinite(fit.scaling_uncertainties["contrast"]).all()  # f0 and f2 leave it alone
    assert fit_nlsq(model, data, space.with_vary({"f2": False})).null_directions == ()


@pytest.mark.long
def test_a_combination_that_is_hardly_determined_is_said():
    """At alpha near 0 a power law is nearly a constant; two parameters have 1/sqrt(1 - |r|)."""
    values = {"D0": 2e4, "alpha": 0.005, "D_offset": 1e4}
    model, space = StaticDiffusion(), space_of("static", values).with_vary({"alpha": False})
    data = data_of(model, values, phi=PHI[:1])
    fit = fit_nlsq(model, data, space)
    iid = np.asarray(fit.covariance_iid)
    r = iid[0, 1] / np.sqrt(iid[0, 0] * iid[1, 1])
    (said,) = fit.sloppy_directions
    assert said.startswith("one combination of D0, D_offset is poorly determined")
    assert f" {(1 - abs(r)) ** -0.5:.0f} times" in said
    assert fit_nlsq(model, data, space.with_vary({"D_offset": False})).sloppy_directions == ()


@pytest.mark.long
def test_a_batch_of_wavevectors_is_fitted_as_each_alone():
    model, values = StaticDiffusion(), {"D0": 2e4, "alpha": -0.3, "D_offset": 0.0}
    space = space_of("static", values).with_vary({"D_offset": False})
    sets = [
        simulate(
            model, jnp.asarray(list(values.values())), t=T, q=q, phi=PHI[:1], contrast=0.3,
            offset=1.0, noise=0.01, key=jax.random.key(0),
        )
        for q in (0.003, 0.005, 0.008)
    ]  # fmt: skip
    batch = jax.tree.map(lambda *x: jnp.stack(x), *sets)
    fits = jax.jit(jax.vmap(lambda data: fit_nlsq(model, data, space)))(batch)
    for k, data in enumerate(sets):
        alone, one = fit_nlsq(model, data, space), jax.tree.map(lambda x, k=k: x[k], fits)
        assert one.converged
        np.testing.assert_allclose(one.values, alone.values, rtol=1e-6)
        np.testing.assert_allclose(one.covariance, alone.covariance, rtol=1e-4)
        assert one.status.split("(")[0] == alone.status.split("(")[0]


@pytest.mark.slow
def test_individual_contrast_per_angle_and_frozen_estimates():
    model = StaticDiffusion()
    data = data_of(model, STATIC)
    factor = jnp.asarray([0.5, 1.0, 1.5, 2.0])[:, None, None]
    data = TwoTimeData(1 + factor * (data.c2 - 1), data.t, data.q, data.phi)
    fit = fit_nlsq(model, data, space_of("static", STATIC), per_angle_mode="individual")
    np.testing.assert_allclose(fit.contrast, [0.15, 0.3, 0.45, 0.6], rtol=0.03)
    frozen = fit_nlsq(model, data, space_of("static", STATIC), per_angle_mode="constant")
    assert np.all(np.abs(np.asarray(frozen.contrast) - [0.15, 0.3, 0.45, 0.6]) > 1e-4)
    assert int(frozen.dof) == int(frozen.n_points) - 3


@pytest.mark.slow
def test_masked_and_nan_pixels_change_nothing_but_their_count(static):
    model, data, space = static
    mask = np.ones(data.c2.shape, bool)
    mask[:, :5] = mask[:, :, :5] = False
    spoilt = jnp.where(mask, data.c2, jnp.nan)
    masked = fit_nlsq(model, TwoTimeData(spoilt, data.t, data.q, data.phi, mask=mask), space)
    nan = fit_nlsq(model, TwoTimeData(spoilt, data.t, data.q, data.phi), space)
    cut = TwoTimeData(data.c2[:, 5:, 5:], data.t[5:], data.q, data.phi)
    np.testing.assert_allclose(masked.values, nan.values, rtol=1e-9)
    assert int(masked.n_points) == int(nan.n_points) == 4 * 55 * 54 // 2
    np.testing.assert_allclose(masked.chi2, fit_nlsq(model, cut, space).chi2, rtol=0.02)


@pytest.mark.long
def test_laminar_flow_from_a_start_well_off():
    model = LaminarFlow(gap=2e6, integration="exact")
    data = data_of(model, LAMINAR)
    start = {**LAMINAR, "D0": 14000.0, "gamma_dot_t0": 3.6e-3, "phi0": 0.0, "beta": 0.0}
    fit = fit_nlsq(model, data, space_of("laminar_flow", start))
    assert fit.converged
    assert abs(fit.params["phi0"] - 3.0) < 0.2
    truth = correlation(model, jnp.asarray(list(LAMINAR.values())), t=T, q=Q, phi=PHI)
    assert np.max(np.abs(correlation(model, fit.values, t=T, q=Q, phi=PHI) - truth)) < 0.01


def test_bad_input_is_one_sentence(static):
    model, data, space = static
    with pytest.raises(ValueError, match="LaminarFlow needs D0"):
        fit_nlsq(LaminarFlow(gap=2e6), data, space)
    nothing = TwoTimeData(data.c2.at[2].set(jnp.nan), data.t, data.q, data.phi)
    with pytest.raises(ValueError, match="phi = 100 degree has no usable pixel"):
        fit_nlsq(model, nothing, space)
    backwards = TwoTimeData(data.c2, data.t[::-1], data.q, data.phi)
    with pytest.raises(ValueError, match="increasing"):
        fit_nlsq(model, backwards, space)
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        fit_nlsq(model, data, space)


def test_the_step_limit_is_not_convergence(static):
    model, data, space = static
    fit = fit_nlsq(model, data, space, max_steps=2)
    assert not fit.converged
    assert "step limit" in fit.status
    with pytest.raises(RuntimeError, match="step limit"):
        fit_nlsq(model, data, space, max_steps=2, throw=True)


def compilations(run):
    """How often XLA was asked to compile while something ran."""
    counted = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(details)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(counted)


def test_another_number_does_not_compile_again(static):
    """Limits and scales are numbers of the compiled program, not part of it."""
    model, data, space = static
    fit_nlsq(model, data, space)
    moved = space.with_bounds({"D0": (100.0, 2e5)}).with_values({"D0": 2.5e4})
    changed = (
        lambda: fit_nlsq(model, data, space, tolerance=1e-3),
        lambda: fit_nlsq(model, data, space, max_steps=50),
        lambda: fit_nlsq(model, data, moved),
    )
    assert [compilations(run) for run in changed] == [0] * len(changed)


@pytest.mark.slow
def test_another_scale_of_a_robust_loss_does_not_compile_again(static):
    model, data, space = static
    fit_nlsq(model, data, space, loss="huber")
    for loss in (lambda: fit_nlsq(model, data, space, loss="huber", loss_scale=2.0),
                 lambda: fit_nlsq(model, data, space, loss=Huber(jnp.asarray(1.5)))):  # fmt: skip
        assert compilations(loss) == 0
