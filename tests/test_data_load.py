"""A configuration decides what is read."""

import numpy as np
import pytest

import twotime.config.manager as manager
from twotime.data import load_data, load_with_report
from twotime.data.selection import PhiFilter, Selection
from twotime.errors import DataError, DataNotFoundError

C2 = np.triu(np.random.default_rng(6).normal(1.2, 0.1, (3, 8, 8)))


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "a.npz", c2=C2, q=0.01, phi=[0.0, 45.0, 90.0], dt=0.5)
    return tmp_path


def config(folder, text="", data="", analyzer="", scattering=""):
    (folder / "run.yaml").write_text(
        f"""
analysis_mode: static
experimental_data: {{file_path: a.npz{data}}}
analyzer_parameters:
  scattering: {{wavevector_q: 0.01{scattering}}}
{analyzer}
{text}
"""
    )
    return manager.ConfigManager.from_yaml(folder / "run.yaml")


def test_the_shortest_configuration(folder):
    data, report = load_with_report(config(folder))
    assert data.phi.tolist() == [0.0, 45.0, 90.0]
    assert data.t == pytest.approx(0.5 * np.arange(1, 9))
    assert (report.layout, report.path) == ("npz", str(folder / "a.npz"))


def test_every_key_arrives(tmp_path):
    asked = manager.ConfigManager.from_dict(
        {
            "analysis_mode": "static",
            "experimental_data": {
                "file_path": "a.npy",
                "file_format": "npy",
                "roi_axis": "last",
                "average_triangles": True,
            },
            "analyzer_parameters": {
                "dt": 1,
                "dt_source": "config",
                "start_frame": 2,
                "end_frame": 7,
                "t0": 0,
                "scattering": {"wavevector_q": 1, "q_tolerance": 0.1, "phi_angles": [0, 30]},
            },
            "phi_filtering": {
                "ranges": [(-10, 10)],
                "include_angles": [30],
                "exclude_angles": [0],
                "tolerance": 2,
            },
            "hardware": {"memory_limit_gb": 2},
        },
        base_dir=tmp_path,
    )
    assert Selection.from_config(asked) == Selection(
        q=1.0,
        q_tolerance=0.1,
        phi_angles=(0.0, 30.0),
        phi=PhiFilter(((-10.0, 10.0),), (30.0,), (0.0,), 2.0),
        layout="npy",
        roi_axis="last",
        start_frame=2,
        end_frame=7,
        dt=1.0,
        dt_source="config",
        t0=0.0,
        average_triangles=True,
        memory_limit=2e9,
    )


def test_defaults_are_the_same_with_and_without_a_configuration(folder):
    assert Selection.from_config(config(folder)) == Selection(q=0.01)


def test_frames_and_angles(folder):
    data = load_data(
        config(
            folder,
            "phi_filtering: {ranges: [[40, 100]]}",
            analyzer="  start_frame: 3\n  end_frame: 6\n  t0: 0.25",
        )
    )
    assert data.phi.tolist() == [45.0, 90.0]
    assert data.t.tolist() == [0.25, 0.75, 1.25, 1.75]
    assert np.array_equal(np.triu(data.c2), np.triu(C2[1:, 2:6, 2:6]))


def test_the_cache_folder_is_used(folder):
    asked = config(folder, data=", cache_file_path: kept, cache_filename_template: c")
    first, second = load_data(asked), load_data(asked)
    assert np.array_equal(first.c2, second.c2)
    assert [p.name for p in (folder / "kept").iterdir()] == ["c.npz"]


def test_mistakes_are_sentences_about_the_file(folder):
    with pytest.raises(DataError, match="dt is 0.4 s in the configuration and 0.5 s in the file"):
        load_data(config(folder, analyzer="  dt: 0.4"))
    with pytest.raises(DataError, match="end_frame is 9 but the file has 8 frames"):
        load_data(config(folder, analyzer="  end_frame: 9"))
    (folder / "a.npz").unlink()
    with pytest.raises(DataNotFoundError, match="a.npz: there is no such data file"):
        load_data(config(folder))
