"""Checks the types of options: a value of another type than its field declares is refused in one line by its name.

For dataclasses and msgspec's Structs that users build themselves, as in Python nothing else looks at annotations.
It knows types alone; limits are their owners'.
"""

from __future__ import annotations

import functools
import math
import operator
import types
import typing
from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, Literal, Union, cast, get_args, get_origin

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from framefeed.errors import BadInput, FramefeedError
from framefeed.show_value import VALUE_CHARS, one_line, show_value


class _Unfit(Exception):
    """A value is not of a type."""


def settle_types(options: object, *, what: str, error: type[FramefeedError] = BadInput) -> None:
    """Check every field of a dataclass or Struct, and the fields of Structs in them; `what` begins the line.

    NumPy's numbers become Python's of the same value, and whole numbers floats where a float is declared; a bool is no
    number, and infinity and NaN are none either. Raises `error` naming the field, the value and what is wanted.
    """
    for name, plain in _changes(options, what=what, error=error).items():
        object.__setattr__(options, name, plain)


def whole_number(value: object) -> bool:
    """Whether it is an int, or NumPy's, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A value as an error line shows it, classes by name, and paths as they were typed."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"the path {one_line(str(value), chars=VALUE_CHARS)}" if isinstance(value, PurePath) else show_value(value)


def _changes(options: object, *, what: str, error: type[FramefeedError]) -> dict[str, Any]:
    """The fields whose values are to be others, of the same meaning."""
    changes, kind = {}, cast(Hashable, type(options))
    for name, hint in _hints(kind).items():
        value = getattr(options, name)
        try:
            plain = _plain(value, hint, what=f"{what}: {name}", error=error)
        except _Unfit:
            said = f"is {shown(value)}, wanted {spelled(hint)}"
            of_field = BadInput(said, of=what, field=name) if error is BadInput else error(f"{what}: {name} {said}")
            raise of_field from None
        if plain is not value:
            changes[name] = plain
    return changes


def _plain(value: Any, hint: Any, *, what: str, error: type[FramefeedError]) -> Any:
    """The value as its type wants it. Raises _Unfit if it is none."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _plain_of_any(value, args, what=what, error=error)
    if origin in (tuple, Sequence):
        return _items(value, origin, args, what=what, error=error)
    if hint in (int, float):
        return _whole(value) if hint is int else _number(value)
    if origin is Literal:
        fits = any(type(value) is type(word) and value == word for word in args)
    else:
        fits = isinstance(value, hint) if isinstance(hint, type) else True
    if not fits:
        raise _Unfit
    if isinstance(value, Struct):
        changes = _changes(value, what=what, error=error)
        return replace(value, **changes) if changes else value
    return value


def _plain_of_any(value: Any, hints: Sequence[Any], *, what: str, error: type[FramefeedError]) -> Any:
    for hint in sorted(hints, key=lambda one: one is float):  # an int stays one where both will do
        try:
            return _plain(value, hint, what=what, error=error)
        except _Unfit:
            continue
    raise _Unfit


def _whole(value: Any) -> int:
    if not whole_number(value):
        raise _Unfit
    return value if type(value) is int else operator.index(value)


def _number(value: Any) -> float:
    if not (whole_number(value) or isinstance(value, float | np.floating)):
        raise _Unfit
    try:
        number = float(value)
    except OverflowError:
        raise _Unfit from None
    if not math.isfinite(number):
        raise _Unfit
    return value if type(value) is float else number


def _items(value: Any, origin: Any, args: Sequence[Any], *, what: str, error: type[FramefeedError]) -> Any:
    if isinstance(value, str | bytes) or not isinstance(value, tuple | list if origin is tuple else Sequence):
        raise _Unfit
    many = origin is Sequence or (len(args) == 2 and args[1] is ...)
    hints = [args[0]] * len(value) if many else args
    if len(hints) != len(value):
        raise _Unfit
    items = [_plain(item, hint, what=what, error=error) for item, hint in zip(value, hints, strict=True)]
    same = all(new is old for new, old in zip(items, value, strict=True)) and (
        origin is not tuple or type(value) is tuple
    )
    return value if same else tuple(items)


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    assert isinstance(kind, type)
    assert is_dataclass(kind) or issubclass(kind, Struct)
    hints = typing.get_type_hints(kind)
    names = [one.name for one in fields(kind)] if is_dataclass(kind) else kind.__struct_fields__
    return {name: hints[name] for name in names}


def spelled(hint: Any) -> str:
    """A type as an error line says it: "a whole number or None"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin in (Union, types.UnionType):
        if len(args) > 2:
            return f"one of {', '.join(one.__name__ for one in args)}"
        return " or ".join(spelled(one) for one in args)
    if origin in (tuple, Sequence):
        many = origin is Sequence or (len(args) == 2 and args[1] is ...)
        return f"a list of {_plural(args[0])}" if many else f"{len(args)} of {_plural(args[0])}"
    if hint is type(None):
        return "None"
    words = {int: "a whole number", float: "a finite number", str: "a string", bool: "True or False"}
    return words.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def _plural(hint: Any) -> str:
    return {int: "whole numbers", float: "finite numbers", str: "strings"}.get(hint) or f"{spelled(hint)} each"
