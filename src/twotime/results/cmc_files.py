"""Posteriors to files and back, every number exact, and to ArviZ."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from twotime.errors import ResultError
from twotime.report.tables import Curve, Provenance
from twotime.results import storage
from twotime.results.cmc import CMCResult, Limits
from twotime.results.storage import RESULT, read_result_json

POSTERIOR = "posterior.npz"


def write_posterior(
    folder: Path,
    post: CMCResult,
    curves: Mapping[str, Curve],
    provenance: Provenance | None = None,
    figures: tuple[str, ...] = (),
    t: Float[np.ndarray, " time"] | None = None,
) -> None:
    """Write a posterior into a folder that exists and holds at most its figures.

    Args:
        folder: The folder.
        post: The posterior.
        curves: Functions of time by name.
        provenance: Where it comes from.
        figures: Names of figures in the folder.
        t: Frame times of the functions [s].
    """
    arrays = {name: np.asarray(getattr(post, name)) for name in _array_names()}
    arrays |= storage.curve_arrays(curves)
    axes = {} if t is None else {"t": np.asarray(t)}
    np.savez(folder / POSTERIOR, allow_pickle=False, **arrays, **axes)
    (folder / storage.REPORT).write_text(post.report(curves, provenance, figures), encoding="utf-8")
    origin = Provenance() if provenance is None else provenance
    facts = {name: getattr(post, name) for name in _fact_names()}
    content = storage.common_content(post, (POSTERIOR, storage.REPORT, *figures), origin) | {
        "functions": storage.curve_words(curves),
        "fields": facts | {"limits": dataclasses.asdict(post.limits)},
    }
    storage.write_json(folder / RESULT, content)


def read_posterior(folder: Path) -> CMCResult:
    """Restore a saved posterior, every number bit for bit.

    Raises:
        ResultError: If it is not whole, or of another version.
    """
    fields = dict(read_result_json(folder)["fields"])
    path = folder / POSTERIOR
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in _array_names()}
        facts = {name: fields[name] for name in _fact_names()}
        limits = Limits(**fields["limits"])
    except (OSError, ValueError, EOFError, KeyError, TypeError) as exc:
        raise ResultError(
            f"{path}: cannot be read as a posterior of this version ({exc}); read it with the "
            "version that its result.json names, or sample again."
        ) from exc
    facts = {name: tuple(x) if isinstance(x, list) else x for name, x in facts.items()}
    return CMCResult(**facts, **arrays, limits=limits)


def read_functions(folder: Path) -> tuple[dict[str, Curve], Float[np.ndarray, " time"]]:
    """Read the functions of time that were saved with a posterior, and their frame times [s]."""
    words = read_result_json(folder)["functions"]
    with np.load(folder / POSTERIOR, allow_pickle=False) as found:
        return storage.restored_curves(words, found), found["t"] if "t" in found else np.zeros(0)


def to_arviz(post: CMCResult) -> Any:
    """The draws as ArviZ holds them: posterior, sample_stats and sampled (fixed) values.

    Combined or widened draws go to `posterior`; energies and densities are given for a single
    shard, whose draws they belong to.

    Args:
        post: The posterior.

    Raises:
        ModuleNotFoundError: If ArviZ is not installed.
    """
    if importlib.util.find_spec("arviz") is None:
        raise ModuleNotFoundError(
            "to_arviz needs ArviZ, which is not installed: python -m pip install "
            "'twotime[posterior]'."
        )
    import arviz

    posterior = dict(post.samples) | {"contrast": post.contrast, "offset": post.offset}
    if post.noise_kind != "known":
        posterior["noise"] = post.noise
    groups: dict[str, Any] = {"posterior": posterior}
    if post.n_shards == 1:
        groups["sample_stats"] = {"lp": post.log_density[0], "energy": post.energy[0]}
    fixed = {n: np.asarray(v) for n, v in post.params.items() if n not in post.names}
    if fixed:
        groups["constant_data"] = fixed
    coords = {"angle": post.phi}
    dims = {"contrast": ["angle"], "offset": ["angle"]}
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups, coords=coords, dims=dims)
    return arviz.from_dict(**groups, coords=coords, dims=dims)


def _is_static(field: Any) -> bool:
    return bool(field.metadata.get("static", False))


def _fact_names() -> list[str]:
    return [f.name for f in dataclasses.fields(CMCResult) if _is_static(f)]


def _array_names() -> list[str]:
    names = [f.name for f in dataclasses.fields(CMCResult) if not _is_static(f)]
    return [name for name in names if name != "limits"]
