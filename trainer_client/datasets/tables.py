"""Reads tables of video, start, end, and a label, a text or both, as CSV or JSON lines. It knows no videos.

A table without start and end is of whole videos; an empty end is the video's. Labels are names, or numbers where all
are; a text may be a list of texts in JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.csv_records import delimiter_of, read_csv
from trainer_client.datasets.numerals import class_in, seconds_in
from trainer_client.datasets.parsed import Parsed, Unread, pick_file, read_classes, read_text, split_names, whole_text
from trainer_client.datasets.spec import DataSpec, Split

_ENDINGS = ("csv", "jsonl", "tsv")
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_TIMES = {"start": frozenset({"start", "begin"}), "end": frozenset({"end", "stop"})}


@dataclass(frozen=True, slots=True)
class _Line:
    number: int  # in the file, from 1
    row: Row
    label: str | None


def table_files(spec: DataSpec) -> tuple[Path, ...]:
    """The split's table first, then the others of its folder, which say which classes there are."""
    own = pick_file(spec.path, split_names(spec.split, _ENDINGS), what="tables")
    others = [own.with_name(name) for split in _SPLITS for name in split_names(split, _ENDINGS)]
    return (own, *(path for path in others if spec.path.is_dir() and path != own and path.is_file()))


def read_table(spec: DataSpec, unread: Unread | None = None) -> Parsed:
    """The rows of a table. Raises BadInput for a header of another form; unless `unread` takes note of them, for a line
    of another form and an unknown class too.
    """
    own, *others = table_files(spec)
    lines = list(_lines(own, unread))
    has_text = any(line.row.texts for line in lines)
    if not any(line.label is not None for line in lines):
        numbers = [line.number for line in lines]
        return Parsed(rows=[line.row for line in lines], has_text=has_text, source=own, lines=numbers)
    if spec.classes is not None:
        classes = read_classes(spec.classes)
    else:
        seen = [line.label for path in others for line in _lines(path)] + [line.label for line in lines]
        try:
            classes = class_names({label for label in seen if label is not None})
        except ValueError as error:
            raise BadInput(f"table {own}: {error}") from None
    of_label = {name: number for number, name in enumerate(classes)} | {
        str(number): number for number in range(len(classes)) if str(number) not in classes
    }
    rows, numbers = [], []
    for line in lines:
        if line.label is None or line.label not in of_label:
            why = "there is no label" if line.label is None else f"label {show_value(line.label)} is unknown"
            if unread is None:
                raise BadInput(f"table {own}, line {line.number}: {why}; wanted one of the {len(classes)} classes")
            unread.add(line.number, why)
            continue
        rows.append(line.row._replace(labels=(of_label[line.label],)))
        numbers.append(line.number)
    return Parsed(
        rows=rows, labels=("label",), classes={"label": classes}, has_text=has_text, source=own, lines=numbers
    )


def class_names(labels: set[str]) -> tuple[str, ...]:
    """Classes in the order of their numbers: by these, where all are numbers, and else by name.

    Raises ValueError for numbers that are too large for classes.
    """
    if all(label.isdecimal() for label in labels):
        return tuple(map(str, range(max(map(class_in, labels)) + 1)))
    return tuple(sorted(labels))


def table_columns(path: Path) -> tuple[str, ...]:
    """The columns of a table in their order; of JSON lines, all that a line has. Raises BadInput as read_table does."""
    if path.suffix != ".jsonl":
        return read_csv(path).names
    return tuple(dict.fromkeys(name for _, values in _json_rows(path) if isinstance(values, dict) for name in values))


def table_records(path: Path) -> Iterator[tuple[int, Mapping[str, object] | ValueError]]:
    """The records of a table as they are written, by the line at which each begins, or why one is none.

    Raises BadInput for a header of another form.
    """
    return _json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path)


def _lines(path: Path, unread: Unread | None = None) -> Iterator[_Line]:
    for number, values in table_records(path):
        try:
            if isinstance(values, ValueError):
                raise values
            yield _line(number, values)
        except (ValueError, TypeError) as error:
            if unread is None:
                raise BadInput(f"table {path}, line {number}: {error}") from None
            unread.add(number, error)


def _line(number: int, values: Mapping[str, object]) -> _Line:
    video, label, text = values.get("video"), values.get("label"), values.get("text")
    if not isinstance(video, str) or not video:
        raise ValueError(f"video is {show_value(video)}, wanted a name")
    texts = tuple(text) if isinstance(text, list) else () if text is None else (text,)
    if not all(isinstance(one, str) for one in texts):
        raise ValueError(f"text is {show_value(text)}, wanted a text or a list of them")
    if not any(map(str.strip, texts)):
        texts = ()
    start, end = values.get("start"), values.get("end")
    row = Row(
        video=whole_text(video, "video"),
        start_s=0.0 if start in (None, "") else seconds_in(start, "start"),
        end_s=math.inf if end in (None, "") else seconds_in(end, "end"),
        texts=tuple(whole_text(one, "text") for one in texts),
    )
    return _Line(number, row, None if label is None else _label(label) or None)


def _label(value: object) -> str:
    """A label without spaces around it; "" for none."""
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"label is {show_value(value)}, wanted a name or a number")
    return whole_text(str(value), "label").strip()


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object] | ValueError]]:
    read = read_csv(path)
    _check_header(path, read.names)
    for line, fields in read.records:
        if len(fields) != len(read.names):
            yield line, ValueError("it has another number of fields than its header")
        else:
            yield line, dict(zip(read.names, fields, strict=True))


def _check_header(path: Path, names: Sequence[str]) -> None:
    if _is_header(names):
        _check_times(path, names)
        return
    seen = ", ".join(list(names)[:8]) or "nothing"
    raise BadInput(
        f"table {path} has the header {show_value(seen)}, wanted video, label or text, and perhaps start, end"
        f"{_why_no_header(path, names)}"
    )


def _check_times(path: Path, names: Sequence[str]) -> None:
    """Raises BadInput for times by other names: without start and end a row would be all of its video."""
    for wanted, words in _TIMES.items():
        like = [name for name in names if not words.isdisjoint(re.split(r"[^a-z]+", name.lower()))]
        if like and wanted not in names:
            raise BadInput(
                f"table {path} has the column {show_value(like[0])} and no {wanted}; wanted it to be called {wanted}, "
                "in seconds of the video"
            )


def _is_header(names: Sequence[str]) -> bool:
    return "video" in names and not {"label", "text"}.isdisjoint(names)


def _why_no_header(path: Path, names: Sequence[str]) -> str:
    """What would make a header of the names, if little would."""
    own = delimiter_of(path)
    for mark, called in ((",", "commas"), (";", "semicolons"), ("\t", "tabs")):
        parts = [name.strip() for one in names for name in one.split(mark)]
        if mark != own and len(parts) > len(names) and _is_header(parts):
            wanted = "tabs, as its name ends in .tsv" if own == "\t" else "commas"
            return f": its fields are parted by {called}, wanted {wanted}"
    if _is_header([name.strip() for name in names]):
        return ": its names have spaces around them, wanted none beside the commas"
    if _is_header([name.strip().lower() for name in names]):
        return ": its names have capitals, wanted lower case"
    return ""


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object] | ValueError]]:
    first = True
    for number, line in enumerate(read_text(path), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line, object_pairs_hook=_once_each)
        except _Twice as error:
            yield number, error
            continue
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            yield number, ValueError(f"it is {show_value(line)}, wanted an object in JSON")
            continue
        if first:
            _check_header(path, list(values))
            first = False
        yield number, values


class _Twice(ValueError):
    """An object has a name twice."""


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"it has {show_value(next(name for name in names if names.count(name) > 1))} twice, wanted once")
    return found
