"""The rows of a CSV file with a header, each with the line that it begins on. It knows no columns.

A quote that is never closed makes one field of all that follows it: that is an error of the line where it opens.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from framefeed.errors import BadInput
from trainer_client.datasets.parsed import read_text


class CsvRows:
    """`names` are those of the header; iterate over (line, values by name) of each row.

    Too few fields are None at the names that they lack, too many stand under None, as `csv.DictReader` has it. Blank
    lines are no rows. Raises BadInput, with the file and line, for what is no CSV; `what` begins the line.
    """

    def __init__(self, path: Path, *, what: str, delimiter: str = ",") -> None:
        self._what = what
        self._text = iter(read_text(path))
        self._line = 0  # that was read last
        self._record: list[str] = []  # the lines of the row that was read last
        self._csv = csv.reader(self._lines(), delimiter=delimiter)
        self.names: Sequence[str] = next(self._records(), (0, []))[1]

    def __iter__(self) -> Iterator[tuple[int, dict[str | None, str | list[str] | None]]]:
        names = self.names
        for line, fields in self._records():
            row: dict[str | None, str | list[str] | None] = dict.fromkeys(names)
            row.update(zip(names, fields, strict=False))
            if len(fields) > len(names):
                row[None] = fields[len(names) :]
            yield line, row

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            self._record, begins = [], self._line + 1
            try:
                fields = next(self._csv)
                if len(self._record) > 1 or self._record[0].count('"') % 2:
                    self._check_closed()
            except StopIteration:
                return
            except csv.Error as error:
                raise BadInput(f"{self._what}, line {begins}: {error}; is each quote closed?") from None
            if fields:
                yield begins, fields

    def _check_closed(self) -> None:
        """Raises csv.Error where the row ends with the file, within quotes: the reader takes that for their end."""
        try:
            list(csv.reader(self._record, self._csv.dialect, strict=True))
        except csv.Error as error:
            if "end of data" in str(error):
                raise

    def _lines(self) -> Iterator[str]:
        for line in self._text:
            self._line += 1
            self._record.append(line)
            yield line
