"""Damaged inputs: every file is read right, or refused in one sentence.

`python benchmarks/fuzz.py [--seed 0] [--data 7000] [--configs 1000] [--results 400] [--caches 400]`
(`python -m nox -s fuzz`). Files of every layout are mutated byte by byte and piece by piece,
configurations line by line, results and caches byte by byte. A worker opens them one after the
other; what it does with each is counted by kind. Faults are: an error that is not the package's,
a message that does not begin with the file or has several lines, a warning of a library, more than
10 s or 2 GB, a crash, and a matrix read at another q or angle than its own without a word.
"""

import argparse
import collections
import functools
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import jax
import numpy as np

import twotime as tt
from twotime import workflow
from twotime.config.files import template
from twotime.config.manager import ConfigManager, build_model
from twotime.data import Cache, load_cached
from twotime.data.inspect import inspect_file
from twotime.data.readers import open_source
from twotime.data.selection import Selection
from twotime.errors import TwoTimeError
from twotime.results import storage

FAULTS = ("foreign error", "raw message", "warning", "slow", "large", "hang", "crash", "wrong")
LONGEST, LARGEST = 10.0, 2**31
FRAMES, Q, PHI = 12, (0.002, 0.004), (0.0, 45.0, 90.0)
BINS = [(q, phi) for q in Q for phi in PHI]


def matrices(seed: int = 0) -> np.ndarray:
    """A matrix for each bin, whose corner (0, last) tells its place."""
    t = np.arange(FRAMES)
    c2 = 1 + 0.3 * np.exp(-0.2 * np.abs(t[:, None] - t)) + np.zeros((len(BINS), 1, 1))
    white = np.triu(np.random.default_rng(seed).normal(0, 0.003, c2.shape), 1)
    c2 += white + np.swapaxes(white, 1, 2)
    c2[:, 0, -1] = c2[:, -1, 0] = 1.05 + 0.001 * np.arange(len(BINS))
    return c2


# One file of every layout.


def write_tree(path: Path, tree: dict, attributes: dict | None = None) -> None:
    with h5py.File(path, "w") as file:
        for name, value in tree.items():
            file[name] = value
        for (node, name), value in (attributes or {}).items():
            file[node].attrs[name] = value


def apsu(path: Path) -> None:
    maps = "xpcs/twotime/correlation_map"
    upper = np.triu(matrices()).astype(np.float32)
    tree = {f"{maps}/c2_{k + 1:05d}": upper[k] for k in range(len(BINS))}
    write_tree(path, tree | {
        "xpcs/qmap/dynamic_v_list_dim0": Q, "xpcs/qmap/dynamic_v_list_dim1": (-45.0, *PHI),
        "xpcs/qmap/dynamic_index_mapping": np.array([1, 2, 3, 5, 6, 7], np.uint8),
        "xpcs/qmap/map_names": [b"q", b"phi"],
        "xpcs/qmap/map_units": ["Å⁻¹".encode(), b"deg"],
        "xpcs/twotime/processed_bins": np.arange(1, 7, dtype=np.int32),
        "xpcs/twotime/config/stride_frame": 1, "xpcs/twotime/config/avg_frame": 1,
        "xpcs/twotime/config/begin_frame": 0,
        "entry/instrument/detector_1/frame_time": 0.05,
    })  # fmt: skip


def aps_old(path: Path, *, masked: bool = False) -> None:
    q, phi = (np.array(x) for x in zip(*BINS, strict=True))
    if masked:
        q, phi = (np.insert(x, 2, np.nan) for x in (q, phi))
    upper = np.triu(matrices()).astype(np.float32)
    tree = {f"exchange/C2T_all/g2_{k + 1:05d}": upper[k] for k in range(len(BINS))}
    write_tree(path, tree | {
        "xpcs/dqlist": q[None], "xpcs/dphilist": phi[None], "xpcs/output_data": "/exchange",
        "xpcs/stride_frames": [[1]], "xpcs/avg_frames": [[1]], "xpcs/data_begin_todo": [[1]],
        "xpcs/qphi_bin_to_process": np.arange(1, 7)[:, None],
        "measurement/instrument/detector/exposure_period": [[0.05]],
    })  # fmt: skip


def nxxpcs(path: Path, *, keys: bool = False) -> None:
    name, c2 = "entry/twotime/two_time_corr_func", matrices()
    stored = {f"{name}/g2_{k + 1:05d}": c2[k] for k in range(len(c2))} if keys else {name: c2}
    q, phi = zip(*BINS, strict=True)
    write_tree(path, stored | {
        "entry/instrument/detector/frame_time": 0.05,
        "entry/instrument/masks/dynamic_q_list": q,
        "entry/instrument/masks/dynamic_phi_list": np.deg2rad(phi),
    }, {
        (name, "storage_mode"): "data_exchange_keys" if keys else "one_array_q_first",
        (name, "baseline_reference"): 1,
        ("entry/instrument/masks/dynamic_phi_list", "units"): "rad",
        ("entry/instrument/detector/frame_time", "units"): "s",
    })  # fmt: skip


def esrf(path: Path, *, square: bool = False) -> None:
    root, c2 = "entry_0000/correlations/full", matrices()
    first, lag = np.indices((FRAMES, FRAMES))
    inside = first + lag < FRAMES
    ages = np.arange(2 * FRAMES - 1) / 2
    values = np.full((len(c2), ages.size, FRAMES), np.nan)
    values[:, (2 * first + lag)[inside], lag[inside]] = c2[:, first[inside], (first + lag)[inside]]
    axes = {} if square else {
        f"{root}/twotime/age": 0.05 * ages, f"{root}/twotime/lag": 0.05 * np.arange(FRAMES)
    }  # fmt: skip
    q, phi = zip(*BINS, strict=True)
    write_tree(path, axes | {
        f"{root}/twotime/ttcf": c2 if square else values,
        f"{root}/parameters/q": q, f"{root}/parameters/phi": phi,
    }, {(f"{root}/parameters/q", "units"): "1/Å"})  # fmt: skip


def pychx(path: Path) -> None:
    tree = {"g12b": np.moveaxis(matrices(), 0, 2), "tausb": 0.05 * np.arange(FRAMES),
            "qval_dict": [1], "md": [1]}  # fmt: skip
    write_tree(path, tree, {("qval_dict", str(k)): b for k, b in enumerate(BINS)})


def named(path: Path) -> None:
    q, phi = zip(*BINS, strict=True)
    write_tree(path, {"c2": matrices(), "q": q, "phi": phi, "t": 0.05 * np.arange(1, FRAMES + 1),
                      "mask": np.ones((6, FRAMES, FRAMES), bool), "sigma": 0.01})  # fmt: skip


def npz(path: Path, *, compressed: bool = False, cache: bool = False) -> None:
    q, phi = zip(*BINS, strict=True)
    arrays = {"c2": matrices(), "q": q, "phi": phi, "dt": 0.05, "sigma": 0.01}
    if cache:
        t = 0.05 * np.arange(FRAMES)
        arrays = {"c2_exp": matrices(), "wavevector_q_list": q, "phi_angles_list": phi,
                  "t1": t, "t2": t}  # fmt: skip
    with path.open("wb") as stream:
        (np.savez_compressed if compressed else np.savez)(stream, **arrays)


def npy(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, matrices()[:1])


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "aps-u": apsu, "aps-old": aps_old, "aps-old masked": functools.partial(aps_old, masked=True),
    "nxxpcs": nxxpcs, "nxxpcs keys": functools.partial(nxxpcs, keys=True), "esrf": esrf,
    "esrf (t1, t2)": functools.partial(esrf, square=True), "pychx": pychx, "hdf5": named,
    "npz": npz, "npz compressed": functools.partial(npz, compressed=True),
    "cache": functools.partial(npz, cache=True), "npy": npy,
}  # fmt: skip


# Ways to damage bytes, pieces of HDF5, arrays and lines.


def flip(raw: bytes, rng: random.Random) -> bytes:
    """Bytes changed, swapped, put in, taken out or cut off."""
    data, kind = (
        bytearray(raw),
        rng.choice(("byte", "ff", "zero", "run", "swap", "in", "out", "cut")),
    )
    if not data:
        return raw
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        # The head of a file, where its structure is, as often as all the rest.
        k = rng.randrange(min(len(data), 2048)) if rng.random() < 0.5 else rng.randrange(len(data))
        length = rng.randrange(1, 64)
        if kind == "swap":
            other = rng.randrange(len(data))
            data[k], data[other] = data[other], data[k]
        elif kind == "cut":
            del data[max(k, 1) :]
        elif kind == "in":
            data[k:k] = rng.randbytes(rng.choice((1, 4, length)))
        elif kind == "out":
            del data[k : k + length]
        else:
            new = {"byte": rng.randbytes(1), "ff": b"\xff", "zero": b"\0"}.get(kind)
            new = rng.randbytes(length) if new is None else new
            data[k : k + len(new)] = new
        if not data:
            return b"\0"
    return bytes(data)


STRANGE = (
    np.nan, np.inf, -np.inf, -1, 0, 1e308, -1e308, 2**63 - 1, 1.5,
    "text", b"\xff\xfe", 1 + 2j, True,
)  # fmt: skip


def restructure(path: Path, rng: random.Random) -> None:
    """Replace a dataset of an HDF5 file, or one of its numbers, by something strange."""
    with h5py.File(path, "a") as file:
        nodes, folders = list[str](), list[str]()
        file.visititems(lambda n, x: (nodes if isinstance(x, h5py.Dataset) else folders).append(n))
        name = rng.choice(nodes if rng.random() < 0.8 or not folders else folders)
        node, kind = file[name], rng.randrange(15)
        value = node[()] if isinstance(node, h5py.Dataset) else np.zeros(3)
        if kind == 0 and isinstance(node, h5py.Dataset) and np.size(value):
            flat = np.array(value).astype(object).ravel()
            flat[rng.randrange(flat.size)] = rng.choice(STRANGE[:9])
            value = np.array(flat.tolist()).reshape(np.shape(value))
        elif kind == 1 and np.size(value) > 1:
            value = np.array(value)
            value.ravel()[:2] = value.ravel()[0]
        if kind == 2 and node.attrs:
            node.attrs[rng.choice(list(node.attrs))] = rng.choice(STRANGE)
            return
        del file[name]
        if kind in (0, 1):
            file[name] = value
        elif kind == 3:
            file[name] = h5py.SoftLink(rng.choice(("/no/where", f"/{name}", "/")))
        elif kind == 4:
            file[name] = h5py.ExternalLink("gone.h5", "/data")
        elif kind == 5:
            file.create_group(name)
        elif kind == 6:
            file[name] = h5py.Empty("f8")
        elif kind == 7:
            shape = rng.choice(
                ((2**20, 2**20), (8, 2**16, 2**16), (2**40,), (3,), (0,), (0, 0), ())
            )
            chunks = tuple(min(n, 64) for n in shape) if min(shape, default=0) > 0 else None
            file.create_dataset(name, shape, "f4", chunks=chunks)
        elif kind == 8:
            file[name] = np.dtype("f8")
        elif kind == 9:
            file[name] = rng.choice(STRANGE)
        elif kind == 10:
            file[name] = np.full(np.shape(value) or 1, rng.choice(STRANGE[:8]), float)
        elif kind == 11:
            file[name] = np.array([b"x", b"yy"])
        elif kind == 12:
            layout = h5py.VirtualLayout((4, FRAMES, FRAMES), "f8")
            layout[:] = h5py.VirtualSource("gone.h5", "c2", (4, FRAMES, FRAMES))
            file.create_virtual_dataset(name, layout)
        elif kind == 13 and np.ndim(value) and len(value) > 1:  # all others move up
            file[name] = np.delete(value, rng.randrange(len(value)), axis=0)
        # kind 14: the dataset is missing


def revalue(path: Path, rng: random.Random) -> None:
    """Replace an array of an npz file, or one of its numbers, by something strange."""
    with np.load(path) as file:
        arrays = dict(file)
    name = rng.choice(sorted(arrays))
    if rng.random() < 0.1 and arrays[name].ndim:
        arrays[name] = np.delete(arrays[name], rng.randrange(len(arrays[name])), axis=0)
    elif rng.random() < 0.5 and arrays[name].size:
        changed = arrays[name].astype(float)
        changed.ravel()[rng.randrange(changed.size)] = rng.choice(STRANGE[:6])
        arrays[name] = changed
    else:
        strange = (*STRANGE, [], [[1.0, 2.0]], np.zeros((3, 3, 3, 3)), np.ones((2, 3)))
        arrays[name] = np.array(rng.choice(strange))
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


WORDS = (
    "nan", ".inf", "-1", "0", "1e400", "9" * 400, "true", "null", "[]", "{}", "[1, [2, [3]]]",
    "&a [*a]", "*b", "!!python/object:os.system ls", "text", "'", '"', "{", "]", "- 1", "\x00",
    "2026-01-01", "1:30", "0x1f", "é", "\t", "? x", "---", "...", "%YAML 9.9", "<<: 3", "1_000",
)  # fmt: skip


def rewrite(text: str, rng: random.Random) -> bytes:
    """Lines of a configuration taken out, doubled, moved, or their values replaced."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        k = rng.randrange(len(lines))
        kind = rng.randrange(7)
        head, colon, _ = lines[k].partition(":")
        if kind == 0:
            del lines[k]
        elif kind == 1:
            lines.insert(rng.randrange(len(lines)), lines[k])
        elif kind == 2:
            lines[k] = f"{head}{colon} {rng.choice(WORDS)}"
        elif kind == 3:
            lines[k] = rng.choice(("  ", "\t", " ")) + lines[k]
        elif kind == 4:
            lines[k] = lines[k].lstrip()
        elif kind == 5:
            lines.insert(k, rng.choice(WORDS))
        else:
            return flip("\n".join(lines).encode(), rng)
        lines = lines or ["x"]
    return "\n".join(lines).encode()


# What is done with each, and what may not happen.


def is_sentence(error: Exception, path: Path) -> bool:
    text = str(error)
    own = text.startswith(f"{path}") or str(path) in text
    return own and (isinstance(error, tt.ConfigurationError) or "\n" not in text)


def use_data(path: Path, layout: str) -> str:
    """Read a damaged data file in every way; says what happened."""
    told, q = set[str](), Q[0]
    header = open_source(path)
    inspect_file(path)
    given = {"dt": 0.05} if layout in ("npy", "esrf (t1, t2)") else {}
    cache = Cache(path.parent, "kept.npz")
    data, report = load_cached(path, Selection(q=q, q_tolerance=0.3, **given), cache)
    told |= set(report.notes)
    for k, angle in enumerate(data.phi):
        place = round((float(data.c2[k, 0, -1]) - 1.05) / 0.001, 3)
        is_known = place in range(len(BINS)) and layout != "npy"
        if not is_known or told:
            continue
        true_q, true_phi = BINS[int(place)]
        # A changed number of a list is another number; a shifted one is a number of another bin.
        if (abs(true_q - float(data.q)) > 1e-9 and float(data.q) in Q) or (
            abs(true_phi - angle) > 1e-6 and any(abs(angle - other) < 1e-9 for other in PHI)
        ):
            return "wrong"
    return "read with notes" if told or header.notes else "read"


def use_config(path: Path, _: str) -> str:
    config = ConfigManager.from_yaml(path)
    build_model(config)
    Selection.from_config(config)
    return "read"


def use_result(path: Path, _: str) -> str:
    tt.load_result(path.parent)
    storage.read_arrays(path.parent)
    storage.read_curves(path.parent)
    return "read"


def use_cache(path: Path, _: str) -> str:
    source = path.parent / "source.npz"
    data, _ = load_cached(source, Selection(q=Q[0]), Cache(path.parent, path.name))
    return "read" if np.array_equal(data.c2, matrices()[:3]) else "wrong"


def outcome(use: Callable[[Path, str], str], path: Path, layout: str) -> tuple[str, str]:
    """What happened with a file, and the message."""
    began = time.process_time()  # waits are hangs, whatever else runs on the machine
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found, text = use(path, layout), ""
    except TwoTimeError as error:
        found, text = "refused" if is_sentence(error, path.parent) else "raw message", str(error)
    except Warning as error:
        found, text = "warning", repr(error)
    except Exception as error:
        found, text = "foreign error", repr(error)
    if time.process_time() - began > LONGEST:
        found = "slow"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > LARGEST / 1024:
        found = "large"
    return found, text


class Bases:
    """Whole inputs to damage, made once in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    @functools.cache  # noqa: B019  lives as long as the worker
    def data(self, layout: str) -> bytes:
        LAYOUTS[layout](self.folder / "base")
        return (self.folder / "base").read_bytes()

    @functools.cache  # noqa: B019
    def config(self, k: int) -> str:
        return template(("static", "laminar_flow", "two_component")[k % 3], full=k % 2 == 0)

    @functools.cache  # noqa: B019
    def result(self) -> Path:
        jax.config.update("jax_enable_x64", True)
        folder = self.folder / "run"
        folder.mkdir()
        np.savez(folder / "a.npz", c2=matrices(), q=Q[0], phi=np.arange(6) * 30.0, dt=0.05)
        config = ConfigManager.from_dict(
            {
                "analysis_mode": "static",
                "experimental_data": {"file_path": "a.npz"},
                "analyzer_parameters": {"scattering": {"wavevector_q": Q[0]}},
            },
            base_dir=folder,
        )
        workflow.run(config, folder / "result")
        return folder / "result"

    @functools.cache  # noqa: B019
    def cache(self) -> bytes:
        folder = self.folder / "kept"
        folder.mkdir()
        npz(folder / "source.npz")
        load_cached(folder / "source.npz", Selection(q=Q[0]), Cache(folder, "kept.npz"))
        return (folder / "kept.npz").read_bytes()


def case(kind: str, k: int, seed: int, bases: Bases) -> tuple[str, str, str]:
    """Make one damaged input and use it: (what it was, what happened, the message)."""
    rng, folder = random.Random(f"{kind} {seed} {k}"), bases.folder
    if kind == "data":
        layout = list(LAYOUTS)[k % len(LAYOUTS)]
        path = folder / f"damaged-{k % 7}.h5"
        path.write_bytes(bases.data(layout))
        is_hdf5 = path.read_bytes().startswith(b"\x89HDF")
        how = "bytes" if rng.random() < 0.5 or layout == "npy" else "structure"
        if how == "structure":
            (restructure if is_hdf5 else revalue)(path, rng)
        else:
            path.write_bytes(flip(path.read_bytes(), rng))
        found, text = outcome(use_data, path, layout)
        path.unlink()
        return f"{layout}, {how}", found, text
    if kind == "configs":
        path = folder / "run.yaml"
        path.write_bytes(rewrite(bases.config(k), rng))
        return "configuration", *outcome(use_config, path, "")
    if kind == "results":
        whole, copy = bases.result(), folder / "damaged"
        shutil.copytree(whole, copy)
        names = sorted(p.name for p in copy.iterdir() if p.suffix in (".json", ".npz"))
        path = copy / rng.choice(names)
        path.write_bytes(flip(path.read_bytes(), rng))
        found = outcome(use_result, path, "")
        shutil.rmtree(copy)
        return f"result, {path.name}", *found
    whole_cache = bases.cache()
    path = folder / "kept" / "kept.npz"
    path.write_bytes(flip(whole_cache, rng))
    return "cache", *outcome(use_cache, path, "")


def work(kind: str, first: int, last: int, seed: int) -> None:
    """Use inputs one after the other; writes a line before and after each."""
    with tempfile.TemporaryDirectory() as folder:
        bases = Bases(Path(folder))
        if kind == "results":
            bases.result()
        for k in range(first, last):
            print(json.dumps([k]), flush=True)
            print(json.dumps([k, *case(kind, k, seed, bases)]), flush=True)


def answers(kind: str, count: int, seed: int) -> Iterator[tuple[str, str, str, int]]:
    """What happened with each input, in workers that are replaced when they crash or hang."""
    first = 0
    while first < count:
        command = [sys.executable, __file__, "--work", kind, str(first), str(count), str(seed)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert worker.stdout is not None
        started, lines, buffer = first, 0, b""
        while True:
            limit = 2 * LONGEST if lines else 1200  # the first compiles
            ready, _, _ = select.select([worker.stdout], [], [], limit)
            chunk = os.read(worker.stdout.fileno(), 65536) if ready else b""
            if not chunk:
                break
            *whole, buffer = (buffer + chunk).split(b"\n")
            for line in whole:
                lines += 1
                k, *found = json.loads(line)
                started = k
                if found:
                    started = k + 1
                    yield (*found, k)
        hung = worker.poll() is None
        if hung:
            try:
                worker.wait(5)
                hung = False
            except subprocess.TimeoutExpired:
                worker.kill()
        error = worker.communicate()[1].decode(errors="replace")[-300:]
        if started < count:
            yield kind, "hang" if hung else "crash", error, started
            started += 1
        first = started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    for kind, count in (("data", 7000), ("configs", 1000), ("results", 400), ("caches", 400)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--work", nargs=4)
    given = parser.parse_args()
    if given.work:
        work(given.work[0], *map(int, given.work[1:]))
        return 0
    table: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    faults = list[str]()
    for kind in ("data", "configs", "results", "caches"):
        for what, found, text, k in answers(kind, getattr(given, kind), given.seed):
            table[what][found] += 1
            if found in FAULTS:
                faults.append(f"{kind} {k} ({what}): {found}: {text[:300]}")
                print(faults[-1], flush=True)
    for what, counts in sorted(table.items()):
        print(f"{what:24} {sum(counts.values()):6}  " + ", ".join(
            f"{found} {count}" for found, count in sorted(counts.items())))  # fmt: skip
    total = sum((counts for counts in table.values()), collections.Counter())
    print(f"{'all':24} {sum(total.values()):6}  {dict(sorted(total.items()))}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
