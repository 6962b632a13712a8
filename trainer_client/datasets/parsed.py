"""What a reader of published annotations gives: rows, and what their labels mean. It knows no form of annotations."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.regular_file import read_regular
from framefeed.show_value import show_value
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.spec import Split

TEXT_FILE_BYTES = 1 << 33


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """The rows of one split in the order of the files. `labels` are those of each row, in their order; `classes` names
    what each numbers. Where a row is a line of a text file, `source` is that, and `lines` has the line at which each
    row begins, from 1.
    """

    rows: Iterable[Row]
    labels: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_text: bool = False
    source: Path | None = None
    lines: Sequence[int] = ()


class NoSuchFile(BadInput):
    """A folder has none of the files that are looked for, by these names."""

    def __init__(self, said: str, names: Sequence[str]) -> None:
        super().__init__(said)
        self.names = tuple(names)


class Unread:
    """Rows that are no annotation, by line, with why: told of one by one, where not the first is to end the reading."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def add(self, line: int, why: object) -> None:
        """Take note of one."""
        self.lines.append((line, str(why)))


def read_text(path: Path) -> io.StringIO:
    """A text file, whole. Raises BadInput if it is not there, is no regular file or is no UTF-8."""
    return io.StringIO(decoded(read_bytes(path), path), newline="")


def read_bytes(path: Path) -> bytes:
    """A file, whole. Raises BadInput if it is not there or is no regular file."""
    try:
        return read_regular(path, limit_bytes=TEXT_FILE_BYTES)
    except OSError as error:
        raise BadInput(f"annotations {path} cannot be read: {error.strerror}") from None


def decoded(data: bytes, path: Path) -> str:
    """Bytes as text. Raises BadInput for what is no UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"annotations {path} are no UTF-8 text: byte {error.start} is {data[error.start]:#x}") from None


def whole_text(value: object, name: str) -> str:
    """A text that UTF-8 can spell and columns keep. Raises ValueError for another value, by what it is called."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {show_value(value)}, wanted text")
    if "\0" in value or (not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)):
        raise ValueError(f"{name} is {show_value(value)}, with a NUL or half a character, wanted text without")
    return value


def pick_file(path: Path, candidates: Iterable[str], *, what: str) -> Path:
    """The file itself; or, of a folder, the first of these names that it has, at any depth of at most two folders.

    Raises BadInput if there is none, NoSuchFile where that is for these names alone.
    """
    names = list(candidates)
    if not path.exists():
        raise BadInput(f"{what} {path} does not exist")
    if not path.is_dir():
        return path
    for name in names:
        for place in (path / name, *sorted(path.glob(f"*/{name}")), *sorted(path.glob(f"*/*/{name}"))):
            if place.is_file():
                return place
    raise NoSuchFile(f"{what} {path} has none of {', '.join(names)}", names)


def split_names(split: Split, endings: Iterable[str]) -> list[str]:
    """What the file of a split may be called."""
    words = {"train": ("train",), "val": ("val", "validation", "validate"), "test": ("test",)}[split]
    return [f"{word}.{ending}" for word in words for ending in endings]


def read_classes(path: Path) -> tuple[str, ...]:
    """The classes that a text file names, one a line; a line of a number and a name, as "0 take", names that one.

    Raises BadInput for a name that comes twice, or a file without any.
    """
    lines = [line.strip() for line in read_text(path) if line.strip()]
    pairs = [line.split(maxsplit=1) for line in lines]
    if lines and all(len(pair) == 2 and pair[0] == str(at) for at, pair in enumerate(pairs)):
        lines = [pair[1] for pair in pairs]
    if len(set(lines)) != len(lines) or not lines:
        twice = next((line for at, line in enumerate(lines) if line in lines[:at]), "")
        raise BadInput(f"classes {path} name {show_value(twice)} twice" if twice else f"classes {path} name none")
    return tuple(lines)
