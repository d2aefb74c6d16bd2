"""The manual's page about configuration is what the program does."""

from pathlib import Path

from twotime.config.keys import walk
from twotime.config.manager import ConfigManager
from twotime.config.manual import configuration_page
from twotime.config.parameter_names import PARAMETER_ALIASES, PARAMETER_NAMES
from twotime.config.types import HeterodyneConfig, ParameterGroupConfig
from twotime.config.yaml_json import parse_yaml

PAGE = configuration_page()


def test_the_page_is_up_to_date():
    written = Path(__file__).parents[1] / "docs" / "configuration.md"
    assert written.read_text(encoding="utf-8") == PAGE, (
        "make it anew: python -c 'from twotime.config.manual import configuration_page as page; "
        'print(page(), end="")\' > docs/configuration.md'
    )


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
