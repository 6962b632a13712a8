"""What became of every input, in the same words whichever verb tells it: used whole, used in part, refused, ignored.

As a table with a line for whatever is not used as it is, and as a file of JSON lines. It opens no media and no folders.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from decode_server.media.media_use import MediaUse
from framefeed.errors import BadInput, CorruptMedia
from framefeed.new_file import write_whole

_MOST_LINES = 100  # of one kind on a terminal; the file has all
_COLUMNS = {"whole": "used whole", "in part": "used in part", "refused": "refused", "ignored": "ignored"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What became of one file or folder: `file` is its path as people read it, `video` what it is called where it is
    used; `again` if it is refused now and another try may succeed. Not `decoded` is what is known of its container
    alone, or of some of its pictures.
    """

    file: str
    use: MediaUse
    video: str = ""
    again: bool = False
    decoded: bool = True

    def as_row(self) -> dict[str, object]:
        """As plain values, for a line of JSON."""
        uses = {name: value for name, value in asdict(self.use).items() if name != "refused"}
        row = {"file": self.file, "video": self.video, "state": self.use.state, "reason": self.use.refused}
        return {**row, "decoded": self.decoded, "again": self.again, "warning": self.use.warning, **uses}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of all inputs of a verb; `ignored` counts by suffix the files that were not looked into."""

    files: tuple[FileReport, ...]
    ignored: Mapping[str, int]

    def show(self, console: Console) -> None:
        """Print how many inputs became what, and a line for each of which there is something to say."""
        counts = Counter(report.use.state for report in self.files)
        table = Table(*_COLUMNS.values(), box=None)
        used = [str(counts[state]) for state in ("whole", "in part", "refused")]
        table.add_row(*used, str(sum(self.ignored.values())))
        console.print(table)
        undecoded = sum(not (report.use.refused or report.decoded) for report in self.files)
        if undecoded:
            check = "'framefeed index --check' finds damage inside their pictures"
            console.print(f"not decoded: {undecoded} of those used; {check}", highlight=False, soft_wrap=True)
        lines = [line for report in self.files for line in _lines(report)]
        for line in lines[:_MOST_LINES]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if len(lines) > _MOST_LINES:
            console.print(f"{len(lines) - _MOST_LINES} more lines: --report FILE has all", highlight=False)
        if self.ignored:
            suffixes = ", ".join(f"{count} {suffix}" for suffix, count in Counter(self.ignored).most_common())
            console.print(f"ignored: {suffixes}", markup=False, highlight=False, soft_wrap=True)

    def write(self, path: Path) -> None:
        """Write a JSON line an input, and one a suffix that was ignored, to a file that is whole or not there.

        Raises BadInput where it cannot be written.
        """
        rows = [report.as_row() for report in self.files]
        rows += [{"state": "ignored", "suffix": suffix, "files": count} for suffix, count in self.ignored.items()]
        try:
            write_whole(path, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
        except OSError as error:
            raise BadInput(f"--report {path} cannot be written ({error.strerror})") from None

    def require_mostly_used(self) -> None:
        """Raises CorruptMedia where more inputs are refused than used: what is used stands, and no script goes on."""
        refused = [report for report in self.files if report.use.refused]
        if 2 * len(refused) > len(self.files):
            first = refused[0]
            raise CorruptMedia(
                f"{len(refused)} of {len(self.files)} inputs are refused, more than are used; "
                f"first: {first.file}: {first.use.refused}"
            )


def _lines(report: FileReport) -> Iterable[str]:
    """What there is to say, a line each, behind the word that is on top of its column."""
    use = report.use
    for line in (*((use.refused,) if use.refused else ()), *use.losses):
        yield f"{_COLUMNS[use.state]}: {report.file}: {line}"
    if not use.refused:
        yield from (f"note: {report.file}: {note}" for note in use.notes)
    if use.warning:
        yield f"warning: {report.file}: {use.warning}"
