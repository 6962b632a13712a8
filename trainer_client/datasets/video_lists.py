"""Reads lists of whole videos and class numbers. It knows no videos.

They are published so for Kinetics-400, -600, -700 and Something-Something v2. AVION's lines are PATH FRAMES LABEL,
where a path without a dot ends in .mp4; VideoMAE's are PATH LABEL, and those of its pre-training PATH 0 -1: a label of
-1 is none. Fields are parted by a space, a comma or a tab. The number of frames is not used: the manifest knows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.numerals import class_in
from trainer_client.datasets.parsed import Parsed, pick_file, read_classes, read_text, split_names
from trainer_client.datasets.spec import DataSpec, Split

NO_LABEL = -1
_ENDINGS = ("csv", "txt", "list")
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_HEADERS = frozenset({"path", "video", "label", "youtube_id", "filename"})


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    path: str
    label: int


def list_files(spec: DataSpec) -> tuple[Path, ...]:
    """The split's list first, then the others of its folder, which say how many classes there are."""
    own = pick_file(spec.path, split_names(spec.split, _ENDINGS), what=f"{spec.kind} lists")
    return (own, *_others(spec, own))


def read_list(spec: DataSpec) -> Parsed:
    """The rows of a list. Raises BadInput for a line of another form, or a class that is none of those named."""
    own, *others = list_files(spec)
    lines = _lines(own)
    labels, numbers = {line.label for line in lines}, [line.number for line in lines]
    if labels == {NO_LABEL}:
        return Parsed(rows=[Row(line.path, 0.0, math.inf) for line in lines], source=own, lines=numbers)
    if spec.classes is not None:
        names = read_classes(spec.classes)
    else:
        most = max(labels.union(*({line.label for line in _lines(other)} for other in others)))
        names = tuple(map(str, range(most + 1)))
    for line in lines:
        if not 0 <= line.label < len(names):
            raise BadInput(
                f"list {own}, line {line.number}: class {line.label} is unknown, wanted 0 to {len(names) - 1}"
            )
    rows = [Row(line.path, 0.0, math.inf, labels=(line.label,)) for line in lines]
    return Parsed(rows=rows, labels=("label",), classes={"label": names}, source=own, lines=numbers)


def _others(spec: DataSpec, own: Path) -> Iterator[Path]:
    if not spec.path.is_dir():
        return
    for split in _SPLITS:
        for name in split_names(split, _ENDINGS):
            place = own.with_name(name)
            if place != own and place.is_file():
                yield place


def _lines(path: Path) -> list[_Line]:
    found: list[_Line] = []
    fields = 0
    for number, text in enumerate(read_text(path), start=1):
        line = text.strip()
        if not line:
            continue
        parts = _fields(line, fields)
        if not found:
            fields = len(parts)
        if len(parts) != fields or not 2 <= fields <= 3 or not all(_is_whole(part) for part in parts[1:]):
            header = number == 1 and bool(
                _HEADERS & {part.strip().lower() for part in line.replace(" ", ",").split(",")}
            )
            hint = " (it is the header of a table: kind is table, perhaps)" if header else ""
            raise BadInput(
                f"list {path}, line {number} is {show_value(line)}, wanted PATH LABEL or PATH FRAMES LABEL, the same "
                f"on all lines{hint}"
            )
        try:
            label = NO_LABEL if parts[-1] == str(NO_LABEL) else class_in(parts[-1])
        except ValueError as error:
            raise BadInput(f"list {path}, line {number}: {error}") from None
        found.append(_Line(number, parts[0] if "." in parts[0] else f"{parts[0]}.mp4", label))
    if not found:
        raise BadInput(f"list {path} has no line, wanted at least one video: an empty split")
    return found


def _fields(line: str, fields: int) -> list[str]:
    """The path, which may have spaces, and one or two numbers behind it."""
    separator = next((mark for mark in ("\t", ",") if mark in line), None)
    parts = [part.strip() for part in line.rsplit(separator, (fields or 3) - 1)]
    if not fields and len(parts) == 3 and not _is_whole(parts[1]):
        parts = [part.strip() for part in line.rsplit(separator, 1)]
    return parts


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdecimal()
