"""The JSON schema says what the validation says."""

import json

import pytest

from twotime.config.files import json_schema, parse_yaml, template, truth
from twotime.config.keys import fields, walk
from twotime.config.parameter_names import PARAMETER_ALIASES
from twotime.config.types import HeterodyneConfig, ParametersConfig

SCHEMA = json_schema()


def resolve(node):
    """A schema node with its reference followed."""
    if "$ref" in node:
        return resolve(SCHEMA["$defs"][node["$ref"].split("/")[-1]]) | {
            key: value for key, value in node.items() if key != "$ref"
        }
    return node


def accepts(node, value):
    """Whether a value fits, as far as the few words of JSON schema go that are used here."""
    node = resolve(node)
    if "not" in node:
        return False
    if "anyOf" in node:
        return any(accepts(choice, value) for choice in node["anyOf"])
    if "enum" in node or "const" in node:
        return value in node.get("enum", [node.get("const")])
    kind = node.get("type")
    if kind == "object":
        known, other = node.get("properties", {}), node.get("additionalProperties", True)
        return isinstance(value, dict) and all(
            accepts(known[key], inner) if key in known else other and accepts(other, inner)
            for key, inner in value.items()
        )
    if kind == "array":
        items = node.get("prefixItems", [node.get("items", {})] * len(value))
        return isinstance(value, list) and all(
            accepts(item, inner) for item, inner in zip(items, value, strict=True)
        )
    types = {"number": (int, float), "integer": int, "string": str, "boolean": bool}
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    return isinstance(value, types[kind]) and _in_range(node, value)


def _in_range(node, value):
    return (
        value >= node.get("minimum", value)
        and value <= node.get("maximum", value)
        and ("exclusiveMinimum" not in node or value > node["exclusiveMinimum"])
        and ("exclusiveMaximum" not in node or value < node["exclusiveMaximum"])
    )


def test_is_json_and_named():
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"].endswith("2020-12/schema") and SCHEMA["type"] == "object"
    assert SCHEMA["additionalProperties"] is False


@pytest.mark.parametrize("mode", ["static", "laminar_flow", "two_component"])
def test_templates_fit(mode):
    for text in (template(mode), template(mode, full=True), truth(mode)):
        assert accepts(SCHEMA, parse_yaml(text.encode(), mode))


@pytest.mark.parametrize(
    "config",
    [
        {"parameters": {"velocity": 3}},
        {"parameters": {"velocity": {"value": 3}}},
        {"parameters": {"velocity": {"v_0": 3}}},
        {"parameters": {"gamma_dot_0": {"min": 1, "max": 2}}},
        {"optimization": {"cmc": {"target_accept": 0.9, "r_hat_threshold": 1.1}}},
        {"phi_filtering": {"ranges": [[-10, 10]]}},
        {"analyzer_parameters": {"angle": {"phi0": 3}}},
    ],
)
def test_other_spellings_fit(config):
    assert accepts(SCHEMA, config)


@pytest.mark.parametrize(
    "config",
    [
        {"optimisation": {}},
        {"hardware": {"numa_aware": True}},
        {"parameters": {"v0": {"valu": 3}}},
        {"parameters": {"v0": "fast"}},
        {"optimization": {"nlsq": {"max_iterations": 0}}},
        {"optimization": {"method": "fast"}},
        {"analyzer_parameters": {"dt": 0}},
        {"output": {"save_residuals": 1}},
        {"phi_filtering": {"ranges": [[1, "b"]]}},
    ],
)
def test_mistakes_do_not_fit(config):
    assert not accepts(SCHEMA, config)


def test_every_key_is_described():
    groups = set(fields(ParametersConfig))
    for path, field in walk(HeterodyneConfig):
        if groups & set(path):
            continue
        node = SCHEMA
        for name in path:
            node = resolve(node["properties"][name])
        assert node.get("description"), path
        assert node.get("default") == field.default or field.refused, path
        assert node.get("unit", "") == field.extra("unit") or field.refused, path


def test_every_alias_is_in_it():
    group = SCHEMA["$defs"]["ParameterGroupConfig"]["properties"]
    direct = SCHEMA["$defs"]["ParametersConfig"]["properties"]
    assert set(PARAMETER_ALIASES) <= set(group) and set(PARAMETER_ALIASES) <= set(direct)
