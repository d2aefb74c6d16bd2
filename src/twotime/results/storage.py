"""What result folders hold: one writer, one reader."""

import dataclasses
import datetime
import functools
import importlib
import importlib.metadata
import json
import platform
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np

from twotime.disk import DAMAGED, write_text
from twotime.errors import ResultError
from twotime.kinds import checked
from twotime.models.base import Curve, are_known, is_concrete
from twotime.results.folder import RESULT, new_folder, read_result_json
from twotime.solver import ENDS, RESULTS, places, results_at

__version__ = "0.1.0"  # kept with every result; the build reads it here
REPORT, ARRAYS = "report.md", "arrays.npz"

Curves = Mapping[str, Curve] | None
Names = tuple[str, ...]
_CURVE_PARTS = {"values": "function_", "lower": "lower_", "upper": "upper_"}


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a result comes from, for its files.

    Attributes:
        settings: The configuration as used, with its defaults.
        source: Facts about the data: file, checksum, selection, number of points.
        notes: Sentences about the data and the settings that a reader should know.
        metadata: The user's own notes about the experiment.
        wall_time: Time the fit took, compilation included [s].
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wall_time: float | None = None


@functools.singledispatch
def describe(result: Any) -> Any:
    """The description of a result: `table`, `remarks`, `summary()` and `document(...)`.

    Raises:
        TypeError: If `twotime.report` registers none for its class.
    """
    raise TypeError(f"{type(result).__name__} has no description; register one with `describe`.")


class AbstractResult(eqx.Module):
    """What every kind of result can do: summarise, report, and be saved."""

    # The file of arrays, whether fields are there and not in result.json, and former field names.
    ARRAYS: ClassVar[str] = ARRAYS
    ARE_FIELDS_THERE: ClassVar[bool] = False
    FORMER_NAMES: ClassVar[Mapping[str, str]] = {}

    def __repr__(self) -> str:
        return str(describe(self).short()) if self._is_one() else eqx.tree_pformat(self)

    def _repr_html_(self) -> str | None:
        return str(describe(self).html()) if self._is_one() else None

    def _is_one(self) -> bool:
        """Whether the numbers are known, and those of one result and not of several stacked."""
        return are_known(self)

    def _check_is_one(self) -> None:
        """Refuse to put into words what is traced, or several results stacked."""
        if self._is_one():
            return
        is_known = is_concrete(*jax.tree.leaves(self))
        fix = "take one with fit[i] or tt.unstack" if is_known else "return it from there first"
        raise TypeError(
            "Words and tables are of one result whose numbers are known; this one is "
            f"{'several stacked' if is_known else 'traced by JAX'}: {fix}. Its arrays (values, "
            "params, uncertainties, converged, covariance, chi2) can be read there too."
        )

    def _described(self) -> Any:
        self._check_is_one()
        return describe(self)

    @property
    def table(self) -> Any:
        """The main table: parameters with their uncertainties."""
        return self._described().table

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that belong under the tables."""
        return self._described().remarks

    def summary(self) -> dict[str, Any]:
        """The findings by name, for other programs to read."""
        return self._described().summary()

    def report(
        self, curves: Curves = None, provenance: Provenance | None = None, figures: Names = ()
    ) -> str:
        """The result in words and tables: Markdown that also reads well as plain text.

        Args:
            curves: Functions of time as `twotime.run.functions_of_time` returns them.
            provenance: Where the result comes from, to be included.
            figures: Names of figures to embed.
        """
        return self._described().document(curves or {}, provenance, figures)

    @checked
    def save(
        self,
        folder: str | Path,
        *,
        curves: Curves = None,
        provenance: Provenance | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write result.json, report.md and arrays into a new folder, completely or not at all.

        Args:
            folder: The folder; may exist if it is empty.
            curves: Functions of time as `twotime.run.functions_of_time` returns them.
            provenance: Where the result comes from.
            overwrite: Whether an existing result may be replaced.

        Raises:
            ResultError: If the folder cannot be written, or holds what may not be replaced.
        """
        with new_folder(Path(folder), overwrite=overwrite) as temporary:
            write(temporary, self, curves=curves, provenance=provenance)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the result itself for its file of arrays."""
        return {}

    def _parts(self) -> dict[str, "AbstractResult"]:
        """Parts with folders of their own, by folder name, for a result that is nothing else."""
        return {}


class AbstractModelResult(AbstractResult):
    """Parameters of one model: what least-squares fits and posteriors have in common.

    Attributes:
        all_names: Names of all parameters of the model, in its order.
        varying: Which of them were fitted or sampled.
        units: Their units.
        model: Name of the model's class.
        per_angle_mode: How contrast and offset are shared between angles, with "auto" resolved.
        evaluator: What computed the Gram matrix or the likelihood.
    """

    all_names: Names = eqx.field(static=True)
    varying: tuple[bool, ...] = eqx.field(static=True)
    units: Names = eqx.field(static=True)
    model: str = eqx.field(static=True)
    per_angle_mode: eqx.AbstractVar[str]
    evaluator: str = eqx.field(static=True)
    values: eqx.AbstractVar[Any]

    def _is_one(self) -> bool:
        return super()._is_one() and np.ndim(self.values) == 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fitted or sampled parameters."""
        return tuple(n for n, free in zip(self.all_names, self.varying, strict=True) if free)

    def to_dataframe(self) -> Any:
        """The parameters as a pandas table, a row for each, with the numbers of `summary()`.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        pandas = optional("pandas", "to_dataframe")
        rows = plain(self.summary())["parameters"]
        return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")

    def to_xarray(self) -> Any:
        """The parameters as an xarray data set: a variable for each column of `to_dataframe`.

        Numbers that are not known are NaN. Contrast and offset of each matrix are in it too, along
        `matrix`, which has the angle `phi` [degree] as a coordinate.

        Raises:
            ModuleNotFoundError: If xarray is not installed.
        """
        xarray = optional("xarray", "to_xarray")
        found = self.summary()
        rows = found["parameters"]

        def column(key: str) -> np.ndarray:
            cells = [row.get(key) for row in rows.values()]
            return np.array([np.nan if cell is None else cell for cell in cells])

        names = dict.fromkeys(key for row in rows.values() for key in row)
        columns = {name: ("parameter", column(name)) for name in names}
        columns |= {name: ("matrix", np.asarray(found[name])) for name in ("contrast", "offset")}
        for name, errors in (found.get("scaling_uncertainties") or {}).items():
            columns[f"{name}_uncertainty"] = "matrix", np.asarray(errors)
        places = {"parameter": list(rows), "phi": ("matrix", np.asarray(found["phi_degree"]))}
        return xarray.Dataset(columns, coords=places, attrs={"model": self.model})

    @property
    def params(self) -> dict[str, Any]:
        """All parameters by name, fixed ones included: numbers; arrays where traced or stacked."""
        return self._by_name(self.all_names, self.values)

    def __getitem__(self, index: int) -> "AbstractModelResult":
        """One of several results that `vmap` or `jax.tree.map(stack, ...)` made.

        Raises:
            TypeError: If this is one result.
        """
        if np.ndim(self.values) == 1:
            raise TypeError("fit[i] takes one of several stacked fits; this is one fit already.")
        return jax.tree.map(lambda x: x[index], self)

    def _by_name(self, names: Names, array: Any) -> dict[str, Any]:
        if self._is_one():
            return dict(zip(names, np.asarray(array).tolist(), strict=True))
        return {name: array[..., i] for i, name in enumerate(names)}


def optional(package: str, purpose: str) -> Any:
    """A package that is not installed with twotime.

    Raises:
        ModuleNotFoundError: If it is not installed; the message says how to.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{purpose} needs {package}, which is not installed: python -m pip install {package}."
        ) from None


def former(old: str, new: str, convert: Callable[[Any], Any] = lambda x: x) -> property:
    """A property under its former name, which warns; `convert` returns the former value."""

    def get(self: Any) -> Any:
        message = f"{old} is now called {new}; the old name will be removed in the next release."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return convert(getattr(self, new))

    return property(get, doc=f"Deprecated name of `{new}`.")


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a result folder.

    Raises:
        ResultError: If they are not there or damaged.
    """
    files = read_result_json(folder).get("files", ())
    path = folder / next((Path(name).name for name in files if name.endswith(".npz")), ARRAYS)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise ResultError(f"{folder}: holds no {path.name}; fit again to create it.") from None
    except DAMAGED as exc:
        raise ResultError(f"{path}: cannot be read ({exc}); fit again.") from exc


def read_curves(folder: Path) -> dict[str, Curve]:
    """Read the functions of time of a result folder.

    Raises:
        ResultError: If it holds no result or no arrays.
    """
    functions, arrays = read_result_json(folder)["functions"], read_arrays(folder)
    return {
        name: Curve(**facts | {part: arrays.get(p + name) for part, p in _CURVE_PARTS.items()})
        for name, facts in functions.items()
    }


def write(
    folder: Path,
    result: AbstractResult,
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    curves: Curves = None,
    provenance: Provenance | None = None,
    figures: Names = (),
) -> None:
    """Write a result into a folder that exists and holds at most its figures and its parts.

    Args:
        folder: The folder.
        result: The result. Those of its parts that are not there are written, too.
        arrays: Further arrays for its file of arrays.
        curves: Functions of time by name.
        provenance: Where the result comes from.
        figures: Names of figures in the folder.
    """
    parts, stored = result._parts(), result._arrays()
    for name, part in parts.items():
        if not (folder / name).exists():
            (folder / name).mkdir()
            write(folder / name, part, provenance=provenance)
    without = tuple(stored) if result.ARE_FIELDS_THERE else ()
    fields = {"parts": tuple(parts)} if parts else fields_to_json(result, without)
    origin, curves = dict(vars(provenance or Provenance())), curves or {}
    bands = {p + name: getattr(x, k) for name, x in curves.items() for k, p in _CURVE_PARTS.items()}
    stored |= dict(arrays or {}) | {name: x for name, x in bands.items() if x is not None}
    if stored:
        np.savez(folder / result.ARRAYS, allow_pickle=False, **stored)
    write_text(folder / REPORT, result.report(curves, provenance, figures))
    libraries = "jax", "jaxlib", "equinox", "optimistix", "numpy"
    versions = {"twotime": __version__, "python": platform.python_version()}
    content = {
        "kind": type(result).__name__,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions | {name: importlib.metadata.version(name) for name in libraries},
        "files": (RESULT, REPORT, *([result.ARRAYS] if stored else []), *parts, *figures),
        "result": result.summary(),
        "functions": {
            name: {key: getattr(curve, key) for key in ("unit", "symbol", "description")}
            for name, curve in curves.items()
        },
        "wall_time_s": origin.pop("wall_time"),
        **origin,
        "fields": fields,
    }
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / RESULT, text + "\n")


def fields_to_json(value: Any, without: Names = ()) -> dict[str, Any]:
    """Write the fields of a dataclass as JSON that `fields_from_json` restores bit for bit.

    Raises:
        TypeError: If a field is no array, number, text, None, dataclass, or tuple of these.
    """
    names = (f.name for f in dataclasses.fields(value) if f.name not in without)
    return {name: _packed(getattr(value, name), name) for name in names}


def fields_from_json(
    kind: Any, packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> Any:
    """Restore a dataclass that `fields_to_json` wrote; `arrays` has the fields left out there.

    Raises:
        ValueError: If float64 is off: the numbers could not be restored.
        ResultError: If fields are unknown, or missing without a default.
    """
    former, known = getattr(kind, "FORMER_NAMES", {}), kind.__dataclass_fields__
    found = {n: x for n, x in (arrays or {}).items() if former.get(n, n) in known}
    for name, value in packed.items():
        try:
            found[name] = _unpacked(value)
        except _Float64Error:
            raise
        except (*DAMAGED, AttributeError) as exc:
            raise ResultError(
                f"{name!r} of the saved {kind.__name__} is damaged; fit again."
            ) from exc
    found = {former.get(name, name): value for name, value in found.items()}
    no = dataclasses.MISSING
    needed = [n for n, f in known.items() if f.init and f.default is no is f.default_factory]
    wrong = [*(n for n in found if n not in known), *(n for n in needed if n not in found)]
    if wrong:
        raise ResultError(
            f"the saved {kind.__name__} was written by another version of twotime, or is damaged "
            f"(unknown or missing: {', '.join(map(repr, wrong))}); read it with the version named "
            "in its result.json."
        )
    return kind(**found)


class _Float64Error(ValueError):
    """Numbers of a result that cannot be restored while float64 is off."""


def plain(value: Any) -> Any:
    """Numbers, arrays and containers as JSON takes them; other numbers and paths as strings."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return plain(np.asarray(value).tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    return str(value) if isinstance(value, Path) else value


def _packed(value: Any, name: str) -> Any:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        return {"dtype": array.dtype.name, "shape": list(array.shape), "values": plain(array)}
    if isinstance(value, RESULTS):
        return {"result": np.asarray(ENDS)[np.asarray(places(value))].tolist()}
    if isinstance(value, tuple | list):
        return [_packed(item, name) for item in value]
    if dataclasses.is_dataclass(value):
        return {"items": fields_to_json(value)}
    if isinstance(value, float):
        return {"float": plain(value)}
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"{name} is of type {type(value).__name__}; expected an array, number, text, tuple or "
        "dataclass: these can be stored in a result folder."
    )


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpacked(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float(value["float"])
    if "result" in value:
        return results_at(np.vectorize(ENDS.index)(value["result"]))
    if "dtype" not in value:  # without "items" in folders of version 0.1
        return {key: _unpacked(item) for key, item in value.get("items", value).items()}
    array = np.asarray(value["values"], dtype=value["dtype"]).reshape(value["shape"])
    if array.dtype.itemsize > 4 and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise _Float64Error(
            "Restoring a result needs float64, which JAX has switched off; call "
            'jax.config.update("jax_enable_x64", True) first, or set JAX_ENABLE_X64=1.'
        )
    return jax.device_put(array)
