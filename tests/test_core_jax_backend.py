"""The functional homodyne API: reference numbers, shapes, errors, derivatives, cache, reports."""

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.core import jax_backend as backend

PARAMS = jnp.asarray([2e4, 0.3, 5e3, 1e-3, -0.4, 2e-4, 6.0])
T = jnp.asarray(0.1 * np.arange(1, 7))
GRIDS = jnp.meshgrid(T, T, indexing="ij")
PHI = jnp.asarray([10.0, -65.0])
WHERE = {"phi": PHI, "q": 0.003, "L": 2.0e6}
SCALED = {**WHERE, "contrast": 0.3, "offset": 1.1, "dt": 0.1}
DATA = 1.2 * jnp.ones((2, 6, 6))


def calls(**changes):
    """Every documented function of times, as a call that still takes dt."""
    g1 = {**WHERE, **changes}
    g2 = {**SCALED, **changes}
    g2.pop("dt")
    factors = {"wavevector_q_squared_half_dt": 4.5e-7, "sinc_prefactor": 95.0}
    batch = jnp.stack([PARAMS, 1.1 * PARAMS])
    chi2 = {**g2, "data": DATA, "sigma": 0.01}
    scaling = {"contrast": 0.3, "offset": 1.1, "phi": PHI}
    return {
        "compute_g1_diffusion": partial(backend.compute_g1_diffusion, PARAMS, *GRIDS, 0.003),
        "compute_g1_shear": partial(backend.compute_g1_shear, PARAMS, *GRIDS, **g1),
        "compute_g1_total": partial(backend.compute_g1_total, PARAMS, *GRIDS, **g1),
        "compute_g2_scaled": partial(backend.compute_g2_scaled, PARAMS, *GRIDS, **g2),
        "compute_g2_scaled_with_factors": partial(
            backend.compute_g2_scaled_with_factors, PARAMS, *GRIDS, **factors, **scaling
        ),
        "compute_chi_squared": partial(
            backend.compute_chi_squared, PARAMS, t1=GRIDS[0], t2=GRIDS[1], **chi2
        ),
        "vectorized_g2_computation": partial(
            backend.vectorized_g2_computation, batch, *GRIDS, **g2
        ),
        "batch_chi_squared": partial(
            backend.batch_chi_squared, batch, t1=GRIDS[0], t2=GRIDS[1], **chi2
        ),
        "gradient_g2": partial(backend.gradient_g2, PARAMS, *GRIDS, **g2),
        "jacobian_g2": partial(backend.jacobian_g2, PARAMS, *GRIDS, **g2),
        "hessian_g2": partial(backend.hessian_g2, PARAMS, *GRIDS, **g2),
        "gradient_chi2": partial(backend.gradient_chi2, PARAMS, t1=GRIDS[0], t2=GRIDS[1], **chi2),
        "hessian_chi2": partial(backend.hessian_chi2, PARAMS, t1=GRIDS[0], t2=GRIDS[1], **chi2),
    }


# Numbers


def test_reference_numbers(shared):
    with np.load(shared / "reference" / "homodyne_backend_check.npz") as stored:
        cases = dict(stored)
    worst = dict.fromkeys(("g1_diffusion", "g1_shear", "g1_total", "g2_scaled"), 0.0)
    for kind in ("static", "laminar"):
        for i in range(len(cases[f"{kind}_q"])):
            case = {
                k.removeprefix(f"{kind}_"): v[i] for k, v in cases.items() if k.startswith(kind)
            }
            params, t, phi = case["params"], case["t"], case["phi"]
            q, L, dt = case["q"], case["L"], case["dt"]
            scaling = case["contrast"], case["offset"]
            found = {
                "g1_diffusion": backend.compute_g1_diffusion(params, t, t, q, dt),
                "g1_shear": backend.compute_g1_shear(params, t, t, phi, q, L, dt),
                "g1_total": backend.compute_g1_total(params, t, t, phi, q, L, dt),
                "g2_scaled": backend.compute_g2_scaled(params, t, t, phi, q, L, *scaling, dt),
            }
            for name, value in found.items():
                assert value.shape == case[name].shape
                worst[name] = max(worst[name], float(np.abs(value - case[name]).max()))
    print({name: f"{value:.1e}" for name, value in worst.items()})
    assert worst.pop("g1_diffusion") < 1e-9
    assert max(worst.values()) < 5e-5


def test_is_the_homodyne_convention_of_the_model():
    model = tt.LaminarFlow(gap=2.0e6, shear_convention="homodyne")
    c = tt.correlation(model, PARAMS, t=T, q=0.003, phi=PHI)
    g2 = backend.compute_g2_scaled(PARAMS, T, T, **SCALED)
    np.testing.assert_allclose(g2, 1.1 + 0.3 * c, rtol=1e-12)


def test_parts_and_factors_make_the_whole():
    diffusion = backend.compute_g1_diffusion(PARAMS, *GRIDS, 0.003, 0.1)
    shear = backend.compute_g1_shear(PARAMS, *GRIDS, **WHERE, dt=0.1)
    total = backend.compute_g1_total(PARAMS, *GRIDS, **WHERE, dt=0.1)
    assert diffusion.shape == (6, 6) and shear.shape == total.shape == (2, 6, 6)
    np.testing.assert_allclose(total, diffusion * shear, rtol=1e-14)
    assert (jnp.diagonal(total, axis1=1, axis2=2) == 1.0).all()
    g2 = backend.compute_g2_scaled(PARAMS, *GRIDS, **SCALED)
    np.testing.assert_allclose(g2, 1.1 + 0.3 * total**2, rtol=1e-14)
    by_factors = backend.compute_g2_scaled_with_factors(
        PARAMS, *GRIDS, PHI, 0.5 * 0.003**2 * 0.1, 0.003 * 2e6 * 0.1 / (2 * np.pi), 0.3, 1.1, 0.1
    )
    np.testing.assert_allclose(by_factors, g2, rtol=1e-14)
    chi2 = backend.compute_chi_squared(PARAMS, DATA, 0.01, *GRIDS, **SCALED)
    assert float(chi2) == pytest.approx(float((((DATA - g2) / 0.01) ** 2).sum()), rel=1e-13)


def test_fewer_than_seven_parameters_mean_no_shear():
    shear = backend.compute_g1_shear(PARAMS[:3], *GRIDS, **WHERE, dt=0.1)
    assert shear.shape == (2, 6, 6) and (shear == 1.0).all()
    assert backend.gradient_g2(PARAMS[:3], *GRIDS, **SCALED).shape == (3,)


@pytest.mark.parametrize(
    "times",
    [(T, T), (np.asarray(T), np.asarray(T)), jnp.meshgrid(T, T)],
    ids=["1-D", "numpy", "xy"],
)
def test_times_in_any_form(times):
    g2 = backend.compute_g2_scaled(PARAMS, *times, **SCALED)
    expected = backend.compute_g2_scaled(PARAMS, *GRIDS, **SCALED)
    np.testing.assert_allclose(g2, expected, rtol=1e-13)


def test_a_single_angle_and_a_single_frame():
    g2 = backend.compute_g2_scaled(PARAMS, *GRIDS, **{**SCALED, "phi": 10.0})
    assert g2.shape == (1, 6, 6)
    one = backend.compute_g2_scaled(PARAMS, T[:1], T[:1], **SCALED)
    np.testing.assert_allclose(one, np.full((2, 1, 1), 1.4))


def test_float32_stays_float32():
    single = [x.astype(jnp.float32) for x in (PARAMS, T, PHI)]
    g2 = backend.compute_g2_scaled(*single[:2], single[1], **{**SCALED, "phi": single[2]})
    assert g2.dtype == jnp.float32
    np.testing.assert_allclose(g2, backend.compute_g2_scaled(PARAMS, T, T, **SCALED), atol=1e-4)


def test_batches_are_loops():
    batch = jnp.stack([PARAMS, 1.1 * PARAMS, 0.7 * PARAMS])
    g2 = backend.vectorized_g2_computation(batch, *GRIDS, **SCALED)
    loop = [backend.compute_g2_scaled(params, *GRIDS, **SCALED) for params in batch]
    np.testing.assert_allclose(g2, np.stack(loop), rtol=1e-13)
    chi2 = backend.batch_chi_squared(batch, DATA, 0.01, *GRIDS, **SCALED)
    loop = [backend.compute_chi_squared(p, DATA, 0.01, *GRIDS, **SCALED) for p in batch]
    np.testing.assert_allclose(chi2, np.stack(loop), rtol=1e-12)


# Derivatives


def differences(function, scale):
    """Central differences by every parameter, the step relative to it."""
    steps = scale * np.abs(np.asarray(PARAMS))
    columns = []
    for k, step in enumerate(steps):
        move = step * jnp.eye(7)[k]
        columns.append((function(PARAMS + move) - function(PARAMS - move)) / (2 * step))
    return np.stack(columns, axis=-1)


def test_jacobian_and_its_sum():
    jacobian = backend.jacobian_g2(PARAMS, *GRIDS, **SCALED)
    assert jacobian.shape == (2, 6, 6, 7)
    expected = differences(lambda p: backend.compute_g2_scaled(p, *GRIDS, **SCALED), 1e-5)
    scale = np.abs(expected).max((0, 1, 2))
    np.testing.assert_allclose(jacobian / scale, expected / scale, atol=1e-8)
    gradient = backend.gradient_g2(PARAMS, *GRIDS, **SCALED)
    assert gradient.shape == (7,)
    np.testing.assert_allclose(gradient, jacobian.sum((0, 1, 2)), rtol=1e-10)


def test_hessian_of_the_sum():
    hessian = backend.hessian_g2(PARAMS, *GRIDS, **SCALED)
    expected = differences(lambda p: backend.gradient_g2(p, *GRIDS, **SCALED), 1e-5)
    unit = np.outer(np.asarray(PARAMS), np.asarray(PARAMS))
    np.testing.assert_allclose(hessian * unit, expected * unit, atol=1e-8)


def test_chi_squared_derivatives():
    where = (DATA, 0.01, *GRIDS)
    gradient = backend.gradient_chi2(PARAMS, *where, **SCALED)
    expected = differences(lambda p: backend.compute_chi_squared(p, *where, **SCALED), 1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)
    hessian = backend.hessian_chi2(PARAMS, *where, **SCALED)
    expected = differences(lambda p: backend.gradient_chi2(p, *where, **SCALED), 1e-5)
    unit = np.outer(np.asarray(PARAMS), np.asarray(PARAMS))
    scale = np.abs(expected * unit).max()
    np.testing.assert_allclose(hessian * unit / scale, expected * unit / scale, atol=1e-8)


def test_gradient_does_not_vanish_below_the_floor():
    params = PARAMS.at[2].set(-1e5)
    jacobian = backend.jacobian_g2(params, *GRIDS, **SCALED)
    off_diagonal = jacobian[0, 0, 1:, :3]
    assert jnp.isfinite(jacobian).all() and (off_diagonal != 0).all()


@pytest.mark.parametrize("alpha", [-1.5, -1.0, 0.0, 1.5])
def test_derivatives_are_finite_from_time_zero(alpha):
    params = PARAMS.at[1].set(alpha).at[4].set(alpha)
    for function in (backend.jacobian_g2, backend.hessian_g2):
        assert jnp.isfinite(function(params, T - T[0], T - T[0], **SCALED)).all()


def test_derivatives_have_the_signature_and_name_of_what_they_derive():
    expected = list(inspect.signature(backend.compute_g2_scaled).parameters)
    assert list(inspect.signature(backend.gradient_g2).parameters) == expected
    assert backend.hessian_chi2.__name__ == "hessian_chi2" and backend.hessian_chi2.__doc__


# Mistakes


@pytest.mark.parametrize("name", calls())
def test_dt_is_required_and_positive(name):
    call = calls()[name]
    for wrong in (None, np.array([0.1, 0.1]), jnp.asarray([0.1])):
        with pytest.raises(TypeError, match="dt is .*expected one number"):
            call(dt=wrong)
    for wrong in (0, -0.1, np.nan, np.inf, np.float64(0.0), np.array(-1.0), jnp.asarray(0.0)):
        with pytest.raises(ValueError, match="dt is .* s; expected a finite time"):
            call(dt=wrong)
    assert jnp.isfinite(call(dt=0.1)).all()


@pytest.mark.parametrize(
    "name", ["compute_g1_diffusion", "vectorized_g2_computation", "batch_chi_squared"]
)
def test_dt_left_out(name):
    with pytest.raises(TypeError, match="dt is None"):
        calls()[name]()


def test_traced_dt_is_taken_as_it_is():
    slope = jax.jit(
        jax.grad(lambda dt: backend.compute_g1_diffusion(PARAMS, T, T, 0.003, dt).sum())
    )
    assert float(slope(0.1)) < 0


def test_times_that_are_not_the_same_frames():
    with pytest.raises(ValueError, match="t1 and t2 hold different times"):
        backend.compute_g1_diffusion(PARAMS, T, T + 0.1, 0.003, 0.1)
    with pytest.raises(ValueError, match=r"shapes \(6,\) and \(5,\)"):
        backend.compute_g1_diffusion(PARAMS, T, T[:5], 0.003, 0.1)
    with pytest.raises(ValueError, match=r"shapes \(6, 6\) and \(6,\)"):
        backend.compute_g1_diffusion(PARAMS, GRIDS[0], T, 0.003, 0.1)


# The cache


@pytest.fixture
def counted():
    """Empty cache; a function that says what was counted since."""
    backend.clear_meshgrid_cache()
    before = backend.get_cache_stats()

    def since():
        after = backend.get_cache_stats()
        return {name: after[name] - before[name] for name in before if name != "hit_rate"}

    return since


def test_cache_returns_the_grid_and_counts(counted):
    first = backend.get_cached_meshgrid(T, T)
    for axis, expected in zip(first, GRIDS, strict=True):
        assert (axis == expected).all()
    again = backend.get_cached_meshgrid(np.asarray(T), T)
    assert again[0] is first[0]
    assert counted() == {
        "hits": 1, "misses": 1, "evictions": 0, "skipped_large": 0, "skipped_traced": 0,
        "cache_size": 1,
    }  # fmt: skip
    stats = backend.get_cache_stats()
    assert stats["hit_rate"] == stats["hits"] / (stats["hits"] + stats["misses"])
    backend.clear_meshgrid_cache()
    assert backend.get_cache_stats()["cache_size"] == 0


def test_cache_never_confuses_grids_with_the_same_ends(counted):
    other = T.at[2].set(0.31)
    assert float(backend.get_cached_meshgrid(T, T)[0][2, 0]) == pytest.approx(0.3)
    assert float(backend.get_cached_meshgrid(other, other)[0][2, 0]) == pytest.approx(0.31)
    assert float(backend.get_cached_meshgrid(T, other)[1][0, 2]) == pytest.approx(0.31)
    assert backend.get_cached_meshgrid(T.astype(jnp.float32), T)[0].dtype == jnp.float32
    assert counted()["misses"] == 4 and counted()["hits"] == 0


def test_cache_drops_the_least_recently_used(counted):
    times = [T + k for k in range(backend.MAX_ENTRIES + 1)]
    for t in times[:-1]:
        backend.get_cached_meshgrid(t, t)
    backend.get_cached_meshgrid(times[0], times[0])
    backend.get_cached_meshgrid(times[-1], times[-1])
    assert counted()["evictions"] == 1
    assert counted()["cache_size"] == backend.MAX_ENTRIES
    misses = counted()["misses"]
    backend.get_cached_meshgrid(times[0], times[0])
    assert counted()["misses"] == misses
    backend.get_cached_meshgrid(times[1], times[1])
    assert counted()["misses"] == misses + 1


def test_cache_leaves_out_traced_and_large_times(counted):
    traced = jax.jit(lambda t: backend.get_cached_meshgrid(t, t)[0])(T)
    assert (traced == GRIDS[0]).all()
    long = jnp.arange(backend.MAX_TIMES + 1.0)
    assert backend.get_cached_meshgrid(long, T)[0].shape == (len(long), 6)
    found = counted()
    assert found["skipped_traced"] == 1 and found["skipped_large"] == 1
    assert found["cache_size"] == found["misses"] == 0


def test_grids_come_back_as_they_are_and_mixtures_are_refused(counted):
    assert backend.get_cached_meshgrid(*GRIDS)[0] is GRIDS[0]
    with pytest.raises(ValueError, match="have 2 and 1 axes"):
        backend.get_cached_meshgrid(GRIDS[0], T)
    assert counted()["misses"] == 0


def test_cache_is_safe_between_threads(counted):
    times = [T + k for k in range(8)]

    def ask(k):
        t = times[k % 8]
        return bool((backend.get_cached_meshgrid(t, t)[0][:, 0] == t).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))
    found = counted()
    assert found["misses"] == 8 and found["hits"] == 392 and found["cache_size"] == 8


# Reports


def test_backend_is_validated_by_numbers():
    report = backend.validate_backend()
    assert report["jax_available"] and report["gradient_support"] and report["hessian_support"]
    assert report["precision"] == "float64"
    assert max(report["test_results"].values()) < 1e-13


def test_device_info_is_that_of_jax():
    info = backend.get_device_info()
    assert info["backend"] == jax.default_backend()
    assert info["device_count"] == len(jax.devices()) == len(info["devices"])


def test_performance_is_measured():
    summary = backend.get_performance_summary()
    assert 0 < summary["call_seconds"] < summary["compile_seconds"]
    assert summary["recommendations"] == []
    assert summary["meshgrid_cache"].keys() == backend.get_cache_stats().keys()


def test_flags():
    assert backend.jax_available is backend.JAX_AVAILABLE is True
    assert backend.numpy_gradients_available is False


def test_importing_starts_no_device_and_reports_see_float32():
    code = (
        "from jax._src import xla_bridge\n"
        "import twotime.core.jax_backend as backend\n"
        "assert not xla_bridge._backends\n"
        "report, summary = backend.validate_backend(), backend.get_performance_summary()\n"
        "assert report['precision'] == 'float32' and report['hessian_support'], report\n"
        "assert 'jax_enable_x64' in summary['recommendations'][0]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
