"""Kinds of arguments by annotations: what is refused and what is let through."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import twotime as tt
from twotime.kinds import checked

LAW = tt.StaticDiffusion()


@checked
def asked(
    law: tt.StaticDiffusion | None = None,
    number: int | Float[Array, ""] = 0,
    flag: bool = True,
    word: str | Literal["a"] = "a",
    names: Mapping[str, Any] | None = None,
    count: int = 1,
    place: Path | str = "here",
    rest: Sequence[int] | Callable[[Any], None] = (),
    anything: Any = None,
    bare=None,
    *many: Float[Array, "..."],
    later: "str" = "",
    **options: Any,
) -> tuple[Any, ...]:
    return law, number, flag, word, names, count, place, rest, anything, bare, many, later, options


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"law": "static"}, "law is 'static'; expected StaticDiffusion or None; see help.asked."),
        (
            {"law": tt.StaticDiffusion},
            r"law is the class StaticDiffusion; .*StaticDiffusion\(\.\.\.",
        ),
        ({"law": tt.LaminarFlow(gap=1.0)}, "law is LaminarFlow; expected StaticDiffusion or None"),
        ({"number": "many"}, "number is 'many'; expected numbers; see"),
        ({"number": LAW}, "number is StaticDiffusion; expected numbers"),
        ({"flag": "no"}, "flag is 'no'; expected True or False"),
        ({"flag": 1}, "flag is 1; expected True or False"),
        ({"word": 1}, "word is 1; expected a word"),
        ({"names": [1]}, "names is list; expected a mapping from names or None"),
        ({"count": 1.5}, "count is 1.5; expected a whole number; see"),
        ({"count": True}, "count is True; expected a whole number"),
        ({"place": 1}, "place is 1; expected a path or a word"),
        ({"rest": "a"}, "rest is 'a'; expected numbers"),
    ],
)
def test_another_kind_is_refused_in_a_sentence(given, says):
    with pytest.raises(TypeError, match=f"^asked: {says}"):
        asked(**given)


def test_arguments_in_their_places_are_looked_at_too():
    with pytest.raises(TypeError, match="number is StaticDiffusion"):
        asked(LAW, LAW)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"law": LAW, "number": 2.5, "flag": np.bool_(True), "word": "b", "names": {}, "rest": [1]},
        {"number": jnp.ones(()), "flag": jnp.asarray(True), "names": {"a": 1}, "rest": print},
        {"anything": "a", "bare": LAW, "later": 1, "other": "word"},
    ],
)
def test_what_is_asked_for_is_let_through(given):
    assert len(asked(**given)) == 13
    given = None, 1, True, "a", None, np.int64(2), Path(), (), "x", "y", 1.0, 2.0
    assert len(asked(*given)) == 13


def test_values_of_packages_that_are_named_after_this_one_are_not_of_it():
    class Watch:
        __module__ = "twotime_gels.watch"

    assert asked(rest=Watch())


def test_traced_values_are_let_through():
    def number(x):
        return asked(number=x, flag=x > 0)[1]

    assert jax.jit(number)(1.0) == 1.0 and jax.grad(number)(1.0) == 1.0
