"""The fields of a verb's dataclass as the options that tyro makes of them; knows no page, and parses nothing."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import tyro

_LETTERS = {int: "N", float: "X", str: "TEXT"}
_WORDS = {int: "a whole number", float: "a number", str: "a text"}
_NOTHING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionField:
    """One option: as typed, what its value is called on a page and in a sentence, what it is for, and its default.

    `name` is the first flag, or for a place in the line what its value is called (ROOT). `of` is what its group is
    for, empty for the verb's own. `default` is None for a required one and empty where there is nothing to say.
    """

    name: str
    flags: tuple[str, ...]
    value: str
    wanted: str
    about: str
    default: str | None
    of: str = ""
    choices: tuple[str, ...] = ()

    @property
    def first_words(self) -> str:
        """What it is for in a sentence."""
        return first_sentence(self.about)

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return bool(self.flags) and not self.value


def first_sentence(text: str) -> str:
    """A text up to its first full stop that ends a sentence."""
    flat = " ".join(text.split())
    end = re.search(r"(?<!e\.g)(?<!i\.e)\. ", flat)
    return flat[: end.start() + 1] if end else flat


def option_fields(kind: type, default: object = None) -> tuple[OptionField, ...]:
    """Every option of a dataclass, those of dataclasses in it too, in their order; values that are not given as in
    `default`, if there is one.
    """
    return tuple(_walk(kind, _NOTHING if default is None else default, prefix="", of=""))


def _walk(kind: type, default: object, *, prefix: str, of: str) -> Iterator[OptionField]:
    hints, about = _hints(cast(Hashable, kind)), _docs(cast(Hashable, kind))
    for field in dataclasses.fields(cast(Any, kind)):
        hint, marks = _unwrapped(hints[field.name])
        if tyro.conf.Fixed in marks or not field.init:
            continue
        value = _default(field) if default is _NOTHING else getattr(default, field.name)
        named = next((mark.name for mark in marks if getattr(mark, "name", None) is not None), None)
        own = field.name.replace("_", "-") if named is None or tyro.conf.Positional in marks else named
        bare = any(getattr(mark, "prefix_name", None) is False for mark in marks)
        name = ".".join(part for part in ("" if bare else prefix, own) if part)
        group = _group_of(hint, value)
        if group is not None:
            inner = value if dataclasses.is_dataclass(value) else _NOTHING
            yield from _walk(group, inner, prefix=name, of=first_sentence(inspect.getdoc(group) or ""))
        else:
            yield _option(name, hint, marks, value, about=about.get(field.name, ""), of=of)


def _option(name: str, hint: Any, marks: tuple[Any, ...], value: object, *, about: str, of: str) -> OptionField:
    hint = _without_none(hint)
    required = value is _NOTHING or value is tyro.MISSING
    place = tyro.conf.Positional in marks
    aliases = next((mark.aliases for mark in marks if getattr(mark, "aliases", None)), ())
    head, _, tail = name.rpartition(".")
    switch = f"--{head}{'.' if head else ''}no-{tail}"
    flags = () if place else (f"--{name}", *((switch,) if hint is bool else ()), *aliases)
    choices = tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()
    return OptionField(
        name=name.replace("-", "_").upper() if place else f"--{name}",
        flags=flags,
        value="" if hint is bool else _value(hint, repeated=tyro.conf.UseAppendAction in marks),
        wanted=_wanted(hint),
        about=about,
        default=None if required else _shown(value, about),
        of=of,
        choices=choices,
    )


def _value(hint: Any, *, repeated: bool = False) -> str:
    """What stands for the value on a page."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"{{{','.join(map(str, args))}}}"
    if origin is tuple and args[-1:] == (...,):
        return _value(args[0]) if repeated else f"{_value(args[0])}…"
    if origin is tuple:
        return " ".join(_value(arg) for arg in args)
    if isinstance(hint, type) and issubclass(hint, PurePath):
        return "PATH"
    return _LETTERS.get(hint, "VALUE")


def _wanted(hint: Any) -> str:
    """The same in a sentence."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple and args[-1:] == (...,):
        return f"{_wanted(args[0])}, or several"
    if origin is tuple:
        return f"{len(args)} values, each {_wanted(args[0])}"
    if isinstance(hint, type) and issubclass(hint, PurePath):
        return "a path"
    return _WORDS.get(hint, "a value")


def _shown(value: object, about: str) -> str:
    """A default for people; nothing where it is none, or the text says what is done then."""
    if "default" in about.lower() or value in (None, "", (), False):
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "on" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _NOTHING if field.default is dataclasses.MISSING else field.default


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return inner, tuple(marks)
    return hint, ()


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(arg for arg in get_args(hint) if arg is not type(None))
    return hint


def _group_of(hint: Any, value: object) -> type | None:
    """The dataclass whose fields are options instead, if the field is of one."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value)
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def _docs(kind: Hashable) -> dict[str, str]:
    """The text below each field of a class and of those it is made of."""
    found: dict[str, str] = {}
    for owner in reversed(cast(type, kind).__mro__):
        if dataclasses.is_dataclass(owner):
            body = cast(ast.ClassDef, ast.parse(inspect.cleandoc(inspect.getsource(owner))).body[0]).body
            for field, text in pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    found[field.target.id] = str(ast.literal_eval(text.value))
    return found
