"""Kinds of arguments, told apart before a function begins.

Values of this package, mappings, words and flags are compared with what the function's annotations
name; shapes and numbers are the function's own business.
"""

import dataclasses
import functools
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


class _Number:
    """Whatever is neither a word nor a value of this package: numbers, arrays, functions."""


_ARRAYS = np.ndarray, jax.Array
_KNOWN = {
    bool: (bool, np.bool_, *_ARRAYS),
    int: (numbers.Integral, *_ARRAYS),
    Path: (os.PathLike,),
}
_WORDS = {
    _Number: "numbers",
    bool: "True or False",
    int: "a whole number",
    Path: "a path",
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


def check_fields(value: Any) -> None:
    """Refuse fields of a dataclass that are of another kind than their annotations name.

    Raises:
        TypeError: If one is.
    """
    name = type(value).__name__
    for field in dataclasses.fields(value):
        given, kinds = getattr(value, field.name), tuple(_classes(field.type))
        if not _is_of(given, kinds):
            raise TypeError(_sentence(name, field.name, given, kinds))


def _is_of(value: Any, classes: tuple[type, ...]) -> bool:
    if isinstance(value, bool) and bool not in classes:
        classes = tuple(kind for kind in classes if kind is not int)
    known = tuple(found for kind in classes for found in _KNOWN.get(kind, (kind,)))
    is_number = not isinstance(value, str) and not _is_ours(type(value))
    return isinstance(value, known) or (_Number in classes and is_number)


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "twotime"


def _sentence(function: str, name: str, value: Any, classes: tuple[type, ...]) -> str:
    shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
    named = [kind for kind in classes if kind is not int or _Number not in classes]
    expected = " or ".join(dict.fromkeys(_WORDS.get(kind, kind.__name__) for kind in named))
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
        is_told = _is_ours(annotation) or annotation in (str, types.NoneType, *_KNOWN)
        yield annotation if is_told else _Number
