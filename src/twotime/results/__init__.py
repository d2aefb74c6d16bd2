"""Results of fits and samplers: values, and the folders they are stored in."""

from pathlib import Path
from typing import Any

from twotime.errors import ResultError
from twotime.kinds import checked
from twotime.results import storage
from twotime.results.cmc import CMCResult
from twotime.results.folder import read_result_json
from twotime.results.nlsq import NLSQResult
from twotime.results.sequential import SequentialResult

_KINDS: dict[str, Any] = {"NLSQResult": NLSQResult, "CMCResult": CMCResult}


@checked
def load_result(folder: str | Path) -> NLSQResult | SequentialResult | CMCResult:
    """Restore a saved fit or posterior, every number bit for bit.

    Args:
        folder: A folder that `save` or `twotime fit` wrote.

    Raises:
        ResultError: If it holds no result, a damaged one, or one that this version does not know.
        ValueError: If float64 is off.
    """
    content = read_result_json(Path(folder))
    name, fields = content["kind"], content["fields"]
    if name == "SequentialResult":
        parts = [load_result(Path(folder) / part) for part in fields["parts"]]
        return SequentialResult(tuple(part for part in parts if isinstance(part, NLSQResult)))
    kind = _KINDS.get(name)
    if kind is None:
        raise ResultError(
            f"{folder}: the result is of kind {name!r}; expected SequentialResult or one of "
            f"{', '.join(_KINDS)}; read it with the version named in its result.json."
        )
    arrays = storage.read_arrays(Path(folder)) if kind.ARE_FIELDS_THERE else {}
    try:
        return storage.fields_from_json(kind, fields, arrays)
    except ResultError as exc:
        raise ResultError(f"{folder}: {exc}") from exc.__cause__
