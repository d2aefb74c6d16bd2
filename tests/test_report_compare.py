"""Fits of several laws compared."""

import dataclasses
import math

import jax.numpy as jnp
import pytest
from test_results import make

import twotime as tt


def fits():
    """A fit, and a worse one with one parameter less; the noise makes 4 points count as one."""
    few = make(covariance=4 * jnp.eye(3), covariance_iid=jnp.eye(3))
    worse = dataclasses.replace(few, chi2=1.1 * few.chi2, dof=few.dof + 1)
    return {"worse": worse, "better": few}


def test_criteria_count_independent_points_and_fitted_parameters():
    found = tt.compare(fits())
    assert found.points == 552 / 4 and list(found.rows) == ["better", "worse"]
    better, worse = found.rows["better"], found.rows["worse"]
    assert (better["fitted"], worse["fitted"]) == (7, 6) and better["aic"] == better["bic"] == 0
    assert worse["aic"] == pytest.approx(138 * math.log(1.1) - 2)
    assert worse["bic"] == pytest.approx(138 * math.log(1.1) - math.log(138))
    assert worse["is_right"] is None and worse["misfit"] is None and worse["converged"] is True


def test_a_comparison_is_a_table():
    found = tt.compare(fits())
    text = repr(found)
    assert len(text.splitlines()) == 3 and "ΔAIC" in text and "not judged" in text
    assert found._repr_html_().count("<tr>") == 3
    pandas = pytest.importorskip("pandas")
    assert isinstance(found.to_dataframe(), pandas.DataFrame)


def test_what_cannot_be_compared_is_refused():
    one, other = fits().values()
    with pytest.raises(ValueError, match="two fits or more; got 1"):
        tt.compare({"a": one})
    with pytest.raises(ValueError, match="'b' was fitted to other data than 'a'"):
        tt.compare({"a": one, "b": dataclasses.replace(other, n_points=jnp.asarray(500))})
    with pytest.raises(ValueError, match="'b' was fitted to other data"):
        tt.compare({"a": one, "b": dataclasses.replace(other, total=2 * other.total)})
    robust = dataclasses.replace(other, loss="huber")
    with pytest.raises(ValueError, match="'b' minimised 'huber'"):
        tt.compare({"a": one, "b": robust})
    with pytest.raises(TypeError, match="'b' is a int"):
        tt.compare({"a": one, "b": 3})
