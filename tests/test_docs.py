"""Every python and bash block of README.md and docs runs, in order, in a folder of its own.

Blocks of other languages (console, yaml, text) are for reading.
"""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = f'set -eu\ntwotime() {{ "{sys.executable}" -m twotime "$@"; }}\n'


def blocks(page):
    """Language, first line and text of each block that runs."""
    text = page.read_text(encoding="utf-8")
    return [
        (match[1], text[: match.start()].count("\n") + 2, match[2])
        for match in BLOCK.finditer(text)
        if match[1] in ("python", "bash")
    ]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    yield
    jax.clear_caches()  # every page compiles its own


# `nox -s long` runs README.md; `nox -s docs` runs every page, and the examples.
RUN = [
    pytest.param(page, id=page.name, marks=getattr(pytest.mark, session))
    for page in PAGES
    if blocks(page)
    for session in ["long" if page.name == "README.md" else "documents"]
]


@pytest.mark.parametrize("page", RUN)
def test_blocks_run(page):
    names = {"__name__": "__main__"}
    for language, line, text in blocks(page):
        if language == "bash":
            done = subprocess.run(["bash", "-c", SHELL + text], capture_output=True, text=True)
            assert done.returncode == 0, f"{page.name}:{line}\n{done.stdout}{done.stderr}"
            continue
        code = compile("\n" * (line - 1) + text, str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, names)


@pytest.mark.documents
@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(script):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        runpy.run_path(str(script), run_name="__main__")
    assert said.getvalue()


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            # The site holds the folder of pages alone.
            assert page.name == "README.md" or not target.startswith(".."), f"{page.name}: {target}"


def test_the_test_command_of_the_readme_is_what_ci_runs():
    script = (ROOT / ".ci" / "run").read_text()
    command = script.strip().splitlines()[-1]
    assert command == "python -m pip install nox && python -m nox -s tests long"
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_explained_messages_are_those_of_the_program():
    """Every part of a message between dots or numbers stands in the source."""
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "src").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source).lower()
    page = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")
    told = re.findall(r"^\*\*(.+?)\*\*", page, re.MULTILINE | re.DOTALL)
    assert len(told) > 10
    for message in told:
        text = re.sub(r"\s+", " ", message).lower()
        parts = re.split(r"…|\(|\)|:|;|\bd0\b|1e\+05|,|\.$|baseline|parameters\.|upper", text)
        parts = [part.strip(" .") for part in parts if len(part.strip(" .")) > 3]
        assert parts and not [part for part in parts if part not in source]


def test_every_page_is_reached_from_the_menu_of_the_site():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"[\w-]+\.md", menu)) == sorted(p.name for p in PAGES[1:])
