"""Results: saved and loaded bit for bit, put into words, written whole or not at all."""

import dataclasses
import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Array, Float

import twotime as tt
from twotime.models.base import Curve
from twotime.results import storage
from twotime.results.cmc import Limits
from twotime.results.judgement import Structure
from twotime.results.nlsq import fitted_arrays
from twotime.results.storage import Provenance


def misfit():
    """A judgement that calls the model wrong."""
    one = np.ones((2, 1))
    return Structure(
        lag=np.ones(1), by_lag=9 * one, lag_deviation=one, age=np.ones(1), by_age=one,
        age_deviation=one, phi=np.zeros(2), neighbours=np.zeros(2), chance=np.asarray(1e-4),
        share=np.asarray(0.02),
    )  # fmt: skip


def make(**changes):
    """A result as a fit of three parameters to two angles gives it, one on a bound."""
    fields = {
        "all_names": ("D0", "alpha", "D_offset", "extra"),
        "varying": (True, True, True, False),
        "units": ("Å²/s^(1+α)", "", "Å²/s", ""),
        "model": "StaticDiffusion",
        "asked_mode": "individual",
        "evaluator": "tiled",
        "asked_uncertainty": "independent pixels",
        "values": jnp.array([1234.567890123456, 0.1 + 0.2, -1e5, 0.5]),
        "lower": jnp.array([100.0, -2.0, -1e5, -jnp.inf]),
        "upper": jnp.array([1e5, 2.0, 1e5, jnp.inf]),
        "start": jnp.array([1e3, 0.0, 0.0, 0.5]),
        "phi": jnp.array([0.0, 60.0]),
        "contrast": jnp.array([0.3, 0.25]),
        "offset": jnp.array([1.0, -0.0]),
        "scaling_at_bound": jnp.array([[False, False], [True, False]]),
        "chi2": jnp.asarray(1e-3),
        "n_points": jnp.asarray(552),
        "dof": jnp.asarray(545),
        "total": jnp.asarray(1.0),
        "covariance": jnp.array([[4.0, 0.01, 0.0], [0.01, 1e-4, 0.0], [0.0, 0.0, 0.0]]),
        "covariance_iid": jnp.array([[1.0, 0.0, 0.0], [0.0, 1e-5, 0.0], [0.0, 0.0, 0.0]]),
        "held": jnp.array([False, False, True]),
        "eigenvalues": jnp.array([-1.0, 0.5, 1.5]),
        "eigenvectors": jnp.eye(3)[:, ::-1],
        "result": tt.RESULTS.successful,
        "gradient": jnp.asarray(1e-5),
        "step": jnp.asarray(jnp.nan),
        "n_evaluations": jnp.asarray(12),
        "photons": jnp.asarray(jnp.inf),
    }
    fields |= changes
    derived = {
        "pixels": jnp.full(fields["phi"].shape, 950.0),
        "starts": fields["start"][None],
        "ends": fields["values"][None],
        "ends_chi2": fields["chi2"][None],
        "ends_result": jax.tree.map(lambda x: jnp.asarray(x)[None], fields["result"]),
    }
    return tt.NLSQResult(**(derived | fields))


def same(a, b):
    """Whether two results agree in every bit of every leaf, and in all static fields."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.shape == y.shape
        assert x.tobytes() == y.tobytes()
    return True


JUDGED = Structure(
    lag=np.ones(2), by_lag=np.ones((2, 2)), lag_deviation=np.full((2, 2), np.inf), age=np.ones(2),
    by_age=np.ones((2, 2)), age_deviation=np.ones((2, 2)), phi=np.zeros(2), neighbours=np.zeros(2),
    chance=np.asarray(0.5), share=np.asarray(0.0),
)  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [{}, {"asked_mode": "auto", "is_shared": True, "own_scaling": np.eye(2), "structure": JUDGED}],
)
def test_load_restores_every_bit(tmp_path, fields):
    words = {k: x for k, x in fields.items() if isinstance(x, str)}
    arrays = {k: x for k, x in fields.items() if k not in words}
    fit = make(**words, **jax.tree.map(jnp.asarray, arrays))
    fit.save(tmp_path / "out")
    assert same(tt.load_result(tmp_path / "out"), fit)


@given(
    st.lists(
        st.floats(allow_nan=False, width=64) | st.sampled_from([math.nan, 5e-324, -0.0]),
        min_size=4,
        max_size=4,
    )
)
def test_any_number_survives_json(numbers):
    fit = make(values=jnp.asarray(np.array(numbers)))
    text = json.dumps(storage.fields_to_json(fit), allow_nan=False)
    assert same(storage.fields_from_json(tt.NLSQResult, json.loads(text)), fit)


class Other(eqx.Module):
    """A result of another kind, with all that fields may be."""

    single: Float[Array, " n"]
    limits: Limits
    seconds: float
    note: str | None = None
    later: int = 3


def test_other_kinds_of_fields_are_restored():
    value = Other(
        single=jnp.array([1 / 3, jnp.inf], jnp.float32),
        limits=Limits(min_ess=math.inf),
        seconds=math.nan,
        note=None,
    )
    packed = json.loads(json.dumps(storage.fields_to_json(value), allow_nan=False))
    back = storage.fields_from_json(Other, packed)
    assert back.limits == {
        f.name: getattr(value.limits, f.name) for f in dataclasses.fields(Limits)
    }
    assert same(back.single, value.single)
    assert math.isnan(back.seconds) and back.note is None
    del packed["later"]  # a field that newer versions added and that has a default
    assert storage.fields_from_json(Other, packed).later == 3


def test_intervals_are_of_the_logarithm_where_a_parameter_cannot_be_negative():
    fit, reach = make(), 1.959964
    found = fit.intervals()
    factor = math.exp(reach * 2.0 / 1234.567890123456)
    assert found["D0"] == pytest.approx((1234.567890123456 / factor, 1234.567890123456 * factor))
    assert found["alpha"] == pytest.approx((0.3 - reach * 0.01, 0.3 + reach * 0.01))
    assert np.isnan(found["D_offset"]).all() and "extra" not in found
    assert fit.intervals(0.6826895)["alpha"] == pytest.approx((0.29, 0.31))
    wide = make(covariance=jnp.diag(jnp.array([900.0**2, 4.0, 0.0])))
    assert wide.intervals()["alpha"] == (-2.0, 2.0)  # inside the bounds
    assert wide.intervals()["D0"] == pytest.approx((295.7, 5153), rel=1e-3)
    traced = jax.jit(lambda fit: fit.intervals(0.5)["alpha"][1])(fit)
    assert traced == pytest.approx(fit.intervals(0.5)["alpha"][1])
    several = jax.tree.map(lambda *x: jnp.stack(x), fit, wide)
    assert several.intervals()["D0"][0].tolist() == pytest.approx([found["D0"][0], 295.7], rel=1e-3)
    with pytest.raises(ValueError, match="level is 95; expected between 0 and 1"):
        fit.intervals(95)


def test_what_cannot_be_saved_is_refused():
    with pytest.raises(TypeError, match="note is of type object"):
        storage.fields_to_json(Other(jnp.ones(1), Limits(), 1.0, note=object()))  # type: ignore


def test_fields_of_another_version_are_told():
    packed = storage.fields_to_json(make())
    with pytest.raises(tt.ResultError, match="another version of twotime, .*'colour'"):
        storage.fields_from_json(tt.NLSQResult, packed | {"colour": "red"})
    del packed["chi2"]
    with pytest.raises(tt.ResultError, match="another version of twotime, .*'chi2'"):
        storage.fields_from_json(tt.NLSQResult, packed)


def test_a_damaged_field_is_told_with_the_folder(tmp_path):
    make().save(tmp_path / "out")
    path = tmp_path / "out" / "result.json"
    text = path.read_text()
    path.write_text(text.replace('"float64"', '"]loat64"', 1))
    with pytest.raises(tt.ResultError, match=f"^{tmp_path}/out: '.*' of the saved .* is damaged"):
        tt.load_result(tmp_path / "out")
    path.write_text(text.replace('"chi2":', '"chi[":'))
    with pytest.raises(tt.ResultError, match=f"^{tmp_path}/out: .*unknown or missing: 'chi"):
        tt.load_result(tmp_path / "out")


def test_restoring_asks_for_float64(tmp_path):
    make().save(tmp_path / "out")
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match="jax_enable_x64"):
            tt.load_result(tmp_path / "out")
    finally:
        jax.config.update("jax_enable_x64", True)


def test_result_json_says_all_that_is_small(tmp_path):
    origin = Provenance(
        settings={"analysis_mode": "static"},
        source={"file": Path("data.h5"), "sha256": "ab", "dt": 0.1},
        notes=("3 pixels masked",),
        metadata={"operator": "Ada"},
        wall_time=1.5,
    )
    make().save(tmp_path / "out", provenance=origin)
    content = json.loads((tmp_path / "out/result.json").read_text())
    assert content["source"] == {"file": "data.h5", "sha256": "ab", "dt": 0.1}
    assert content["settings"] == {"analysis_mode": "static"}
    assert content["wall_time_s"] == 1.5 and content["notes"] == ["3 pixels masked"]
    assert set(content["versions"]) == {
        "twotime", "jax", "jaxlib", "equinox", "optimistix", "numpy", "python",
    }  # fmt: skip
    found = content["result"]["parameters"]
    assert found["D0"]["value"] == 1234.567890123456
    assert found["D0"]["uncertainty"] == 2.0 and found["D0"]["uncertainty_iid"] == 1.0
    assert found["D_offset"]["uncertainty"] == "nan" and found["D_offset"]["at_bound"]
    assert found["extra"]["fitted"] is False and found["extra"]["uncertainty"] is None
    assert found["extra"]["upper"] == "inf"
    assert content["result"]["reduced_chi2"] == 1e-3 / 545
    assert sorted(content["files"]) == sorted(p.name for p in (tmp_path / "out").iterdir())


def test_arrays_hold_data_model_and_residual(tmp_path):
    model = tt.StaticDiffusion()
    t, phi = jnp.arange(1, 9) * 0.1, jnp.array([0.0, 60.0])
    data = tt.simulate(
        model, jnp.array([5e3, 0.0, 0.0]), t=t, q=0.01, phi=phi, contrast=0.3, offset=1.0,
        noise=0.01, key=jax.random.key(0),
    )  # fmt: skip
    data = tt.TwoTimeData(np.asarray(data.c2, np.float32), t, 0.01, phi, mask=data.c2 > 0)
    fit = make(
        values=jnp.array([5e3, 0.0, 0.0]),
        lower=jnp.zeros(3),
        upper=jnp.ones(3),
        start=jnp.ones(3),
        all_names=model.names,
        varying=(True, True, True),
        units=("", "", ""),
        offset=jnp.array([1.0, 1.1]),
    )
    fit.save(tmp_path / "out", model, data)
    arrays = storage.read_arrays(tmp_path / "out")
    assert set(arrays) == {
        "t", "q", "phi", "baseline", "c2", "mask", "model", "residual", "contrast", "offset",
    }  # fmt: skip
    expected = 0.25 * tt.correlation(model, fit.values, t=t, q=0.01, phi=phi)[1] + 1.1
    np.testing.assert_allclose(arrays["model"][1], expected, rtol=1e-6)
    np.testing.assert_array_equal(arrays["c2"], data.c2)
    np.testing.assert_allclose(arrays["c2"] - arrays["model"], arrays["residual"], atol=1e-6)
    assert arrays["model"].dtype == arrays["residual"].dtype == np.float32
    assert set(fitted_arrays(fit, model, data)) == set(arrays)
    with pytest.raises(TypeError, match="save got one of model and data; expected both"):
        fit.save(tmp_path / "half", model)
    assert not (tmp_path / "half").exists()


def test_functions_of_time_are_saved_and_told(tmp_path):
    values, *band = np.array([[1.0, 2.0, 3.0], [0.5, 1.9, 3.0], [1.5, 2.1, 3.0]])
    curves = {
        "J": Curve(values, "Å²/s", "J", "Growth rate", *band),
        "x_s": Curve(values, "", "x_s", "Part", *band),
    }
    make().save(tmp_path / "out", curves=curves)
    back = storage.read_curves(tmp_path / "out")
    assert list(back) == ["J", "x_s"]
    for name, curve in curves.items():
        assert same(back[name], curve)
    text = make().report(curves)
    assert "| J        | 1.00 ± 0.50 | 2.00 ± 0.10 | 3 ± 0      | Å²/s | Growth rate |" in text


def test_a_result_is_not_overwritten_unasked(tmp_path):
    first, second = make(), make(chi2=jnp.asarray(2.0))
    first.save(tmp_path / "out")
    with pytest.raises(tt.ResultError, match="already holds a result"):
        second.save(tmp_path / "out")
    assert same(tt.load_result(tmp_path / "out"), first)
    second.save(tmp_path / "out", overwrite=True)
    assert same(tt.load_result(tmp_path / "out"), second)


def test_a_folder_of_other_files_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(tt.ResultError, match="holds other files"):
        make().save(tmp_path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    make().save(tmp_path / "out")
    assert tt.load_result(tmp_path / "out").converged


def test_an_error_half_way_leaves_the_old_result(tmp_path):
    make().save(tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with (
        pytest.raises(KeyboardInterrupt),
        storage.new_folder(tmp_path / "out", overwrite=True) as t,
    ):
        (t / "arrays.npz").write_bytes(b"half")
        raise KeyboardInterrupt
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_is_no_result_is_told(tmp_path):
    with pytest.raises(tt.ResultError, match="holds no result"):
        tt.load_result(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(tt.ResultError, match="cannot be read"):
        tt.load_result(tmp_path)
    (tmp_path / "result.json").write_text("[1]")
    with pytest.raises(tt.ResultError, match="not written by twotime"):
        tt.load_result(tmp_path)
    (tmp_path / "result.json").write_text('{"kind": "Horoscope", "fields": {}}')
    with pytest.raises(tt.ResultError, match="kind 'Horoscope'"):
        tt.load_result(tmp_path)
    with pytest.raises(tt.ResultError, match="holds no arrays.npz"):
        storage.read_arrays(tmp_path)
    (tmp_path / "arrays.npz").write_bytes(b"PK half")
    with pytest.raises(tt.ResultError, match="cannot be read"):
        storage.read_arrays(tmp_path)


OLD = Path(__file__).parent / "data" / "results_0_1"
EXPECTED = json.loads((OLD / "expected.json").read_text())


def check_old_fit(fit, expected):
    """Every number that version 0.1 gave of a fit when it saved it."""
    expected = dict(expected)
    assert [[o.chi2, o.starts] for o in fit.optima] == expected.pop("optima")
    assert len(fit.null_directions) == expected.pop("null_directions")
    for name, value in expected.items():
        found = getattr(fit, name)
        found = tuple(found) if isinstance(found, list) else found
        np.testing.assert_equal(storage.plain(found), storage.plain(value), name)


@pytest.mark.parametrize("name", ["nlsq", "nlsq_huber"])
def test_fits_of_version_0_1_load(name, tmp_path):
    fit = tt.load_result(OLD / name)
    check_old_fit(fit, EXPECTED[name])
    fit.save(tmp_path / "again")
    assert same(tt.load_result(tmp_path / "again"), fit)
    with pytest.warns(DeprecationWarning, match="n_pixels is now called n_points"):
        assert fit.n_pixels == fit.n_points
    with pytest.warns(DeprecationWarning, match="code is now called result"):
        assert fit.code == (0 if fit.converged else 1)
    curves, arrays = storage.read_curves(OLD / "nlsq"), storage.read_arrays(OLD / "nlsq")
    assert list(curves) == ["J", "D"] and curves["J"].unit == "Å²/s"
    assert np.all(curves["J"].lower < curves["J"].upper) and arrays["c2"].shape == (2, 16, 16)


def test_angles_of_version_0_1_load():
    result = tt.load_result(OLD / "sequential")
    assert isinstance(result, tt.SequentialResult) and "| 50 " in result.report()
    for fit, expected in zip(result.fits, EXPECTED["sequential"], strict=True):
        check_old_fit(fit, expected)


@pytest.mark.parametrize("name", ["cmc", "cmc_shards"])
def test_posteriors_of_version_0_1_load(name, tmp_path):
    post, expected = tt.load_result(OLD / name), dict(EXPECTED[name])
    for quantity in ("contrast", "noise"):
        mean = getattr(post, quantity).mean(axis=(0, 1))
        np.testing.assert_array_equal(mean, expected.pop(quantity))
    np.testing.assert_array_equal(post.draws.mean(axis=(0, 1)), expected.pop("draws_mean"))
    for quantity, value in expected.items():
        assert getattr(post, quantity) == value, quantity
    assert post.n_shards == (2 if name == "cmc_shards" else 1) and post.limits == Limits()
    assert set(storage.read_curves(OLD / name)) == {"J", "D"}
    post.save(tmp_path / "again")
    again = tt.load_result(tmp_path / "again")
    assert same(again, post) and again.report() == post.report()
    with pytest.warns(DeprecationWarning, match="n_pixels is now called n_points"):
        assert post.n_pixels == post.n_points


def test_drifts_that_look_alike_are_named():
    fit = make(turn_per_frame=jnp.array([1.0, 3.0]))
    (said,) = fit.unseen
    assert "up to 3 rad a frame" in said and "3.28 and 9.28 rad a frame look alike" in said
    assert "1.09 and 3.09 times the fitted one" in said and said[1:] in fit.report()
    assert make(turn_per_frame=jnp.array([1.0, 1.9])).unseen == ()
