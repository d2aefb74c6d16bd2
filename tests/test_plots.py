"""Figures: what they show, that they are drawn without global state, and their names."""

import subprocess
import sys

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from test_results import make

import twotime as tt
from twotime.fit import Profile
from twotime.models.base import Curve
from twotime.plots import fit as plots
from twotime.results.nlsq import fitted_arrays
from twotime.results.shown import CELLS, shown_arrays, shown_of, without_diagonal


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Few dots an inch: files are written faster."""
    monkeypatch.setattr(plots, "DPI", 30)


def arrays(n_angles=2, n=20, seed=0, **changes):
    rng = np.random.default_rng(seed)
    t = 0.1 * np.arange(1, n + 1)
    lag = np.abs(t[:, None] - t[None, :])
    model = np.broadcast_to(1 + 0.3 * np.exp(-lag), (n_angles, n, n)).copy()
    noise = rng.normal(0, 0.01, model.shape)
    c2 = model + 0.5 * (noise + noise.swapaxes(1, 2))
    c2[:, np.arange(n), np.arange(n)] = 50.0  # shot noise
    known = {
        "t": t,
        "q": np.asarray(0.01),
        "phi": np.linspace(-60.4, 60.3, n_angles),
        "c2": c2,
        "model": model,
        "residual": c2 - model,
    }
    return known | changes


def images(figure):
    return [image for ax in figure.axes for image in ax.get_images()]


def test_data_and_model_share_a_scale_that_ignores_the_diagonal():
    figure = plots.maps(arrays(1))
    data, model, residual = images(figure)
    assert data.norm is model.norm
    assert 0.9 < data.norm.vmin < 1.1 and 1.2 < data.norm.vmax < 1.4
    assert residual.norm.vmin == -residual.norm.vmax
    assert 0.005 < residual.norm.vmax < 0.05
    np.testing.assert_allclose(data.get_extent(), [0.05, 2.05, 0.05, 2.05])


def test_one_matrix_scales_itself():
    given = arrays(1)
    image = plots.two_time(given["c2"][0], given["t"])
    assert 0.9 < image.norm.vmin < 1.1 and image.norm.vmax < 1.4
    assert image.axes.get_aspect() == 1.0
    plots.two_time(np.full((20, 20), np.nan), given["t"])


def test_axes_are_seconds_and_times_are_not_swapped():
    c2 = np.full((1, 20, 20), 1.0)
    c2[0, 3, 11] = 2.0  # t1 = 0.4 s, t2 = 1.2 s; not symmetric, to tell the axes apart
    shown = images(plots.maps(arrays(1, c2=c2)))[0].get_array()
    assert shown[11, 3] == 2.0  # row: t2, upwards; column: t1


def test_the_diagonal_is_the_mean_of_its_neighbours():
    matrix = np.arange(16.0).reshape(4, 4)
    shown = without_diagonal(matrix)
    np.testing.assert_allclose(np.diagonal(shown), [1, 3.5, 8.5, 11])
    np.testing.assert_allclose(shown[0, 1:], matrix[0, 1:])


def test_masked_pixels_are_not_shown():
    mask = np.ones((1, 20, 20), bool)
    mask[0, 5, :] = mask[0, :, 5] = False
    data, model, residual = (x.get_array() for x in images(plots.maps(arrays(1, mask=mask))))
    assert np.ma.getmaskarray(data)[5, 8] and np.ma.getmaskarray(residual)[5, 8]
    assert not np.ma.getmaskarray(model)[5, 8]


def test_unequal_steps_are_drawn_on_their_times():
    t = np.geomspace(0.1, 5.0, 20)
    mesh = plots.maps(arrays(1, t=t)).axes[0].collections[0]
    corners = mesh.get_coordinates()[0, :, 0]
    assert np.all((corners[:-1] < t) & (t < corners[1:]))


def test_cuts_are_means_over_the_same_pixels():
    given = arrays(1, 101)
    ax = plots.lag_cuts(given, 0)
    with pytest.raises(ValueError, match="angle 7 of 1; expected a position from 0 to 0"):
        plots.lag_cuts(given, 7)
    assert ax.get_xscale() == "log" and len(ax.lines) == 6
    points, line = ax.lines[2:4]
    np.testing.assert_array_equal(points.get_xdata(), line.get_xdata())
    np.testing.assert_allclose(line.get_ydata(), 1 + 0.3 * np.exp(-line.get_xdata()), atol=2e-3)
    assert 0.001 < np.std(points.get_ydata() - line.get_ydata()) < 0.01
    lags = line.get_xdata()
    assert np.isclose(lags[0], 0.1) and lags[-1] > 9 and np.all(np.diff(lags) > 0)


def test_cuts_leave_masked_pixels_out():
    mask = np.ones((1, 20, 20), bool)
    mask[0] = np.abs(np.subtract.outer(np.arange(20), np.arange(20))) > 3
    for line in plots.lag_cuts(arrays(1, mask=mask), 0).lines:
        assert line.get_xdata().min() > 0.35


def test_an_angle_without_pixels_is_drawn_empty():
    mask = np.zeros((1, 20, 20), bool)
    plots.maps(arrays(1, mask=mask)).canvas.draw()
    plots.cuts(arrays(1, mask=mask)).canvas.draw()


DEUTERANOPIA = np.array(  # Machado, Oliveira and Fernandes 2009, complete
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)


def test_colours_are_apart_for_readers_without_red_and_green():
    rgb = np.array([to_rgb(colour) for colour in plots.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for seen in (linear, linear @ DEUTERANOPIA.T):
        xyz = seen @ [[0.434, 0.2126, 0.0177], [0.3762, 0.7152, 0.1095], [0.1899, 0.0722, 0.8730]]
        root = np.cbrt(np.clip(xyz, 0, None))
        red, green, blue = root.T
        lab = np.stack([116 * green - 16, 500 * (red - green), 200 * (green - blue)], axis=1)
        apart = np.linalg.norm(lab[:, None] - lab, axis=2) + 1e3 * np.eye(len(lab))
        assert apart.min() > 15


def test_scaling_marks_bounds_and_has_error_bars():
    figure = plots.scaling(make(scaling_deviation=jnp.array([[0.02, 0.01], [jnp.inf, 0.03]])))
    contrast, offset = figure.axes
    (bar,) = contrast.collections[0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [0.28, 0.32])
    assert contrast.get_ylabel() == "contrast" and offset.get_xlabel() == "φ [degree]"
    np.testing.assert_allclose(contrast.lines[0].get_ydata(), [0.3, 0.25])
    np.testing.assert_allclose(contrast.lines[2].get_xdata(), [60.0])
    assert offset.lines[2].get_xdata().size == 0


def curve(values, deviation=0.0, unit="", symbol="x"):
    values = np.asarray(values)
    return Curve(values, unit, symbol, "What it is", values - deviation, values + deviation)


def test_functions_of_time_have_bands_and_units(tmp_path):
    t = np.linspace(0.1, 2.0, 30)
    curves = {
        "J_ref": curve(1e4 * t**-1.5, unit="Å²/s", symbol="J_r"),
        "D_ref": curve(5e3 * t**-1.5),
        "strain": curve(np.full(30, 5.0), 0.01),
        "v": curve(t - 1, 0.5, "Å/s", "v"),
    }
    first, second, third = plots.functions(curves, t).axes
    assert first.get_ylabel() == "$J_r$ [Å²/s]" and first.get_yscale() == "log"
    assert second.get_ylabel() == "x" and np.ptp(second.get_ylim()) > 0.9
    assert third.get_yscale() == "linear"
    band = third.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [-1.4, 1.5])
    found = plots.save_figures(tmp_path, make(), arrays(2, 30), curves)
    assert "functions.png" in found


def test_names_do_not_depend_on_the_angles(tmp_path):
    ones = jnp.ones(5)
    fit = make(
        phi=jnp.zeros(5), contrast=ones, offset=ones, scaling_at_bound=jnp.zeros((5, 2), bool)
    )
    found = plots.save_figures(tmp_path, fit, arrays(5, 12, phi=np.zeros(5)), {})
    assert found == ("maps_01.png", "maps_02.png", "cuts_01.png", "scaling.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(found)


@pytest.mark.parametrize("name", ["pdf", "svg"])
def test_figures_in_other_formats(tmp_path, name):
    figures = plots.figures_of(make(), arrays(2, 12), {})
    names = plots.save(tmp_path, {"scaling": figures["scaling"]}, name)
    assert names == (f"scaling.{name}",) and (tmp_path / names[0]).stat().st_size > 1000


def test_what_is_shown_of_a_fit_is_that_of_all_its_points():
    case = BY_NAME["static"]
    ones = jnp.ones(len(case.phi))
    known = lambda f: (f.values, f.contrast, f.offset)  # noqa: E731
    fit = eqx.tree_at(known, make(), (jnp.asarray(case.truth), 0.3 * ones, ones))
    full = fitted_arrays(fit, case.model, case.data)
    shown, want = shown_arrays(fit, case.model, case.data), shown_of(full)
    for key, values in want.items():
        np.testing.assert_allclose(shown[key], values, rtol=1e-5, atol=1e-6, err_msg=key)
    assert np.isfinite(shown["cut_c2"]).any() and shown["shown_c2"].dtype == np.float32


def test_figures_are_the_same_every_time(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        names = plots.save_figures(folder, make(), arrays(2, 12), {})
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_pages_hold_every_angle_once():
    for count in range(1, 30):
        pages = plots.pages(count, 4)
        assert [k for page in pages for k in page] == list(range(count))
        assert max(map(len, pages)) <= 4


def test_a_fit_that_did_not_converge_is_marked(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **_: titles.append(text))
    fit = make(phi=jnp.array([0.0, 60.0]), result=tt.RESULTS.nonlinear_max_steps_reached)
    plots.save_figures(tmp_path, fit, arrays(2), {})
    assert titles and all("not converged" in title for title in titles)


def test_importing_leaves_matplotlib_alone():
    code = (
        "import sys, matplotlib as m\n"
        "settings = lambda: {k: m.rcParams[k] for k in m.rcParams if k != 'backend'}\n"
        "before = settings(); import twotime.plots\n"
        "assert settings() == before and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_long_records_are_drawn_as_means_over_blocks_of_what_counts():
    n = 3 * CELLS - 1
    t = 0.1 * np.arange(1, n + 1)
    c2 = np.add.outer(t, t)
    mask = np.ones((n, n), bool)
    mask[:4, :] = mask[:, :4] = False
    image = plots.two_time(c2, t, mask=mask)
    shown = np.ma.filled(image.get_array().astype(float), np.nan)
    assert shown.shape == (CELLS - 1,) * 2
    assert np.isnan(shown[0]).all() and np.isnan(shown[:, 0]).all()  # frames 0 to 2
    assert shown[1, 9] == pytest.approx(t[4:6].mean() + t[27:30].mean())  # 3 to 5, without 3
    assert image.get_extent() == pytest.approx([0.05, t[-3] + 0.05] * 2)


def test_a_profile_is_drawn_with_the_intervals_that_it_reaches():
    root = np.linspace(-1.5, 2.5, 9)
    found = Profile(*map(jnp.asarray, (3.0 + 0.2 * root[::-1], root, root[::-1] ** 2)))
    ax = tt.plots.profile(found, "alpha", unit="s")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["68 %: 2.80 to 3.20 (half width 0.20)", "95 %: wider than the values profiled"]
    assert [float(line.get_ydata()[0]) for line in ax.lines[:2]] == [1.0, pytest.approx(1.96**2)]
    assert ax.get_xlabel() == "alpha [s]" and ax.get_ylabel()
