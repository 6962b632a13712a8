"""Reads a CSV with a header: each record with the line at which it begins, as an editor numbers them. It knows no
columns.

A file whose name ends in .tsv has tabs. A record may go over several lines, in quotes; lines without anything are none.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.datasets.parsed import read_text


@dataclass(frozen=True, slots=True)
class CsvRecords:
    """The names in the header, none of an empty file, and the records behind it: line from 1, fields as they are."""

    names: tuple[str, ...]
    records: Iterator[tuple[int, list[str]]]


def delimiter_of(path: Path) -> str:
    """What parts the fields of a file of this name."""
    return "\t" if path.suffix == ".tsv" else ","


def read_csv(path: Path) -> CsvRecords:
    """A CSV. Raises BadInput for a file that cannot be read, a column that comes twice, and while records are read for
    what is no CSV.
    """
    records = _records(path)
    _, names = next(records, (0, []))
    twice = next((name for at, name in enumerate(names) if name and name in names[:at]), None)
    if twice is not None:
        raise BadInput(f"{path} has the column {show_value(twice)} twice in its header, wanted each once")
    return CsvRecords(names=tuple(names), records=records)


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    record: list[str] = []  # the lines of the last one
    reader = csv.reader(_kept(read_text(path), record), delimiter=delimiter_of(path))
    begins = 1
    try:
        for fields in reader:
            if fields:
                yield begins, fields
            if '"' in record[-1] or len(record) > 1:
                _require_closed(record, delimiter_of(path))
            begins = reader.line_num + 1
            record.clear()
    except csv.Error as error:
        raise BadInput(f"{path}, line {begins}: {error}; is each quote closed?") from None


def _kept(lines: Iterable[str], record: list[str]) -> Iterator[str]:
    for line in lines:
        record.append(line)
        yield line


def _require_closed(record: Iterable[str], delimiter: str) -> None:
    """Raises csv.Error where a record ends with its file, within quotes: the reader takes all behind them for text."""
    try:
        list(csv.reader(record, delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "end of data" in str(error):
            raise
