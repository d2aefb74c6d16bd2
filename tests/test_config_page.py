"""The manual's page about configuration is what the program does."""

import importlib.util
from pathlib import Path

from twotime.config.files import parse_yaml
from twotime.config.keys import walk
from twotime.config.manager import ConfigManager
from twotime.config.parameter_names import PARAMETER_ALIASES, PARAMETER_NAMES
from twotime.config.types import HeterodyneConfig, ParameterGroupConfig

DOCS = Path(__file__).parents[1] / "docs"
SPEC = importlib.util.spec_from_file_location("configuration_page", DOCS / "configuration_page.py")
WRITER = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(WRITER)
PAGE = WRITER.configuration_page()


def test_the_page_is_up_to_date():
    written = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert written == PAGE, "write it again: python docs/configuration_page.py"


def test_every_key_is_in_it():
    groups = set()
    for path, field in walk(HeterodyneConfig):
        if field.type is ParameterGroupConfig:
            groups.add(path)
        if field.is_section or path[:-1] in groups or path[:-1] == ("parameters",):
            continue
        if path[-2:-1] and path[:-2] in groups:
            continue
        assert f"| `{'.'.join(path)}` |" in PAGE, path


def test_every_parameter_and_alias_is_in_it():
    for names in PARAMETER_NAMES.values():
        assert all(f"| `{name}` |" in PAGE for name in names)
    assert all(f"| `{alias}` |" in PAGE for alias in PARAMETER_ALIASES)


def test_tables_are_tables():
    widths = {}
    for number, line in enumerate(PAGE.splitlines()):
        if line.startswith("|"):
            cells = line.count("|") - line.count("\\|")
            widths.setdefault(number - 1 if number - 1 in widths else number, cells)
            previous = PAGE.splitlines()[number - 1]
            if previous.startswith("|"):
                assert previous.count("|") == line.count("|"), line
    assert widths


def test_its_example_is_valid():
    for block in PAGE.split("```yaml\n")[1:]:
        ConfigManager.from_dict(parse_yaml(block.split("```")[0].encode(), "configuration.md"))
