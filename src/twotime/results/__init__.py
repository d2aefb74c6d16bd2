"""Results of fits and samplers: values, and the folders they are stored in."""

from pathlib import Path

from twotime.results import storage
from twotime.results.cmc import CMCResult
from twotime.results.nlsq import NLSQResult, SequentialResult

_KINDS: tuple[type[NLSQResult | CMCResult], ...] = (NLSQResult, CMCResult)


def load_result(folder: str | Path) -> NLSQResult | SequentialResult | CMCResult:
    """Restore a saved fit or posterior, every number bit for bit.

    Args:
        folder: A folder that `save` or `twotime fit` wrote.

    Raises:
        ResultError: If it holds no result, a damaged one, or one that this version does not know.
        ValueError: If float64 is off.
    """
    folder = Path(folder)
    content = storage.read_result_json(folder)
    kind, fields = content["kind"], content["fields"]
    if kind == SequentialResult.__name__:
        parts = [load_result(folder / name) for name in fields["parts"]]
        return SequentialResult(tuple(part for part in parts if isinstance(part, NLSQResult)))
    for known in _KINDS:
        if kind == known.__name__:
            arrays = storage.read_arrays(folder) if known.ARE_FIELDS_THERE else {}
            names = known.FORMER_NAMES
            fields, arrays = (
                {names.get(name, name): value for name, value in found.items()}
                for found in (fields, arrays)
            )
            return storage.fields_from_json(known, fields, arrays)
    raise storage.ResultError(
        f"{folder}: the result is of kind {kind!r}; expected "
        f"{', '.join(known.__name__ for known in _KINDS)} or SequentialResult; read it with the "
        "version named in its result.json."
    )
