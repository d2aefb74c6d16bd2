"""The page about a result: everything inside, nothing twice, nothing from elsewhere."""

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_results import make, misfit

import twotime as tt
from twotime.models.base import Curve
from twotime.report.page import write_page
from twotime.results.storage import Provenance

VOID = {"meta", "img", "br"}


class Nesting(HTMLParser):
    """Tags that are opened and closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.count = [], {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def folder(tmp_path):
    out = tmp_path / "out"
    curves = {"J": Curve(np.full(20, 3e3), "Å²/s", "J", "rate", np.full(20, 2e3), np.full(20, 4e3))}
    provenance = Provenance(
        settings={"analysis_mode": "static"}, source={"file": "<a & b>.h5"}, notes=("q is near",)
    )
    make().save(out, curves=curves, provenance=provenance)
    Figure(figsize=(1, 1)).savefig(out / "maps_01.png", dpi=20)
    return out


def test_names_that_are_no_text_are_written_and_read_back(tmp_path):
    name = os.fsdecode(b"\xff.h5")
    make().save(tmp_path / "out", provenance=Provenance(source={"file": name}))
    content = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert content["source"]["file"] == name
    assert r"\udcff.h5" in text_of(tmp_path / "out")


def text_of(folder):
    return write_page(folder).read_text(encoding="utf-8")


def test_the_page_holds_tables_figures_and_provenance(folder):
    text = text_of(folder)
    page = Nesting()
    page.feed(text)
    assert not page.open and page.count["table"] == 4 and page.count["img"] == 1
    assert "1234.6" in text and "3000 ± 1000" in text and "Data, model and residual" in text
    assert "q is near" in text and "analysis_mode" in text and "&lt;a &amp; b&gt;.h5" in text
    assert "<a & b>" not in text


def test_the_page_needs_nothing_from_elsewhere(folder):
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", text_of(folder))
    assert links and all(link.startswith("data:image/png;base64,") for link in links)


def test_the_judgement_stands_at_the_top_and_nowhere_else(folder, tmp_path):
    assert text_of(folder).count("Converged: ") == 1
    assert 'class="state"' in text_of(folder)
    make(structure=misfit()).save(tmp_path / "wrong")
    text = text_of(tmp_path / "wrong")
    assert 'class="state bad"' in text and text.count("The model does not describe the data") == 1
    make(result=tt.RESULTS.nonlinear_max_steps_reached).save(tmp_path / "bad")
    assert 'class="state bad"' in text_of(tmp_path / "bad")


def test_a_folder_without_a_result_is_named(tmp_path):
    with pytest.raises(tt.ResultError, match=str(tmp_path)):
        write_page(tmp_path)
