"""Write the examples as Jupyter notebooks and execute them: `python docs/notebooks.py FOLDER`."""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"


def notebook_of(script: str) -> nbformat.NotebookNode:
    """A script as a notebook: its docstring, then each cell under the text of its `# %%` line."""
    book = nbformat.v4.new_notebook()
    title, *cells = re.split(r"^# %% ", script, flags=re.MULTILINE)
    book.cells.append(nbformat.v4.new_markdown_cell(title.strip().strip('"')))
    for cell in cells:
        text, _, code = cell.partition("\n")
        book.cells.append(nbformat.v4.new_markdown_cell(text))
        book.cells.append(nbformat.v4.new_code_cell(code.strip()))
    return book


def main(folder: Path) -> None:
    """Execute the notebook of every example that has cells, and write it into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(EXAMPLES.glob("*.py")):
        script = path.read_text(encoding="utf-8")
        if "# %% " not in script:
            continue
        book = notebook_of(script)
        with tempfile.TemporaryDirectory() as place:
            NotebookClient(book, timeout=900, resources={"metadata": {"path": place}}).execute()
        nbformat.write(book, folder / f"{path.stem}.ipynb")
        print(f"executed {path.stem}.ipynb: {len(book.cells)} cells")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
