"""YAML and JSON text, read strictly."""

import pytest

from twotime.config.files import parse_json, parse_yaml
from twotime.errors import ConfigurationError


def yaml(text):
    return parse_yaml(text if isinstance(text, bytes) else text.encode(), "run.yaml")


def json(text):
    return parse_json(text if isinstance(text, bytes) else text.encode(), "run.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e4", 1e4),
        ("-1E-4", -1e-4),
        ("1.5e+3", 1500.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1_000", 1000),
        ("010", 10),
        ("+3", 3),
        ("0x10", "0x10"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("No", False),
        ("on", True),
        ("'true'", "true"),
        ("null", None),
        ("", None),
        ("~", None),
        ("1e", "1e"),
        ("e4", "e4"),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
        ("[1, a, 2.0]", [1, "a", 2.0]),
    ],
)
def test_scalars(text, value):
    found = yaml(f"key: {text}")["key"]
    assert found == value and type(found) is type(value)


def test_infinities_are_numbers_here_and_refused_later():
    found = yaml("a: .inf\nb: -.INF\nc: .nan")
    assert found["a"] == float("inf") and found["b"] == float("-inf") and found["c"] != found["c"]


def test_anchors_aliases_and_merges():
    text = """
base: &base {min: 1, max: 2}
a: {<<: *base, max: 3}
b: *base
c: {<<: [*base, {max: 9, vary: true}]}
"""
    found = yaml(text)
    assert found["a"] == {"min": 1, "max": 3} and found["b"] == {"min": 1, "max": 2}
    assert found["c"] == {"min": 1, "max": 2, "vary": True}
    found["b"]["min"] = 7
    assert found["base"]["min"] == 1, "aliases do not share"


def test_byte_order_mark_is_no_text():
    assert yaml("\ufeffa: 1".encode()) == {"a": 1}
    assert json('\ufeff{"a": 1}'.encode()) == {"a": 1}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
WRONG_YAML = {
    "empty": ("", "the file is empty"),
    "only comments": ("# nothing\n", "the file is empty"),
    "not utf-8": ("a: 1\nb: caf\xe9".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
    "utf-16": ("a: 1".encode("utf-16"), "not UTF-8"),
    "control character": ("a: b\x07", "x0007: special characters are not allowed"),
    "unclosed": ("a: [1, 2", "line 1, column 9: not valid YAML"),
    "tab": ("a:\n\t- b: 1", "line 2 is indented with a tab"),
    "bad indent": ("a: 1\n  b: 2", "not valid YAML"),
    "duplicate": (
        "a: {b: 1, c: 2, b: 3}",
        "line 1, column 17: not valid YAML: the key 'b' is given twice",
    ),
    "duplicate on top": (
        "a: 1\nb: 2\na: 3",
        "line 3, column 1: not valid YAML: the key 'a' is given twice",
    ),
    "two documents": (
        "a: 1\n---\nb: 2",
        "line 2, column 1: not valid YAML: but found another document",
    ),
    "unknown alias": ("a: *b", "line 1, column 4: not valid YAML"),
    "python object": (
        "a: !!python/object:os.system {}",
        "could not determine a constructor for the tag .*os.system",
    ),
    "own tag": ("a: !mine 3", "constructor for the tag '!mine'"),
    "not a float": ("a: !!float many", "could not convert string to float: 'many'"),
    "not an int": ("a: !!int 3.5", "invalid literal for int.. with base 10: '3.5'"),
    "number as key": ("1: a", "line 1, column 1: not valid YAML: a key must be text"),
    "list as key": ("? [a, b]\n: 1", "a key must be text"),
    "boolean as key": ("on: 1", "a key must be text"),
    "bomb": (BOMB, "more than 20000 values"),
    "self": ("a: &a [*a]", "an anchor contains itself"),
    "self in a mapping": ("a: &a {b: {c: *a}}", "an anchor contains itself"),
    "deep": ("[" * 5000, "nested more than 40 deep"),
    "deep and closed": ("a: " + "{b: " * 100 + "1" + "}" * 100, "nested more than 40 deep"),
    "long number": ("a: " + "9" * 5000, "value has 5000 digits"),
    "merge of a number": ("a: {<<: 3}", "takes in sections only"),
    "merge of a list of numbers": (
        "a: {<<: [3]}",
        "takes in sections only",
    ),
    "large": ("# " + "x" * 2**20, "bytes; a configuration has at most"),
}
WRONG_JSON = {
    "empty": ("", "line 1, column 1: not valid JSON"),
    "unclosed": ('{"a": [1,', "not valid JSON"),
    "duplicate": ('{"a": {"b": 1, "b": 2}}', "the key 'b' is given twice"),
    "deep": ("[" * 100_000, "nested more than 40 deep"),
    "long number": ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
    "not utf-8": (b'{"a": "\xff"}', "byte 0xff is not UTF-8"),
    "comment": ('{"a": 1} # b', "not valid JSON"),
}


@pytest.mark.parametrize("case", WRONG_YAML)
def test_wrong_yaml_is_one_sentence(case):
    text, words = WRONG_YAML[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        yaml(text)
    assert str(caught.value).startswith("run.yaml: ") and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("case", WRONG_JSON)
def test_wrong_json_is_one_sentence(case):
    text, words = WRONG_JSON[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        json(text)
    assert str(caught.value).startswith("run.json: ") and "\n" not in str(caught.value)


def test_brackets_in_strings_are_not_nesting():
    assert json('{"a": "' + "[" * 100 + '\\""}')["a"].startswith("[[")


def test_long_chains_of_anchors_are_no_recursion():
    links = "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
    with pytest.raises(ConfigurationError, match="more than 20000 values|nested more than 40 deep"):
        yaml("a0: &a0 [x]\n" + links)
