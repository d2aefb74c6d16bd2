"""One page of HTML about a saved result, with its figures inside: to mail, to archive, to print."""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

from twotime.disk import replacing, write_text
from twotime.report import Description, Table, html_list, html_table, sentence
from twotime.results import load_result, storage
from twotime.results.folder import PAGE, read_result_json, writing
from twotime.results.nlsq import NLSQResult
from twotime.results.storage import AbstractResult, describe

NAME = PAGE

_STYLE = """
:root { color-scheme: light; --ink: #1c2733; --soft: #5b6875; --line: #d8dee4; --good: #1b6ca8;
  --bad: #a8401b; --paper: #fff; --wash: #f4f6f8; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line);
  padding-bottom: .25rem; }
.state { border-left: .3rem solid var(--good); background: var(--wash); padding: .6rem .9rem;
  margin: .8rem 0; }
.state.bad { border-color: var(--bad); }
.state p { margin: .2rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
td:last-child { white-space: normal; min-width: 9rem; }
th { color: var(--soft); font-weight: 600; }
li { margin: .2rem 0; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; cursor: zoom-in; }
figure.large { overflow: auto; }
figure.large img { max-width: none; cursor: zoom-out; }
figcaption { color: var(--soft); font-size: .9rem; }
pre { background: var(--wash); padding: .8rem; overflow-x: auto; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
@media print { figure img { max-height: 22cm; } details { display: block; } }
"""
_ZOOM = (
    "document.querySelectorAll('figure').forEach(f => "
    "f.addEventListener('click', () => f.classList.toggle('large')));"
)
_CAPTIONS = {
    "functions": "Functions of time with their bands.",
    "cuts": "c2 against the lag at three ages: data as points, the model as lines.",
    "maps": "Data, model and residual. Click a figure to enlarge it.",
    "scaling": "Contrast and offset of each angle.",
    "corner": "Posterior of each pair of parameters.",
    "trace": "Draws of each chain.",
    "rank": "Ranks of the draws; even bars mean chains that agree.",
    "energy": "Energies of the draws.",
    "shards": "Posteriors of the shards and of their combination.",
    "predictive": "Data against the posterior's mean.",
}


def write_page(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write one self-contained page about a saved result.

    Args:
        folder: A folder that `twotime fit` wrote.
        output: The file to write; None writes report.html into the folder.

    Returns:
        The file written.

    Raises:
        ResultError: If the folder holds no result, or the file cannot be written.
    """
    folder = Path(folder)
    target = folder / NAME if output is None else Path(output)
    text = page(folder)
    with writing(target), replacing(target) as temporary:
        write_text(temporary, text)
    return target


def page(folder: Path) -> str:
    """The text of the page.

    Raises:
        ResultError: If the folder holds no result.
    """
    result, saved = load_result(folder), read_result_json(folder)
    description: Description = describe(result)
    curves = storage.read_curves(folder)
    told, is_good = _state(result, description)
    remarks = [text for text in description.remarks if text not in told]
    state = "".join(f"<p>{_escaped(text)}</p>" for text in told)
    parts = [
        f"<h1>{_escaped(description.title)}</h1>",
        f'<div class="state{"" if is_good else " bad"}">{state}</div>',
        *map(_table, (*description.main_tables(curves), *description.tables[1:])),
        "<h2>Remarks</h2>",
        html_list(remarks),
        *_figures(folder),
        *_origin(saved),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(description.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{_ZOOM}</script>\n</body>\n</html>\n"
    )


def _escaped(text: Any) -> str:
    return html.escape(str(text))


def _state(result: AbstractResult, description: Description) -> tuple[list[str], bool]:
    """Whether it converged, what the residuals say of the model, and whether both are good."""
    sentences = list(description.lead)
    is_good = bool(getattr(result, "converged", True))
    if isinstance(result, NLSQResult) and result.structure is not None:
        sentences.insert(1, sentence(result.structure.sentence))
        is_good &= bool(result.structure.is_right)
    return sentences, is_good


def _table(table: Table) -> str:
    return f'<h2>{_escaped(table.title)}</h2>\n<div class="wide">{html_table(table)}</div>'


def _figures(folder: Path) -> list[str]:
    """The figures of the folder and of the folders in it, inside the page."""
    files = sorted(folder.rglob("*.png"), key=lambda file: (file.parent, _rank(file), file.name))
    shown = []
    for file in files:
        data = base64.b64encode(file.read_bytes()).decode()
        name = file.relative_to(folder).as_posix()
        caption = _CAPTIONS.get(re.split(r"[_\d.]", file.name)[0], "")
        shown.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{_escaped(name)}">'
            f"<figcaption>{_escaped(f'{name}: {caption}' if caption else name)}</figcaption>"
            "</figure>"
        )
    return ["<h2>Figures</h2>", *shown] if shown else []


def _rank(file: Path) -> int:
    order = list(_CAPTIONS)
    stem = re.split(r"[_\d.]", file.name)[0]
    return order.index(stem) if stem in order else len(order)


def _origin(saved: dict[str, Any]) -> list[str]:
    """Where the result comes from: data, notes, settings and versions."""
    facts = dict(saved.get("source") or {}) | dict(saved.get("metadata") or {})
    facts |= {"written": saved.get("written"), "versions": _versions(saved.get("versions") or {})}
    rows = "".join(
        f"<dt>{_escaped(name.replace('_', ' '))}</dt><dd>{_escaped(_shown(value))}</dd>"
        for name, value in facts.items()
        if value not in (None, "", [], {})
    )
    parts = ["<h2>Data and provenance</h2>", f"<dl>{rows}</dl>"]
    parts += [html_list(saved["notes"])] if saved.get("notes") else []
    if saved.get("settings"):
        settings = json.dumps(saved["settings"], indent=1, ensure_ascii=False)
        parts.append(
            f"<details><summary>Settings as used</summary><pre>{_escaped(settings)}</pre></details>"
        )
    return parts


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.9g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
