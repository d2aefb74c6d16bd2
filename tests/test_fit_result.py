"""Which end of several is the result of a fit, and what the result says of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME, CONTRAST, NOISE

import twotime as tt
from twotime.fit.result import choose_basin

T = np.arange(1, 41) * 0.1
TWO = tt.TwoComponent()
SLOW_FIRST = dict(zip(TWO.names, BY_NAME["two_component"].truth, strict=True)) | {
    "f0": 0.4, "f1": 0.0, "f3": 0.0,
}  # fmt: skip


def exchanged(params):
    """Components in each other's place, the share of a constant fraction with them."""
    names = ("D0", "alpha", "D_offset")
    out = dict(params)
    for name in names:
        out[f"{name}_ref"], out[f"{name}_sample"] = params[f"{name}_sample"], params[f"{name}_ref"]
    return out | {"f0": 1.0 - params["f0"]}


def row(params):
    return [params[name] for name in TWO.names]


def basins(rows, cost, converged=None, variance=1e-3):
    known = [True] * len(rows) if converged is None else converged
    return choose_basin(
        TWO, T, jnp.asarray(rows), jnp.asarray(cost), jnp.asarray(known), jnp.asarray(variance)
    )


OTHER = SLOW_FIRST | {"D0_sample": 9e4, "f0": 0.6}
LABELS = [row(exchanged(SLOW_FIRST)), row(SLOW_FIRST), row(OTHER)]


def test_of_labels_that_fit_alike_the_slower_reference_is_taken():
    found = basins(LABELS, [1.0, 1.0 + 5e-4, 2.0])
    assert int(found.best) == 1
    np.testing.assert_array_equal(found.same, [True, True, False])
    np.testing.assert_array_equal(found.exchanged, [True, False, False])


@pytest.mark.parametrize(
    ("cost", "converged"),
    [([1.0, 1.0 + 2e-3, 2.0], [True] * 3), ([1.0, 1.0 + 5e-4, 2.0], [True, False, True])],
)
def test_labels_that_fit_worse_or_did_not_converge_are_not_taken(cost, converged):
    found = basins(LABELS, cost, converged)
    assert int(found.best) == 0
    np.testing.assert_array_equal(found.same, [True, False, False])


def test_a_canonical_best_end_stays_the_result():
    found = basins(LABELS[1:] + LABELS[:1], [1.0, 2.0, 1.0 + 5e-4])
    assert int(found.best) == 0
    np.testing.assert_array_equal(found.same, [True, False, True])


def test_without_labels_ends_of_equal_cost_are_one_optimum():
    model, params = tt.StaticDiffusion(), jnp.asarray([[1e4, 0.0, 0.0]] * 4)
    cost = jnp.asarray([1.0 + 5e-7, jnp.inf, 1.0, 1.0 + 2e-6])
    found = choose_basin(model, T, params, cost, jnp.ones(4, bool), jnp.asarray(0.1))
    assert int(found.best) == 2 and found.exchanged is None
    np.testing.assert_array_equal(found.same, [True, False, True, False])


@pytest.mark.long
def test_one_start_obeys_the_convention_too():
    case, wrong = BY_NAME["two_component"], exchanged(SLOW_FIRST)
    noise = {"contrast": CONTRAST, "offset": 1.0, "noise": NOISE, "key": jax.random.key(3)}
    phi, t = jnp.asarray(case.phi), jnp.asarray(T)
    data = tt.simulate(TWO, jnp.asarray(row(SLOW_FIRST)), t=t, q=0.005, phi=phi, **noise)
    space = case.space.with_values(wrong).with_vary({"f1": False})
    fit = tt.fit_nlsq(TWO, data, space)
    assert fit.converged and fit.starts.shape == fit.ends.shape == (1, len(TWO.names))
    np.testing.assert_allclose(fit.start, row(wrong))
    for name in ("D0_ref", "D0_sample", "f0"):
        assert abs(fit.params[name] - SLOW_FIRST[name]) < 0.1 * SLOW_FIRST[name]
    assert fit.ends[0, 0] == pytest.approx(SLOW_FIRST["D0_sample"], rel=0.1)
    kept = tt.fit_nlsq(TWO, data, space.with_vary({"D0_ref": False}))
    assert kept.params["D0_ref"] == wrong["D0_ref"]


@pytest.fixture(scope="module")
def fit():
    case = BY_NAME["static"]
    starts = jnp.stack([jnp.asarray(case.space.initial), jnp.asarray([3e4, 0.1, 50.0])])
    space = case.space.with_bounds({"contrast": (0.05, 0.25)})
    return case, tt.fit_nlsq(case.model, case.data, space, starts=starts)


def test_the_result_adds_up(fit):
    case, found = fit
    points = len(case.phi) * case.data.t.size * (case.data.t.size - 1) // 2
    assert int(found.n_points) == points
    # Two parameters and the offsets are free; contrast is on its bound.
    assert int(found.dof) == points - 2 - 2 and found.per_angle_mode == "individual"
    np.testing.assert_array_equal(found.contrast, 0.25)
    np.testing.assert_array_equal(found.scaling_at_bound, [[True, False]] * 2)
    assert found.names == ("D0", "alpha") and found.params["D_offset"] == 50.0
    model = tt.correlation(
        case.model, found.values, t=case.data.t, q=case.data.q, phi=case.data.phi
    )
    upper = np.triu_indices(case.data.t.size, 1)
    data, model = (np.asarray(x)[:, *upper] for x in (case.data.c2, model))
    offset = np.asarray(found.offset)[:, None]
    chi2 = np.sum((data - 0.25 * model - offset) ** 2)
    assert float(found.chi2) == pytest.approx(chi2, rel=1e-9)
    total = np.sum((data - data.mean(axis=1, keepdims=True)) ** 2)
    assert float(found.total) == pytest.approx(total, rel=1e-9)
    assert float(found.reduced_chi2) == pytest.approx(chi2 / int(found.dof))


def test_ends_of_every_start_are_listed(fit):
    case, found = fit
    assert found.starts.shape == found.ends.shape == (2, 3)
    assert np.array_equal(found.starts[0], case.space.initial)
    assert np.all(found.ends_result == tt.RESULTS.successful)
    assert np.all(np.asarray(found.ends_same)) and found.ends_exchanged is None
    assert float(found.chi2) == float(found.ends_chi2.min())
    assert np.any(np.all(np.asarray(found.ends) == found.values, axis=1))


def test_independent_errors_are_those_of_the_dense_jacobian(fit):
    """Contrast is on its bound, the offset of each angle free."""
    case, found = fit
    upper = np.triu_indices(case.data.t.size, 1)

    def curve(x):
        params = jnp.asarray([x[0], x[1], 50.0])
        c = tt.correlation(case.model, params, t=case.data.t, q=case.data.q, phi=case.data.phi)
        return (0.25 * c)[:, *upper].ravel()

    free = np.asarray(found.values)[:2]
    offsets = np.repeat(np.eye(2), int(found.n_points) // 2, axis=0)
    jacobian = np.column_stack([jax.jacfwd(curve)(free), offsets])
    normal = np.linalg.inv(jacobian.T @ jacobian)[:2, :2] * float(found.reduced_chi2)
    np.testing.assert_allclose(found.covariance_iid, normal, rtol=1e-6)
    assert float(found.reduced_chi2) > NOISE**2 and CONTRAST > 0.25


FLOW = {"gamma_dot_t0": 2.7e-4, "beta": -0.9, "gamma_dot_t_offset": -0.016, "phi0": 2.0}


@pytest.fixture(scope="module")
def still():
    """A fit of flow, which is at its floor throughout, to a sample that only diffuses."""
    law, t, phi = tt.LaminarFlow(gap=2e6), 0.1 * jnp.arange(1, 41), jnp.asarray([0.0, 40.0, 80.0])
    values = {"D0": 2e4, "alpha": 0.0, "D_offset": 0.0} | FLOW
    params = jnp.asarray([values[name] for name in law.names])
    data = tt.simulate(
        law, params, t=t, q=0.01, phi=phi, contrast=0.3, offset=1.0, noise=0.02,
        key=jax.random.key(1),
    )  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": "laminar_flow"}).with_values(values)
    fixed = {name: name in {"D0", *FLOW} for name in law.names}
    return tt.fit_nlsq(law, data, space.with_vary(fixed))


def test_a_flow_that_does_not_show_has_no_error_bars(still):
    """Its deviations are some million times as wide as the bounds, where it is not on one."""
    assert abs(still.params["D0"] - 2e4) < 3 * still.uncertainties["D0"] < 2e3
    assert not np.isfinite([still.uncertainties[name] for name in FLOW]).any()
    said = " ".join(still.null_directions)
    assert all(name in said for name in FLOW if name not in still.at_bound)


def test_an_error_far_wider_than_the_bounds_is_no_error_bar(still):
    place = still.all_names.index("D0")
    deviation = np.sqrt(still.covariance[0, 0])
    for share, said in ((0.2, np.isfinite), (0.05, np.isinf)):
        upper = still.upper.at[place].set(still.lower[place] + share * deviation)
        assert said(eqx.tree_at(lambda fit: fit.upper, still, upper).uncertainties["D0"])
