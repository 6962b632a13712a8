"""A run's recipe as a file: all that was chosen, resolved, so that the file makes the same run again.

It knows recipes as nested dataclasses, and none of them. One syntax changes any field of one:
`learning.layer_decay=0.75`, names joined by dots, the value as JSON or else as text.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_type_hints

import msgspec

from framefeed.errors import BadInput
from framefeed.new_file import write_whole

RECIPE_NAME = "recipe.json"

RecipeT = TypeVar("RecipeT")


def write_recipe(path: Path, recipe: object, *, name: str) -> None:
    """Write a recipe under the name of its kind, whole or not at all. Raises OSError."""
    write_whole(path, json.dumps({"recipe": name, **plain(recipe)}, indent=1).encode() + b"\n")


def read_recipe(path: Path, kinds: Mapping[str, type[RecipeT]], *, changes: Sequence[str] = ()) -> RecipeT:
    """The recipe in a file, of one of these kinds, with changes of single fields, each "name.of.field=value".

    Raises BadInput, in one line, for a file that holds none, a name that is no field (with the nearest that is), and
    values of another type or that the recipe itself refuses.
    """
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"recipe {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"recipe {path} is no JSON: {str(error)[:200]}") from None
    name = body.pop("recipe", None) if isinstance(body, dict) else None
    if not isinstance(name, str) or name not in kinds:
        shown = name if isinstance(name, str) else type(name).__name__
        raise BadInput(f"recipe {path} is of kind {shown[:50]!r}, wanted one of {', '.join(sorted(kinds))}")
    return rebuilt(body, kinds[name], changes=changes, what=f"recipe {path}")


def plain(recipe: object) -> dict[str, object]:
    """What JSON can say of a recipe."""
    body: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(recipe), default=str))  # type: ignore[call-overload]
    return body


def rebuilt(body: object, kind: type[RecipeT], *, changes: Sequence[str] = (), what: str = "recipe") -> RecipeT:
    """The recipe that `plain` was made of, with changes. Raises as `read_recipe` does."""
    _check_names(body, kind, what=what)
    assert isinstance(body, dict)
    for change in changes:
        _set(body, change, kind, what=what)
    try:
        return msgspec.convert(body, kind, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise BadInput(f"{what}: {str(error).partition(chr(10))[0]}") from None


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"got {type(value).__name__}, wanted {kind.__name__}")


def _check_names(body: object, kind: type, *, what: str, at: str = "") -> None:
    if not isinstance(body, Mapping):
        raise BadInput(f"{what}: {at or 'the whole'} is a {type(body).__name__}, wanted fields by name")
    hints = get_type_hints(kind)
    for name, value in body.items():
        if name not in hints:
            raise _unknown(f"{at}{name}", hints, at=at, what=what)
        if dataclasses.is_dataclass(hints[name]):
            _check_names(value, hints[name], what=what, at=f"{at}{name}.")


def _set(body: dict[str, object], change: str, kind: type, *, what: str) -> None:
    names, equals, text = change.partition("=")
    if not equals:
        raise BadInput(f"{what}: change is {change!r}, wanted name.of.field=value")
    *path, last = names.split(".")
    at = ""
    for name in path:
        hints = get_type_hints(kind)
        if name not in hints or not dataclasses.is_dataclass(hints[name]):
            raise _unknown(names, hints, at=at, what=what)
        inner = body.setdefault(name, {})
        assert isinstance(inner, dict)
        body, kind, at = inner, hints[name], f"{at}{name}."
    if last not in (hints := get_type_hints(kind)):
        raise _unknown(names, hints, at=at, what=what)
    try:
        body[last] = json.loads(text)
    except ValueError:
        body[last] = text


def _unknown(name: str, known: Mapping[str, object], *, at: str, what: str) -> BadInput:
    tail = name.removeprefix(at).partition(".")[0]
    near = difflib.get_close_matches(tail, known, n=1, cutoff=0.4)
    hint = f"did you mean {at}{near[0]}?" if near else f"wanted one of {', '.join(sorted(known))}"
    return BadInput(f"{what}: there is no field {name}; {hint}")
