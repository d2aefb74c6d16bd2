"""Many fits from one configuration: items, table, what fails and what is there already."""

import csv
import io
import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_results import make

import twotime as tt
from twotime import batch, cli
from twotime.config.manager import ConfigManager
from twotime.data import load_data
from twotime.errors import ConfigurationError, ResultError, TwoTimeError
from twotime.models.base import Curve
from twotime.plots import many

Q = (0.01, 0.02)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a.h5 of two wavevectors, a damaged b.h5, and run.yaml."""
    monkeypatch.chdir(tmp_path)
    data = tt.simulate(
        tt.StaticDiffusion(), np.array([6e3, 0.0, 0.0]), t=0.1 * np.arange(1, 13.0),
        q=np.array(Q), phi=np.zeros(2), contrast=0.3, offset=1.0, noise=0.005,
        key=jax.random.key(0),
    )  # fmt: skip
    tt.write_apsu("a.h5", data)
    Path("b.h5").write_bytes(Path("a.h5").read_bytes()[:2000])
    Path("run.yaml").write_text(
        "analysis_mode: static\n"
        "experimental_data: {file_path: a.h5}\n"
        "analyzer_parameters: {scattering: {wavevector_q: all}}\n"
        "output: {output_dir: out}\n"
    )
    return tmp_path


@pytest.fixture
def fitted(monkeypatch):
    """Wavevectors that were fitted; results follow from them, J is proportional to 1/q."""
    seen = []

    def run(config, folder, *, overwrite, resume):
        q = config.wavevector_q
        seen.append(q)
        if q == fitted_faults.get("q"):
            raise ValueError("Nothing to fit:\n  here.")
        j = np.full(3, 1e3 / q)
        curve = Curve(j, "Å²/s", "J", "transport", 0.9 * j, 1.1 * j)
        make(values=jnp.array([q, 0.1, 0.0, 0.5])).save(folder, curves={"J": curve})

    fitted_faults = {}
    monkeypatch.setattr(batch.workflow, "without_figures", run)
    seen_and_faults = seen, fitted_faults
    return seen_and_faults


def config() -> ConfigManager:
    return ConfigManager.from_yaml("run.yaml")


def of_files(*names: str, **keys: str) -> ConfigManager:
    """The configuration with other files and keys about them."""
    changed = config().get_config()
    changed["experimental_data"] = {"file_path": list(names)} | keys
    return ConfigManager.from_dict(changed)


def rows(folder: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(folder, batch.TABLE).read_text())))


def test_each_wavevector_of_each_file_is_an_item(place):
    items = batch.items_of(of_files("a.h5", "b.h5"))
    assert [item.name for item in items] == ["a/q_0.01", "a/q_0.02", "b"]
    assert [item.config and item.config.wavevector_q for item in items] == [*Q, None]
    assert "b.h5" in items[2].fault and "the HDF5 file cannot be read" in items[2].fault
    assert [item.name for item in batch.items_of(config())] == ["q_0.01", "q_0.02"]
    together = batch.with_choice(config(), None, is_together=True)
    assert [item.name for item in batch.items_of(together)] == ["together"]
    Path("else").mkdir()
    Path("else/a.h5").write_bytes(Path("a.h5").read_bytes())
    with pytest.raises(TwoTimeError, match="several items .* folder a/q_0.01, a/q_0.02"):
        batch.items_of(of_files("a.h5", f"{place}/a.h5", "else/a.h5"))


def test_what_asks_for_many_fits(place):
    assert batch.is_batch(config())
    assert not batch.is_batch(batch.with_choice(config(), "0.01", is_together=False))
    assert not batch.is_batch(batch.with_choice(config(), "all", is_together=True))
    both = batch.with_choice(config(), "0.01,0.02", is_together=False)
    assert both.wavevector_q == [0.01, 0.02] and batch.is_batch(both)
    one = batch.with_choice(config(), "0.01", is_together=False, files=["b.h5"])
    assert not batch.is_batch(one) and one.data_file_path.name == "b.h5"
    all_files = batch.with_choice(config(), "0.01", is_together=False, files=["?.h5"])
    assert [path.name for path in all_files.data_file_paths] == ["a.h5", "b.h5"]
    assert batch.is_batch(all_files)
    repeats = batch.with_choice(
        of_files("a.h5", "b.h5", file_mode="average"), "0.01", is_together=False
    )
    assert not batch.is_batch(repeats)
    with pytest.raises(TwoTimeError, match="--q is 'some'; expected all"):
        batch.with_choice(config(), "some", is_together=False)


def test_several_wavevectors_load_as_one_value_only_if_they_are_fitted_together(place):
    with pytest.raises(ConfigurationError, match="expected one number, or q_mode: together"):
        load_data(config())
    data = load_data(batch.with_choice(config(), None, is_together=True))
    assert data.rings == (0, 1)


def test_a_failed_item_is_told_and_the_rest_goes_on(place, fitted):
    seen, faults = fitted
    faults["q"] = 0.01
    outcomes = batch.run(of_files("a.h5", "b.h5"), "out")
    assert seen == list(Q) and [x.is_good for x in outcomes] == [False, True, False]
    found = rows("out")
    assert [row["folder"] for row in found] == ["a/q_0.01", "a/q_0.02", "b"]
    assert [row["converged"] for row in found] == ["no", "yes", "no"]
    assert found[0]["status"] == "Nothing to fit: here." and found[0]["D0"] == ""
    assert (found[1]["D0"], found[1]["D0_error"], found[1]["q"]) == ("0.02", "2", "0.02")
    assert "cannot be read" in found[2]["status"]


def test_a_second_call_fits_what_is_missing(place, fitted):
    seen, faults = fitted
    faults["q"] = 0.02
    batch.run(config(), "out")
    faults.clear()
    told = []
    batch.run(config(), "out", progress=lambda x, k, n: told.append((x.item.name, k, n)))
    assert seen == [0.01, 0.02, 0.02] and told == [("q_0.01", 1, 2), ("q_0.02", 2, 2)]
    assert all(row["converged"] == "yes" for row in rows("out"))
    assert {"rates.png", "parameters.png"} < {path.name for path in Path("out").iterdir()}
    batch.run(config(), "out", overwrite=True)
    assert seen[3:] == list(Q)
    other = batch.with_choice(config(), "0.01,0.02", is_together=False)
    with pytest.raises(ResultError, match="a batch of another configuration"):
        batch.run(other, "out")
    Path("else").mkdir()
    Path("else/mine.txt").write_text("")
    with pytest.raises(ResultError, match="holds other files and no batch"):
        batch.run(config(), "else")


def test_figures_are_drawn_where_they_are_missing_and_asked_for(place, fitted, monkeypatch):
    drawn = []

    def draw(folder, format):
        if folder.name == "q_0.02" and not drawn.count((folder.name, format)):
            drawn.append((folder.name, format))
            raise OSError("no space left")
        drawn.append((folder.name, format))

    monkeypatch.setattr(batch, "draw_missing", draw)
    outcomes = batch.run(config(), "out")
    assert [(x.is_good, x.fault) for x in outcomes] == [(True, ""), (False, "no space left")]
    assert drawn == [("q_0.01", "png"), ("q_0.02", "png")] and rows("out")[1]["D0"] == ""
    assert all(x.is_good for x in batch.run(config(), "out")) and len(drawn) == 4
    assert fitted[0] == list(Q)
    without = config().get_config() | {"output": {"figures": False}}
    batch.run(ConfigManager.from_dict(without), "bare")
    assert len(drawn) == 4


def test_items_are_fitted_side_by_side_and_say_the_same(place, fitted, caplog):
    seen, faults = fitted
    faults["q"], told = 0.02, []
    with ThreadPoolExecutor(2) as pool, caplog.at_level("INFO", "twotime"):
        outcomes = batch.run(
            config(), "out", pool=pool, progress=lambda x, k, n: told.append((x.item.name, k, n))
        )
    assert sorted(seen) == list(Q) and told == [("q_0.01", 1, 2), ("q_0.02", 2, 2)]
    assert [x.is_good for x in outcomes] == [True, False]
    assert rows("out")[0]["D0"] == "0.01" and rows("out")[1]["status"] == "Nothing to fit: here."
    assert "q_0.02: Nothing to fit" in caplog.text


def test_a_process_that_ends_is_told_and_the_rest_goes_on(place, fitted):
    class Broken(ThreadPoolExecutor):
        def submit(self, call, item, *rest):
            if item.q != 0.01:
                return super().submit(call, item, *rest)
            future = Future()
            future.set_exception(BrokenProcessPool("A process in the pool was terminated."))
            return future

    with Broken(1) as pool:
        outcomes = batch.run(config(), "out", pool=pool)
    assert [x.is_good for x in outcomes] == [False, True] and "--jobs 1" in outcomes[0].fault


@pytest.mark.long
def test_processes_find_the_same_numbers(place, capsys):
    for name, jobs in (("one", "1"), ("two", "2")):
        assert cli.main(["fit", "run.yaml", "-o", name, "--jobs", jobs]) == 0
    assert rows("one") == rows("two")
    out = capsys.readouterr().err
    assert out.count("wrote two/q_0.0") == 2 and out.count("2 of 2") == 2
    for q in Q:
        drawn = [{x.name for x in Path(name, f"q_{q}").glob("*.png")} for name in ("one", "two")]
        assert drawn[0] == drawn[1] != set()


def test_interrupted_sampling_goes_on(place, fitted, monkeypatch):
    seen, _ = fitted
    begun, run = [], batch.workflow.without_figures

    def noted(config, folder, *, overwrite, resume):
        begun.append((folder.name, resume))
        run(config, folder, overwrite=overwrite, resume=resume)

    monkeypatch.setattr(batch.workflow, "without_figures", noted)
    both = batch.workflow.with_method(config(), "both")
    Path("out/q_0.02.run").mkdir(parents=True)  # kept draws
    (Path("out") / batch.RECORD).write_text(json.dumps({"settings": both.get_config()}))
    batch.run(both, "out")
    # The fits are there, their posteriors not.
    batch.run(both, "out")
    assert begun == [("q_0.01", False), ("q_0.02", True)] * 2


def test_the_table_as_a_dataset(place, fitted, monkeypatch):
    xarray = pytest.importorskip("xarray")
    fitted[1]["q"] = 0.02
    batch.run(of_files("a.h5", "b.h5"), "out")
    found = batch.to_xarray("out")
    assert isinstance(found, xarray.Dataset) and found.sizes == {"file": 2, "q": 2}
    one = found.sel(file="a.h5", q=0.01)
    assert float(one["D0"]) == 0.01 and float(one["D0_error"]) == 2 and bool(one["converged"])
    assert np.isnan(found["D0"].sel(file="a.h5", q=0.02))
    assert "cannot be read" in str(found["status"].sel(file="b.h5", q=0.01).item())
    with pytest.raises(ResultError, match="holds no table.csv"):
        batch.to_xarray(".")


def test_a_dataset_needs_xarray(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ModuleNotFoundError, match="needs xarray, .* pip install xarray"):
        batch.to_xarray(".")


def test_rates_against_the_wavevector(place, fitted):
    found = {s.name: s for s in batch.series(batch.run(config(), "out"))}
    rate = found["Γ (J)"]
    q = np.array(Q)
    np.testing.assert_allclose(rate.value, 0.5 * q**2 * 1e3 / q)
    np.testing.assert_allclose(rate.error, 0.1 * rate.value)
    slope, error = many.slope(rate)
    assert slope == pytest.approx(0.5)  # J is proportional to 1/q here
    assert error == pytest.approx(0.1 / (np.log(4) / np.sqrt(2)))
    assert found["D0"].unit == "Å²/s^(1+α)" and found["D0"].value.tolist() == list(Q)
    figure = many.rates([rate])
    assert "slope 0.5 ± 0.1" in figure.axes[0].get_legend().get_texts()[0].get_text()


def test_the_command_line_fits_all(place, fitted, capsys):
    _, faults = fitted
    assert cli.main(["fit", "run.yaml", "--q", "0.01", "--jobs", "1"]) == 1
    assert "--jobs has no effect on one fit" in capsys.readouterr().err
    assert cli.main(["fit", "run.yaml", "--data", "a.h5", "--q", "all", "-o", "all"]) == 0
    assert "2 fits in all: 0 failed" in capsys.readouterr().out
    faults["q"] = 0.02
    assert cli.main(["fit", "run.yaml", "--data", "*.h5", "-o", "files"]) == 2
    out = capsys.readouterr().out
    assert "3 fits in files: 2 failed" in out and "failed: a/q_0.02: Nothing to fit: here." in out
    settings = json.loads(Path("files", batch.RECORD).read_text())["settings"]
    assert settings["analyzer_parameters"]["scattering"]["wavevector_q"] == "all"
