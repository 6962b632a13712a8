"""One syntax for any field of a recipe: `learning.lr=1e-3`, on the command line, in Python and over a saved file.

It knows nested dataclasses, and none of them. A field's name is its path, joined by dots, or as much of the end of it
as no other field has: `lr`, `learning.lr` and `what.learning.lr` are one field. The value is JSON, or else text.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from framefeed.errors import BadInput
from framefeed.nearest_name import nearest_name
from framefeed.option_types import spelled
from framefeed.show_value import show_value

RecipeT = TypeVar("RecipeT")

CHANGE = re.compile(r"[A-Za-z_][\w.]*=.*", re.DOTALL)  # an argument that is one; a path with = in it has a / or a ./
_GROUP = object()


def changed(recipe: RecipeT, *changes: str, what: str = "recipe") -> RecipeT:
    """The recipe with these changes of single fields, each "name.of.field=value".

    Raises BadInput, in one line that begins with `what`, for a name that is no field (with the nearest that is), a
    value of another type, and what the recipe itself refuses.
    """
    paths, values = paths_of(recipe), dict[str, object]()
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise BadInput(f"{what}: change is {show_value(change)}, wanted name.of.field=value")
        values[_resolved(name, paths, what=what)] = _Text(text)
    return _with(recipe, values, what=what)


def rebuilt(default: RecipeT, body: object, *, what: str = "recipe") -> RecipeT:
    """The recipe whose `plain` is `body`; `default` says its types, and the fields that are not in it.

    Raises as `changed` does.
    """
    if not isinstance(body, Mapping):
        raise BadInput(f"{what}: the whole is a {type(body).__name__}, wanted fields by name")
    paths = paths_of(default)
    return _with(default, dict(_leaves(body, paths, at="", what=what)), what=what)


def plain(recipe: object) -> dict[str, object]:
    """What JSON can say of a recipe."""
    body: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(cast(Any, recipe)), default=str))
    return body


def fields_of(recipe: object) -> dict[str, object]:
    """The value of each single field by its whole path, in order."""
    return {path: value for path, value in _walk(recipe) if value is not _GROUP}


def paths_of(recipe: object) -> tuple[str, ...]:
    """The whole paths of all fields, groups of fields included."""
    return tuple(path for path, _ in _walk(recipe))


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """The shortest name of each path that is no other's."""
    known = list(paths)
    return {path: next(tail for tail in _tails(path) if len(_matching(tail, known)) == 1) for path in known}


class _Text(str):
    """A value as it is typed."""

    __slots__ = ()


def _walk(value: object, at: str = "") -> Iterator[tuple[str, object]]:
    for name, inner in _inner(value).items():
        if _is_group(inner):
            yield f"{at}{name}", _GROUP
            yield from _walk(inner, f"{at}{name}.")
        else:
            yield f"{at}{name}", inner


def _is_group(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _inner(value: object) -> dict[str, object]:
    assert _is_group(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(cast(Any, value)) if field.init}


def _tails(path: str) -> Iterator[str]:
    """`a.b.c` as c, b.c, a.b.c."""
    names = path.split(".")
    return (".".join(names[-count:]) for count in range(1, len(names) + 1))


def _matching(name: str, paths: Iterable[str]) -> list[str]:
    found = [path for path in paths if path == name or path.endswith(f".{name}")]
    return [name] if name in found else found


def _resolved(name: str, paths: tuple[str, ...], *, what: str) -> str:
    """The whole path of a name. Raises BadInput for one that is none, a group's, or several fields'."""
    found = _matching(name, paths)
    if not found:
        raise _unknown(name, paths, what=what)
    if len(found) > 1:
        raise BadInput(f"{what}: there are several fields {name}: {', '.join(found)}; wanted one of them")
    if inside := [path for path in paths if path.startswith(f"{found[0]}.")]:
        raise BadInput(f"{what}: {name} is a group of fields; wanted one of {', '.join(inside)}")
    return found[0]


def _leaves(
    body: Mapping[object, object], paths: tuple[str, ...], *, at: str, what: str
) -> Iterator[tuple[str, object]]:
    for name, value in body.items():
        path = f"{at}{name}"
        if path not in paths:
            near = [path for path in paths if path.startswith(at)]
            raise _unknown(path, tuple(near), what=what)
        if not any(other.startswith(f"{path}.") for other in paths):
            yield path, value
        elif isinstance(value, Mapping):
            yield from _leaves(value, paths, at=f"{path}.", what=what)
        else:
            raise BadInput(f"{what}: {path} is a {type(value).__name__}, wanted fields by name")


def _with(recipe: RecipeT, values: Mapping[str, object], *, what: str) -> RecipeT:
    """Built from the inside out, each group once, so that fields that only fit together may change together."""
    hints, own = _hints(cast(Hashable, type(recipe))), dict[str, object]()
    groups: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        name, dot, rest = path.partition(".")
        if dot:
            groups.setdefault(name, {})[rest] = value
        else:
            own[name] = _converted(value, hints[name], what=f"{what}: {name}")
    for name, inner in groups.items():
        own[name] = _with(getattr(recipe, name), inner, what=what)
    try:
        return cast(RecipeT, dataclasses.replace(cast(Any, recipe), **own)) if own else recipe
    except ValueError as error:
        raise BadInput(f"{what}: {error}") from None


def _converted(value: object, hint: object, *, what: str) -> object:
    try:
        body = _as_json(value)
        made = msgspec.convert(body, hint, dec_hook=_path)
        _require_known(body, made, what=what)
        return made
    except msgspec.ValidationError as error:
        if isinstance(value, _Text):
            try:
                return msgspec.convert(str(value), hint, dec_hook=_path)
            except msgspec.ValidationError:
                pass
        if not isinstance(value, _Text) or isinstance(_as_json(value), list | dict):
            raise BadInput(f"{what}: {str(error).partition(chr(10))[0]}") from None
        raise BadInput(f"{what} is {show_value(str(value))}, wanted {_wanted(hint)}") from None


def _require_known(body: object, made: object, *, what: str) -> None:
    """Raise BadInput for a name in a value that none of its fields has: a conversion passes over it."""
    if isinstance(body, Mapping) and _is_group(made):
        fields = _inner(made)
        for name, inner in body.items():
            if name not in fields:
                raise _unknown(str(name), tuple(fields), what=what)
            _require_known(inner, fields[name], what=what)
    elif isinstance(body, list) and isinstance(made, list | tuple):
        for inner, one in zip(body, made, strict=False):
            _require_known(inner, one, what=what)


def _wanted(hint: object) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    return spelled(hint)


def _as_json(value: object) -> object:
    if isinstance(value, _Text):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return str(value)
    return value


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"got {type(value).__name__}, wanted {kind.__name__}")


@cache
def _hints(kind: Hashable) -> dict[str, object]:
    return get_type_hints(kind)


def _unknown(name: str, paths: tuple[str, ...], *, what: str) -> BadInput:
    """Nearest among names of as many parts first: a slip in one part is more likely than another depth."""
    tails = [tail for path in paths for tail in _tails(path)]
    alike = [tail for tail in tails if tail.count(".") == name.count(".")]
    near = nearest_name(name, alike) or nearest_name(name, tails, cutoff=0.5)
    if near:
        return BadInput(f"{what}: there is no field {name}; did you mean {near}?")
    return BadInput(f"{what}: there is no field {name}; wanted one of {', '.join(sorted(short_names(paths).values()))}")
