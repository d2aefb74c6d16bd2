"""Restore what was saved."""

from pathlib import Path

from twotime.results import storage
from twotime.results import storage as folders
from twotime.results.cmc import CMCResult
from twotime.results.cmc_files import read_posterior
from twotime.results.nlsq import NLSQResult, SequentialResult


def load_result(folder: str | Path) -> NLSQResult | SequentialResult | CMCResult:
    """Restore a saved fit or posterior, every number bit for bit.

    Args:
        folder: A folder that `save` or `twotime fit` wrote.

    Raises:
        ResultError: If it holds no result, or one that this version does not know.
        ValueError: If float64 is off.
    """
    content = folders.read_result_json(Path(folder))
    if content["kind"] == CMCResult.__name__:
        return read_posterior(Path(folder))
    if content["kind"] == SequentialResult.__name__:
        parts = [load_result(Path(folder) / name) for name in content["fields"]["parts"]]
        return SequentialResult(tuple(p for p in parts if isinstance(p, NLSQResult)))
    kind = _KINDS.get(content["kind"])
    if kind is None:
        raise folders.ResultError(
            f"{folder}: the result is of kind {content['kind']!r}; expected one of "
            f"{', '.join(_KINDS)}, SequentialResult or CMCResult; read it with the version that "
            "its result.json names."
        )
    return storage.fields_from_json(kind, content["fields"])


_KINDS = {"NLSQResult": NLSQResult}
