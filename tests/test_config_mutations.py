"""Two hundred spoilt configuration files: never a traceback, never a silent acceptance.

A spoilt file is refused with sentences, or what it says is what the configuration holds.
"""

import copy
import random

import pytest

from twotime.config.files import parse_yaml, template, truth
from twotime.config.keys import lookup
from twotime.config.manager import ConfigManager
from twotime.errors import ConfigurationError

MODES = ("static", "laminar_flow", "two_component")
SOURCES = [template(mode) for mode in MODES] + [truth(mode) for mode in MODES]
SOURCES += [template(mode, full=True) for mode in MODES]
# Canonical, so that an accepted configuration must hold exactly what was written.
BASES = [ConfigManager(parse_yaml(text.encode(), "base")).get_config() for text in SOURCES]


def leaves(tree, path=()):
    """Path and value of everything that is not a section."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def nodes(tree, path=()):
    """Path of every key, sections too."""
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from nodes(value, (*path, key))


def parent(tree, path):
    return lookup(tree, path[:-1]) if len(path) > 1 else tree


def dump(tree, twice=None, path=(), depth=0):
    """YAML text of a configuration; the key at one path may be written twice."""
    lines = []
    for key, value in tree.items():
        here = (*path, key)
        for _ in range(2 if here == twice else 1):
            if isinstance(value, dict) and value:
                lines += [f"{'  ' * depth}{key}:", *dump(value, twice, here, depth + 1)]
            else:
                lines.append(f"{'  ' * depth}{key}: {scalar(value)}")
    return lines


def scalar(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(str(value), repr(value))
    return str(value) if not isinstance(value, dict) else "{}"


def text_of(tree, **kwargs):
    return "\n".join(dump(tree, **kwargs)).encode()


# Each mutation gives the bytes of a file, and what must become of it: "refused", a
# configuration that it must hold, or "either" (refused, or the configuration as written).


def deleted(rng, base):
    path = rng.choice(list(nodes(base)))
    del parent(base, path)[path[-1]]
    return text_of(base), "either"


def misspelt(rng, base):
    path = rng.choice(list(nodes(base)))
    section, key = parent(base, path), path[-1]
    place = rng.randrange(len(key))
    wrong = rng.choice([key + "x", key[:place] + "q" + key[place:], key.swapcase(), key + "_"])
    items = [(wrong if name == key else name, value) for name, value in section.items()]
    section.clear()
    section.update(items)
    return text_of(base), "refused"


def retyped(rng, base):
    path, value = rng.choice(list(leaves(base)))
    wrong = [{"a": 1}, [[1]], "'what'", "2024-01-01"]
    wrong += ["true", 1.5] if not isinstance(value, bool | float) else []
    wrong += ["yes please", 1] if isinstance(value, bool) else []
    wrong += ["true", "'1'"] if isinstance(value, float) else []
    wrong = [w for w in wrong if not (isinstance(value, str) and w in ("'what'", "2024-01-01"))]
    parent(base, path)[path[-1]] = rng.choice(wrong)
    return text_of(base), "refused"


def section_retyped(rng, base):
    path = rng.choice([path for path in nodes(base) if isinstance(lookup(base, path), dict)])
    parent(base, path)[path[-1]] = rng.choice(["'what'", "true", [1, 2]])
    return text_of(base), "refused"


def reordered(rng, base):
    def shuffled(tree):
        items = list(tree.items())
        rng.shuffle(items)
        return {key: shuffled(v) if isinstance(v, dict) else v for key, v in items}

    return text_of(shuffled(base)), base


def numbers(base):
    return [
        (path, value)
        for path, value in leaves(base)
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def huge(rng, base):
    path, _ = rng.choice(numbers(base))
    value = rng.choice([1e300, -1e300, 10**40, -(10**200), "1e999", "9" * 400])
    parent(base, path)[path[-1]] = value
    return text_of(base), "refused"


def negative(rng, base):
    path, value = rng.choice(numbers(base))
    parent(base, path)[path[-1]] = -abs(value) - 1
    return text_of(base), "either"


def zero(rng, base):
    path, _ = rng.choice(numbers(base))
    parent(base, path)[path[-1]] = 0
    return text_of(base), "either"


def not_finite(rng, base):
    path, _ = rng.choice(numbers(base))
    parent(base, path)[path[-1]] = float(rng.choice(["nan", "inf", "-inf"]))
    return text_of(base), "refused"


def not_utf8(rng, base):
    text = text_of(base)
    place = rng.randrange(len(text))
    wrong = rng.choice([b"\xff", b"\xe9", b"\xc3\x28", b"\x80"])
    return text[:place] + wrong + text[place:], "refused"


def bomb(rng, base):
    width, levels = rng.randrange(8, 20), rng.randrange(6, 12)
    text = f"a0: &a0 [{', '.join(['x'] * width)}]\n"
    for level in range(1, levels):
        items = ", ".join([f"*a{level - 1}"] * width)
        text += f"a{level}: &a{level} [{items}]\n"
    return text.encode() + text_of(base), "refused"


def anchored(rng, base):
    """A section written once and taken in elsewhere means what it says."""
    expected = copy.deepcopy(base)
    entry = {"value": 0.75, "min": 0.1, "max": 0.9, "vary": True}
    expected.setdefault("parameters", {}).setdefault("scaling", {})["offset"] = entry
    expected["parameters"]["scaling"]["contrast"] = entry | {"max": 0.8}
    copy_of = copy.deepcopy(expected)
    del copy_of["parameters"]["scaling"]["contrast"], copy_of["parameters"]["scaling"]["offset"]
    text = "\n".join(dump(copy_of)).replace("scaling: {}", "scaling:")
    lines = text.splitlines()
    place = next(i for i, line in enumerate(lines) if line == "  scaling:") + 1
    lines[place:place] = [
        "    offset: &entry {value: 0.75, min: 0.1, max: 0.9, vary: yes}",
        "    contrast: {<<: *entry, max: 8e-1}",
    ]
    return "\n".join(lines).encode(), expected


def anchors_left_over(rng, base):
    extra = rng.choice(["x-common: &c {value: 1}\n", "defaults: &d [1]\n", "_: &e 1\n"])
    return extra.encode() + text_of(base), "refused"


def duplicated(rng, base):
    return text_of(base, twice=rng.choice(list(nodes(base)))), "refused"


def emptied(rng, base):
    """A key without a value counts as left out."""
    path = rng.choice(list(nodes(base)))
    expected = copy.deepcopy(base)
    parent(base, path)[path[-1]] = "~"
    del parent(expected, path)[path[-1]]
    return text_of(base), ("either", expected)


def truncated(rng, base):
    text = text_of(base)
    return text[: rng.randrange(len(text))], "anything"


def scrambled(rng, base):
    text = bytearray(text_of(base))
    for _ in range(rng.randrange(1, 4)):
        text[rng.randrange(len(text))] = ord(rng.choice(":{}[]&*!%@`'\"#|>-\t \n,?x0"))
    return bytes(text), "anything"


MUTATIONS = [
    *(deleted, misspelt, retyped, section_retyped, reordered, huge, negative, zero, not_finite),
    *(not_utf8, bomb, anchored, anchors_left_over, duplicated, emptied, truncated, scrambled),
]
EACH = 12
CASES = [(mutate, seed) for mutate in MUTATIONS for seed in range(EACH)]


def without_empty(tree):
    if not isinstance(tree, dict):
        return list(tree) if isinstance(tree, tuple) else tree
    inner = {key: without_empty(value) for key, value in tree.items()}
    return {key: value for key, value in inner.items() if value != {}}


@pytest.mark.parametrize(
    ("mutate", "seed"), CASES, ids=[f"{mutate.__name__}-{seed}" for mutate, seed in CASES]
)
def test_spoilt_file(mutate, seed, tmp_path):
    rng = random.Random(f"{mutate.__name__} {seed}")
    written, fate = mutate(rng, copy.deepcopy(rng.choice(BASES)))
    path = tmp_path / "run.yaml"
    path.write_bytes(written)
    try:
        config = ConfigManager.from_yaml(path)
    except ConfigurationError as error:
        assert not isinstance(fate, dict), f"refused: {error}\n{written.decode()}"
        assert error.problems and all(sentence.strip() for sentence in error.problems)
        assert str(error).startswith(str(path)) and "Traceback" not in str(error)
        return
    assert fate != "refused", f"accepted:\n{written.decode()}"
    if isinstance(fate, tuple):
        fate = fate[1]
    elif not isinstance(fate, dict):
        fate = parse_yaml(written, "again") if fate == "either" else None
    if fate is not None:
        assert without_empty(config.get_config()) == without_empty(fate)


def test_there_are_two_hundred():
    assert len(CASES) >= 200


def test_the_bases_are_accepted():
    for base in BASES:
        config = ConfigManager(parse_yaml(text_of(base), "base"))
        assert without_empty(config.get_config()) == without_empty(base)
