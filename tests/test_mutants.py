"""Rows of mutants.md name a text that stands once in its file, and a test that is there."""

from pathlib import Path

import pytest
from mutants import ROOT, read_mutants

ROWS = read_mutants(Path(__file__).with_name("mutants.md"))


def test_there_are_many():
    assert len(set(ROWS)) == len(ROWS) >= 40


@pytest.mark.parametrize("file", sorted({row.file for row in ROWS}))
def test_rows_name_what_is_there(file):
    source = (ROOT / file).read_text(encoding="utf-8")
    for row in (row for row in ROWS if row.file == file):
        assert source.count(row.old) == 1 and row.new != row.old, row
        page, *_, name = row.test.split("::")
        assert f"def {name.split('[')[0]}(" in (ROOT / page).read_text(encoding="utf-8"), row
