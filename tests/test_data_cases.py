"""Files that went wrong once, and what each must give; run where they are found."""

import numpy as np
import pytest
from cases import BY_NAME

import twotime as tt
from twotime.data import load_file
from twotime.data.inspect import inspect_file
from twotime.data.level import check_level
from twotime.data.readers import open_source
from twotime.data.selection import Selection
from twotime.errors import DataError
from twotime.start.units import unit_notes

FOUR = (0.0, 45.0, 90.0, 135.0)
READ = {
    # file: (wavevector, angles, dt, time of the first frame, words of a note or "")
    "old_matlab.h5": (0.002, (0.0, 45.0, 135.0), 0.05, 0.05, "bin k is their k-th number"),
    "old_begin.h5": (0.002, FOUR, 0.05, 5.05, "preceded by 100 frames"),
    "apsu_ms.h5": (0.002, FOUR, 0.05, 0.05, ""),
    "nx_ms.h5": (0.002, FOUR, 0.05, 0.05, ""),
    "nx_rad.h5": (0.002, FOUR, 0.05, 0.05, ""),
    "nx_two.h5": (0.002, FOUR, 0.05, 0.05, ""),
    "nx_tuples2.h5": (0.002, FOUR, 0.05, 0.05, ""),
    "nx_b1f.h5": (0.002, FOUR, 0.05, 0.05, ""),
    "nx_base0.nxs": (0.01, (0.0, 60.0, 120.0), 0.1, 0.1, "baseline of c2 is taken as 0"),
    "apsu_nanphi.h5": (0.004, (0.0, 45.0, 135.0), 0.05, 0.05, "q or phi is no number"),
    "apsu_part2.h5": (0.002, (0.0, 45.0, 135.0), 0.05, 0.05, "no matrix of bins 3"),
    "bad_frames.h5": (0.01, (0.0, 60.0, 120.0), 0.1, 0.1, "bad_frames: [21-23, 56, 81]"),
    "zeros.npz": (0.01, (0.0,), 0.1, 0.1, "48.41% of the elements are exactly 0"),
    "struct-aps-old-xpcs.dqlist-dup": (0.002, (0.0, 90.0) * 2, 0.05, 0.05, "several matrices"),
    "struct-hdf5-phi-scalar0": (0.002, (0.0, 0.0), 0.05, 0.05, "several matrices have q"),
}
_DAMAGED = "it is truncated, damaged or open for writing elsewhere; copy it again"
REFUSED = {
    "old_zper.h5": "dt from the file is 0 s; .* dt_source: config",
    "nx_ext.h5": "roi_1 cannot be read: it is a link to /d in nx_part1.h5",
    "f_extlink_gone.h5": "c2 cannot be read: it is a link to /deep/c2 in gone.h5",
    "f_softdead.h5": "c2 cannot be read: it is a link to /x/c",
    "apsu_begneg.h5": "from the end of the acquisition.* set analyzer_parameters.t0",
    "apsu_begin_neg100.h5": "from the end of the acquisition.* set analyzer_parameters.t0",
    "z_dtarr2.npz": "dt holds 24 numbers from 0.05 to 0.1; expected one",
    "z_siginf.npz": "sigma is no positive number",
    "npzval-dt-big": "dt from the file is 1e[+]308 s",
    "npzval-phi-nan": "no matrix has a q and an angle that are numbers",
    "npzval-sigma-inf": "sigma is no positive number",
    "npyhdr-2": "shape .0, 0.; expected",
    "npzt-neg": "the first frame is at -0.2 s",
    "flip-aps-old-141-ff": "names that are no text",
    "flip-aps-old-23-ff": f"exposure_period cannot be read: {_DAMAGED}",
    "flip-aps-old-41-ins": f"exchange/C2T_all cannot be read: {_DAMAGED}",
    "flip-aps-u-154-swap": f"correlation_map cannot be read: {_DAMAGED}",
    "flip-aps-u-2-run": f"frame_time cannot be read: {_DAMAGED}",
    "flip-aps-u-45-run": f"frame_time cannot be read: {_DAMAGED}",
    "flip-hdf5-35-swap": f"t cannot be read: {_DAMAGED}",
    "flip-npy-2-ff": f"the npy file cannot be read: {_DAMAGED}",
    "flip-npzc-101-swap": f"cannot be read: {_DAMAGED}",
    "flip-nxkeys-113-byte": "g2_00002. is not symmetric",
    "flip-nxkeys-183-ins": f"two_time_corr_func cannot be read: {_DAMAGED}",
    "flip-nxkeys-40-byte": f"two_time_corr_func cannot be read: {_DAMAGED}",
    "flip-nxxpcs-10-ff": "names that are no text",
    "flip-nxxpcs-20-swap": f"two_time_corr_func cannot be read: {_DAMAGED}",
    "flip-nxxpcs-5-ins": f"the root cannot be read: {_DAMAGED}",
    "struct-aps-old-exchange.C2T_all-dangling": "C2T_all cannot be read: it is a link to /no/where",
    "struct-aps-old-exchange.C2T_all.g2_00001-loop": "g2_00001 cannot be read: it is a link to",
    "struct-aps-u-entry.instrument.detector_1.frame_time-big": "dt from the file is 1e[+]308 s",
    "struct-aps-u-xpcs.qmap.dynamic_v_list_dim1-nan": "no matrix has a q and an angle",
    "struct-aps-u-xpcs.twotime.config.begin_frame-u64max": "begin_frame holds other than whole",
    "struct-aps-u-xpcs.twotime.correlation_map.c2_00001-group": "c2_00001 is a group; expected",
    "struct-hdf5-c2-loop": "c2 cannot be read: it is a link to /c2",
    "struct-hdf5-sigma-inf": "sigma is no positive number",
    "struct-hdf5-t-loop": "t cannot be read: it is a link to /t",
    "struct-nxkeys-entry.twotime.two_time_corr_func-loop": "corr_func cannot be read: it is a link",
    "struct-nxkeys-entry.twotime.two_time_corr_func.g2_00001-group": "g2_00001 is a group",
    "struct-nxxpcs-entry.instrument-null": "entry/instrument holds nothing",
    "struct-nxxpcs-entry.instrument.masks.dynamic_phi_list-nan": "no matrix has a q and an angle",
    "struct-nxxpcs-entry.twotime.two_time_corr_func-huge": "GB, of which the file stores 0 bytes",
    "struct-nxxpcs-entry.twotime.two_time_corr_func-namedtype": "is a type without numbers",
}
NOT_READERS = {
    "README.md", "mistakes.md",  # no data
    "contrast_varies.npz",  # of fits
    "old_qjit.h5", "ring_mean_q.npz", "two.npz", "const.npz", "alias.npz",  # below
}  # fmt: skip


@pytest.fixture
def folder(shared):
    found = shared / "data" / "cases"
    if not found.is_dir():
        pytest.skip("the cases are not here")
    return found


def test_every_case_has_its_answer(folder):
    assert {path.name for path in folder.iterdir()} <= {*READ, *REFUSED, *NOT_READERS}


@pytest.mark.parametrize("name", READ)
def test_is_read_right(folder, name):
    q, phi, dt, first, words = READ[name]
    data, report = load_file(folder / name, Selection(q=q))
    assert np.asarray(data.q) == pytest.approx(q)
    assert data.phi == pytest.approx(phi)
    assert report.dt == pytest.approx(dt) and data.t[0] == pytest.approx(first)
    assert words in " ".join(report.notes) and bool(words) == bool(report.notes)


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_a_sentence_with_file_and_dataset(folder, name):
    path = folder / name
    with pytest.raises(DataError, match=f"^{path}: .*{REFUSED[name]}") as caught:
        found = open_source(path)
        inspect_file(path)
        load_file(path, Selection(q=found.bins[0].q or 0.01))
    assert "\n" not in str(caught.value)


def test_what_the_configuration_gives_instead(folder):
    given = Selection(q=0.002, dt=0.05, dt_source="config")
    assert load_file(folder / "old_zper.h5", given)[1].dt == 0.05
    given = Selection(q=0.002, t0=3.0)
    assert load_file(folder / "apsu_begneg.h5", given)[0].t[0] == 3.0


@pytest.mark.parametrize(
    ("name", "q", "count"), [("old_qjit.h5", 0.002, 4), ("ring_mean_q.npz", 0.0054, 6)]
)
def test_a_ring_of_bins_with_own_wavevectors_is_one(folder, name, q, count):
    data, report = load_file(folder / name, Selection(q=q))
    assert data.phi.size == np.unique(data.q).size == count
    assert "mean wavevectors of their own" in " ".join(report.notes)
    nearest = float(data.q[0])
    one, report = load_file(folder / name, Selection(q=nearest, q_tolerance=1e-6))
    assert one.phi.size == 1 and f"{count - 1} matrices" in " ".join(report.notes)


def test_a_velocity_that_frames_are_too_long_for_is_told(folder):
    data, _ = load_file(folder / "alias.npz", Selection(q=0.01))
    (note,) = unit_notes(tt.TwoComponent(), data, BY_NAME["two_component"].space)
    assert "oscillates by 2.28 rad per frame; 4, 8.57" in note


@pytest.mark.parametrize(
    ("name", "words"), [("const.npz", "Nothing to fit"), ("two.npz", "Too few")]
)
def test_what_cannot_be_fitted_is_told_before_a_fit(folder, name, words):
    data, _ = load_file(folder / name, Selection(q=0.002))
    n_unknown = 3 if name == "two.npz" else 4
    with pytest.raises(ValueError, match=words):
        check_level(data, BY_NAME["static"].space, n_unknown)
