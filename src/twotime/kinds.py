"""Kinds of arguments, told apart before a function begins.

Values of this package, mappings, words and flags are compared with what the function's annotations
name; shapes and numbers are the function's own business.
"""

import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, signature
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


class _Number:
    """Whatever is neither a word nor a value of this package: numbers, arrays, functions."""


_FLAGS = bool, np.bool_, np.ndarray, jax.Array
_WORDS = {
    _Number: "numbers",
    bool: "True or False",
    str: "a word",
    types.NoneType: "None",
    Mapping: "a mapping from names",
}


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """A function that refuses arguments of another kind than its annotations name.

    Raises:
        TypeError: On a call with such an argument.
    """
    parameters = signature(function).parameters
    kinds = {name: tuple(_classes(x.annotation)) for name, x in parameters.items()}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        given = dict(zip(parameters, args, strict=False)) | kwargs
        for name, value in given.items():
            if name in kinds and not _is_of(value, kinds[name]):
                raise TypeError(_sentence(function.__name__, name, value, kinds[name]))
        return function(*args, **kwargs)

    return call


def _is_of(value: Any, classes: tuple[type, ...]) -> bool:
    known = (*classes, *_FLAGS) if bool in classes else classes
    is_number = not isinstance(value, str) and not _is_ours(type(value))
    return isinstance(value, known) or (_Number in classes and is_number)


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "twotime"


def _sentence(function: str, name: str, value: Any, classes: tuple[type, ...]) -> str:
    shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    expected = " or ".join(dict.fromkeys(_WORDS.get(kind, kind.__name__) for kind in classes))
    fix = f"see help({function})"
    if isinstance(value, type):
        shown, fix = f"the class {value.__name__}", f"write {value.__name__}(...)"
    return f"{function}: {name} is {shown}; expected {expected}; {fix}."


def _classes(annotation: Any) -> Iterator[type]:
    """Classes that an annotation names; `object` where it cannot be told."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _classes(part)
    elif annotation is None:
        yield types.NoneType
    elif origin is not None:
        yield Mapping if origin is Mapping else str if origin is typing.Literal else _Number
    elif not isinstance(annotation, type) or annotation is Any or annotation is Parameter.empty:
        yield object
    elif getattr(annotation, "_is_protocol", False) or typing.is_typeddict(annotation):
        yield object
    else:
        is_told = _is_ours(annotation) or annotation in (bool, str, types.NoneType)
        yield annotation if is_told else _Number
