"""Time and memory of whole commands by stage: `twotime fit` on simulated files.

    python benchmarks/commands.py [ANGLES FRAMES laminar_flow|two_component ...]

A stage ends where the command says so: reading with "read", starts with "starts estimated", the fit
with the table, saving with "wrote", figures with the end. Each command runs twice: with an empty
cache of compiled code, and with it filled.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import run

ENDS = {"read ": "reading", "starts estimated": "starts", "converged:": "fit", "wrote ": "saving"}
_TICKS = os.sysconf("SC_CLK_TCK")


def used(pid: int) -> tuple[float, float]:
    """CPU time [s] and most memory [GiB] of a process so far, from Linux."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return (int(stat[11]) + int(stat[12])) / _TICKS, peak / 2**20


def command(arguments: list[str], env: dict[str, str]) -> list[dict[str, Any]]:
    """Run `twotime` and measure its stages."""
    begun, rows = time.perf_counter(), []
    pipe: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    words = [sys.executable, "-u", "-m", "twotime", *arguments]
    process = subprocess.Popen(words, env=os.environ | env, **pipe)
    last = [0.0, 0.0]

    def watch() -> None:
        while process.poll() is None:
            try:
                last[:] = used(process.pid)
            except (OSError, StopIteration):
                return
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()
    for line in process.stdout:
        name = next((name for text, name in ENDS.items() if line.startswith(text)), None)
        if name is not None:
            last[:] = used(process.pid)
            rows.append((name, time.perf_counter() - begun, *last))
    process.wait()
    rows.append(("figures", time.perf_counter() - begun, *last))
    heads = "stage", "until_s", "cpu_s", "peak_gb"
    return [dict(zip(heads, row, strict=True)) for row in rows]


def prepared(case: run.Case, folder: Path) -> Path:
    """A simulated file and a configuration without any value in a folder."""
    from twotime.data.write import write_apsu

    data = run.problem(case)[1]
    write_apsu(folder / "data.h5", data, dt=run.SPAN / case.frames)
    gap = f"\n  geometry: {{stator_rotor_gap: {run.GAP}}}" if case.mode == "laminar_flow" else ""
    (folder / "run.yaml").write_text(
        f"analysis_mode: {case.mode}\nexperimental_data: {{file_path: data.h5}}\n"
        f"analyzer_parameters:\n  start_frame: 1\n  end_frame: -1\n"
        f"  scattering: {{wavevector_q: {run.Q}}}{gap}\n"
    )
    return folder / "run.yaml"


def measured(case: run.Case) -> list[dict[str, Any]]:
    """The stages of a fit of a case, nothing compiled and everything compiled."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        config, cache = prepared(case, Path(place)), {"XDG_CACHE_HOME": place}
        size = np.prod([case.angles, case.frames, case.frames]) * 4 / 2**30
        for name in ("cold", "warm"):
            arguments = ["fit", str(config), "-o", f"{place}/{name}"]
            facts = {"case": f"{case.name} {name}", "data_gb": float(size)}
            rows += [facts | row for row in command(arguments, cache)]
    return rows


def main() -> None:
    """Measure the cases of the command line."""
    import jax

    jax.config.update("jax_enable_x64", True)
    words = sys.argv[1:] or ["23", "1000", "laminar_flow", "3", "1000", "two_component"]
    for angles, frames, mode in zip(*[iter(words)] * 3, strict=True):
        name = f"{mode} {angles} x {frames}"
        run.show(measured(run.Case(name, mode, int(angles), int(frames))))


if __name__ == "__main__":
    main()
