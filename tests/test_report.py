"""Reports: digits of numbers, tables, remarks, and one door from results to their descriptions."""

import dataclasses
import math
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_results import make, misfit

import twotime as tt
from twotime.fit import Profile
from twotime.models.base import Curve
from twotime.report import Description, between, error_text, fitted, with_error
from twotime.results.storage import Provenance, describe


def test_the_report_says_what_was_found():
    text = make().report({}, Provenance(notes=("q is near",), wall_time=2.0), ("maps_01.png",))
    assert text.startswith("# StaticDiffusion")
    assert "Converged: " in text
    assert "| D0        | 1234.6  | 2.0 " in text
    assert "| ± if independent |" in text and "on a bound" in text and "fixed" in text
    assert "D_offset is on its lower bound" in text and "contrast is on its bound" in text
    assert "variance of one point if no σ was given" in text
    assert "not a measure of quality" in text
    assert "0.99900" in text and "1.83486e-06" in text  # R², reduced chi-squared
    assert "q is near" in text and "2.0 s" in text and "![maps_01.png](maps_01.png)" in text


def test_the_report_names_null_directions_and_failure():
    fit = make(
        eigenvalues=jnp.array([-1.0, 1e-16, 1.5]), result=tt.RESULTS.nonlinear_max_steps_reached
    )
    text = fit.report()
    assert "Not converged" in text
    assert "The data do not determine alpha." in text and "| n/a " in text
    assert "poorly" not in text


def test_the_report_names_combinations_that_are_poorly_determined():
    pair = jnp.array([[0.7, 0.7, 0.1], [-0.7, 0.7, 0.0], [0.1, 0.1, 1.0]])
    fit = make(eigenvalues=jnp.array([4e-6, 1.0, 2.0]), eigenvectors=pair, held=jnp.zeros(3, bool))
    assert fit.null_directions == ()
    said = "One combination of D0, alpha is poorly determined: its error is 500 times that of each"
    assert said in fit.report()
    assert fit.summary()["sloppy_directions"] == fit.sloppy_directions


def test_intervals_are_told_of_amplitudes_whose_errors_are_nearly_as_large():
    def with_error(part: float) -> tt.NLSQResult:
        return make(covariance=jnp.diag(jnp.array([(part * 1234.567890123456) ** 2, 0.04, 0.0])))

    wide = with_error(0.31)
    low, high = wide.intervals()["D0"]
    assert f"With 95 %: D0 from {low:.3g} to {high:.3g}; the error is not symm" in wide.report()
    assert "alpha from" not in wide.report() and "With 95 %" not in with_error(0.29).report()
    found = wide.summary()["parameters"]
    assert (found["D0"]["low_95"], found["D0"]["high_95"]) == (low, high)
    assert found["extra"]["low_95"] is None


def test_one_column_of_uncertainties_where_both_are_the_same():
    fit = make()
    same_covariance = dataclasses.replace(fit, covariance=fit.covariance_iid)
    assert "if independent" not in same_covariance.report()


@pytest.mark.parametrize(
    ("value", "deviation", "shown"),
    [
        (29707.9, 671.4, "29710"),
        (-0.28115, 0.01003, "-0.281"),
        (0.5, None, "0.5"),
        (123456.7, math.inf, "123457"),
        (1.23456e-7, 2.3e-9, "1.235e-7"),
        (330.2, 1.8e6, "330"),
        (-0.0, None, "0"),
        (-0.0, 0.5, "0.000"),
        (999.96, 87000.0, "1000"),
        (-4.5678e8, 1.2e7, "-4.57e8"),
        (0.0, 0.013, "0.0000"),
        (1e-9, 0.25, "1.00e-9"),
        (0.999, 0.0996, "0.999"),
    ],
)
def test_values_have_the_digits_of_their_error(value, deviation, shown):
    assert with_error(value, deviation) == shown


def test_errors_have_two_digits_or_a_reason():
    shown = [error_text(x) for x in (None, math.nan, math.inf, 0.1037, 7603.3)]
    assert shown == ["fixed", "on a bound", "n/a", "0.10", "7600"]


def test_every_kind_of_result_has_a_description():
    fit = make()
    per_angle = ("phi", "contrast", "offset", "scaling_at_bound", "pixels")
    one = make(**{name: getattr(fit, name)[:1] for name in per_angle})
    both = tt.SequentialResult((one, one))
    for result, tables in ((fit, 3), (both, 1)):
        found = describe(result)
        assert isinstance(found, Description) and len(found.tables) == tables
        assert result.table == found.table and result.remarks == found.remarks
    assert len(describe(fit).tables[1].rows) == 2 and len(both.table.rows) == 2
    assert len(make(asked_mode="averaged").report().split("| all ")) == 2
    with pytest.raises(TypeError, match="int has no description"):
        describe(3)


def test_the_judgement_stands_under_the_tables_and_the_curves_after_the_parameters():
    curves = {"J": Curve(np.array([1.0, 2.0, 3.0]), "Å²/s", "J", "Growth rate")}
    fit = make(structure=misfit())
    text = fit.report(curves)
    assert "* The model does not describe the data" in text
    assert fit.summary()["judgement"]["is_right"] is False
    assert make().summary()["judgement"] is None
    assert "| J        | 1           | 2      | 3          | Å²/s | Growth rate |" in text
    assert text.index("**Parameters**") < text.index("**Functions of time**")
    assert text.index("**Functions of time**") < text.index("**Contrast and offset")


def test_several_starts_and_swapped_components_are_reported():
    fit = make(
        starts=jnp.ones((3, 4)),
        ends=jnp.ones((3, 4)),
        ends_chi2=jnp.array([1e-3, 1e-3, 5e-3]),
        ends_result=jnp.zeros(3, int),
        ends_same=jnp.array([True, True, False]),
        ends_exchanged=jnp.array([False, True, False]),
    )
    assert "Of 3 starts, these optima were found" in fit.report()
    assert "(number of starts): χ² = 0.001 (2), χ² = 0.005 (1)." in fit.report()
    assert "1 of them found the same fit with reference and sample swapped" in fit.report()


def test_a_robust_loss_is_described():
    fit = make(loss="huber", loss_scale=jnp.asarray(1.345), noise_level=jnp.array([0.1, 0.2]),
               cost=jnp.asarray(0.5))  # fmt: skip
    text = fit.report()
    assert "The robust loss huber was minimised" in text and "0.1 to 0.2" in text
    assert "| robust cost " in text
    assert "robust loss" not in make().report()


def test_bounds_are_named_with_the_key_that_widens_them():
    fit = make(values=jnp.array([1e5, 0.3, -1e5, 0.5]), held=jnp.array([True, False, True]))
    text = fit.report()
    assert "* D0 is on its upper bound 100000: widen parameters.D0.max." in text
    assert "* D_offset is on its lower bound -100000: widen parameters.D_offset.min." in text
    assert "* contrast is on its bound 0.25: widen parameters.contrast.min or" in text
    share = make(
        values=jnp.array([1e4, 0.0, 0.0, 0.5]), lower=jnp.array([100.0, 0.0, -1e5, -jnp.inf]),
        upper=jnp.array([1e5, 1.0, 1e5, jnp.inf]), held=jnp.array([False, True, False]),
    )  # fmt: skip
    assert "* alpha is on its lower bound 0: the limit of a share." in share.report()


@pytest.mark.parametrize(
    "changes",
    [
        {"covariance": jnp.array([[4.0, -0.0192, 0.0], [-0.0192, 1e-4, 0.0], [0.0, 0.0, 0.0]])},
        {"eigenvalues": jnp.array([-1.0, 1e-16, 1.5])},
    ],
)
def test_functions_lead_where_parameters_trade(changes):
    curves = {"J": Curve(np.array([1.0, 2.0, 3.0]), "Å²/s", "J", "Growth rate")}
    fit = make(**changes)
    text = fit.report(curves)
    assert text.index("**Functions of time**") < text.index("**Parameters**")
    assert fit.table.title == "Parameters"  # as before for programs
    assert fit.report().count("**Functions") == 0
    said = "* Strongly correlated: D0 and alpha (-0.960); the functions of time say more"
    assert (said in text) == ("covariance" in changes)
    less = make(covariance=jnp.array([[4.0, 0.0188, 0.0], [0.0188, 1e-4, 0.0], [0.0, 0.0, 0.0]]))
    assert "Strongly correlated" not in less.report(curves)


def test_a_result_shows_its_numbers_in_a_terminal_and_a_notebook():
    fit = make()
    lines = repr(fit).splitlines()
    assert len(lines) <= 40 and lines[0].startswith("StaticDiffusion: least squares")
    assert lines[1].startswith("Converged") and "1234.6" in repr(fit)
    assert "<td>1234.6</td>" in fit._repr_html_() and "<li>± is one" in fit._repr_html_()


def public_values():
    config = tt.ConfigManager.from_dict(
        {
            "analysis_mode": "laminar_flow",
            "experimental_data": {"file_path": "data.h5"},
            "analyzer_parameters": {
                "dt": 0.1,
                "scattering": {"wavevector_q": 0.005},
                "geometry": {"stator_rotor_gap": 2.0e6},
            },
        }
    )
    t, phi = np.arange(1.0, 5.0), np.array([0.0, 40.0])
    data = tt.TwoTimeData(
        np.ones((2, 4, 4)), t, 0.00341, phi, mask=np.arange(32).reshape(2, 4, 4) < 24
    )
    knots = tt.StaticDiffusion(transport=tt.Spline(knots=60))
    return [
        (tt.LaminarFlow(gap=2.0e6), ("gap=2000000.0",), "Shear rate at t = 1 s"),
        (config, ("laminar_flow", "0.01", "100000", "1/s^(1+β)"), "<td>gamma_dot_t0</td>"),
        (tt.ParameterSpace.of(tt.TwoComponent()), ("v0", "fixed"), "<td>v0</td>"),
        (tt.ParameterSpace.of(knots), ("rows more"), "<td>contrast</td>"),
        (tt.REGISTRIES["static"], ("1000", "Å²/s", "0.5"), "<td>100000</td>"),
        (data, ("0.00341", "0, 40", "25 % of the points", "1, 2, 3, 4"), "<td>0.00341</td>"),
        (make(), ("1234.6",), "<td>1234.6</td>"),
        (tt.ParameterManager.from_config({"analysis_mode": "two_component"}),
         ("ParameterManager", "D0_ref", "10000"), "<td>alpha_ref</td>"),
        (Profile(jnp.arange(60.0), 7 + jnp.arange(60.0), jnp.arange(60.0)),
         ("35", "rows more"), "<td>66</td>"),
        (tt.OneTime(jnp.array([0.5]), jnp.full((1, 1, 1), 1.25), jnp.full((1, 1, 1), 0.01),
                    np.ones((1, 2)), np.ones(1), np.ones(1)), ("τ [s]", "1.25"), "<td>0.01</td>"),
        (misfit(), ("Structure: the ", "lags", "frames"), "<td>lags</td>"),
    ]  # fmt: skip


@pytest.mark.parametrize(("value", "numbers", "cell"), public_values())
def test_every_value_shows_its_numbers_in_at_most_forty_lines(value, numbers, cell):
    text = repr(value)
    assert len(text.split("\n")) <= 40 and all(x in text for x in numbers), text
    html = value._repr_html_()
    assert cell in html and html.count("<table>") == html.count("</table>") > 0


def test_values_that_are_stacked_or_traced_print_their_structure():
    for value in (tt.ParameterSpace.of(tt.StaticDiffusion()), public_values()[5][0]):
        shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, value))  # noqa: B023
        stacked = jax.tree.map(lambda x: np.stack([x, x]), value)
        for x in (shapes, stacked):
            assert repr(x).startswith(f"{type(value).__name__}(") and x._repr_html_() is None


def test_results_that_are_stacked_or_traced_show_their_structure():
    several = jax.tree.map(lambda x: jnp.stack([x, x]), make())
    assert repr(several).startswith("NLSQResult(") and several._repr_html_() is None
    shown = []
    jax.eval_shape(lambda fit: shown.append(repr(fit)) or fit.chi2, make())
    assert shown[0].startswith("NLSQResult(")


def test_parameters_as_a_pandas_table_or_how_to_install_it(monkeypatch):
    given = {}

    class Frame(dict):
        @classmethod
        def from_dict(cls, rows, orient):
            given.update(rows=rows, orient=orient)
            return cls()

        def rename_axis(self, name):
            return name

    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=Frame))
    assert make().to_dataframe() == "parameter" and given["orient"] == "index"
    assert given["rows"]["D0"]["value"] == 1234.567890123456
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="to_dataframe needs pandas.*pip install pandas"):
        make().to_dataframe()


def test_parameters_as_an_xarray_data_set_or_how_to_install_it(monkeypatch):
    given = {}
    fake = types.SimpleNamespace(Dataset=lambda columns, **rest: given.update(columns, **rest))
    monkeypatch.setitem(sys.modules, "xarray", fake)
    make(scaling_deviation=jnp.array([[0.02, 0.01], [0.03, 0.04]])).to_xarray()
    assert given["contrast_uncertainty"][1].tolist() == pytest.approx([0.02, 0.03], nan_ok=True)
    assert given["value"][0] == "parameter" and given["value"][1][0] == 1234.567890123456
    assert np.isnan(given["uncertainty"][1][3]) and given["unit"][1][0] == "Å²/s^(1+α)"
    assert given["contrast"][0] == "matrix" and list(given["coords"]["phi"][1]) == [0.0, 60.0]
    assert given["coords"]["parameter"] == ["D0", "alpha", "D_offset", "extra"]
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match="to_xarray needs xarray.*pip install xarray"):
        make().to_xarray()


def numbers_of(text):
    return set(re.findall(r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?", text))


@pytest.mark.parametrize("width", [40, 47, 60, 80, 100, 120, 200])
def test_no_width_of_the_terminal_costs_a_digit(width):
    """Read back what stands in the terminal: nothing is cut, whatever is left out."""
    values = jnp.array([1234.567890123456, -0.3, -1e5, 0.5])
    curves = {"J": Curve(*np.array([[1.0, 2.0, 3.0]]), "Å²/s", "J", "Growth rate of the variance")}
    fit = make(values=values)
    text = describe(fit).terminal(curves, width)
    assert max(map(len, text.split("\n"))) <= width and "…" not in text
    for number in ("1234.6", "2.0", "-0.300", "-100000", "0.010", "0.3", "0.25", "0.99900"):
        assert number in numbers_of(text), number
    assert "on a bound" in text and "Fixed: extra = 0.5" in text
    first = [text.index(word) for word in ("D0", "Fixed", "Contrast and", "R²", "Functions of")]
    assert first == sorted(first)
    undetermined = make(eigenvalues=jnp.array([-1.0, 1e-16, 1.5]))
    text = describe(undetermined).terminal(curves, width)
    assert "n/a" in text and text.startswith("Functions of time")


def test_columns_are_left_out_in_order():
    fit = make()
    seen = [
        [word for word in ("start", "bounds", "if independent") if word in fitted(fit.table, width)]
        for width in (120, 85, 70, 50)
    ]
    full = ["start", "bounds", "if independent"]
    assert [full[len(full) - len(words) :] for words in seen] == seen and seen[0] == full
    assert seen[-1] == []


def test_no_value_is_shown_outside_its_bounds():
    assert between(1.9966, 0.3, 0.0, 1.997) == "1.997" and with_error(1.9966, 0.3) == "2.00"
    assert between(5.0, 0.3, 0.0, 1.0) == "5.00"  # where it is outside, it is shown there
