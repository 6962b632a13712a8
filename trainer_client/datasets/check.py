"""The verb `check`: whether a root can give what annotations name, before a run finds out. It opens no video.

framefeed check /nfs/chunks my.csv                               # the kind follows from the file, or is said
framefeed check /nfs/chunks epic/ --kind ek100_cls --split val --report odd.jsonl
framefeed check /nfs/chunks my.csv --clip --fixed usable.csv     # what can be used, as a table
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import numpy as np
import tyro

from framefeed.errors import BadInput, CorruptMedia
from framefeed.manifest import Manifest, read_manifest
from framefeed.new_file import check_place, write_whole
from framefeed.quarantine import read_quarantine
from framefeed.report_file import check_report
from trainer_client.datasets.annotated import ABSENT, NO_SPAN, NO_TEXT, PAST_END
from trainer_client.datasets.egomcq import EGOMCQ_NAME
from trainer_client.datasets.fixed_rows import fixed_rows
from trainer_client.datasets.open_dataset import read_rows
from trainer_client.datasets.parsed import NoSuchFile, Parsed, Unread
from trainer_client.datasets.row_check import CLIPPED, QUARANTINED, UNREAD, UNSAID, USABLE, RowCheck, check_rows
from trainer_client.datasets.spec import DataSpec, Kind, Split

_JSON = msgspec.json.Encoder()
_SHOWN = 3  # rows of each kind on the terminal; the report has all
_ODD = (UNREAD, ABSENT, NO_SPAN, PAST_END, QUARANTINED, NO_TEXT, UNSAID, CLIPPED)
_SUFFIXES: dict[str, Kind] = {".csv": "table", ".tsv": "table", ".jsonl": "table", ".pkl": "ego4d", ".json": "egomcq"}


@dataclass(frozen=True, kw_only=True)
class Check:
    """Compare annotations with a root: unknown names, odd spans.

    Every row is usable or counted, by why it is not; each kind of trouble is shown with its first rows.
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, made by 'framefeed chunk' or indexed by 'framefeed index'."""
    annotations: Annotated[Path, tyro.conf.Positional]
    """The annotations: a file, or a folder that is looked through for the split's."""
    kind: Kind | None = None
    """What wrote them. Default: as the name says: table for .csv, .tsv and .jsonl, ek100_cls for EPIC_100 files, ego4d
    for .pkl, egomcq for .json, else kinetics."""
    split: Split | None = None
    """Which of the files in a folder. Default: the first of train, val and test that is there."""
    index: Path | None = None
    """Folder of the manifest and packet indices, if they do not lie in the root."""
    clip: bool = False
    """Use spans that begin in their video and end past it, up to its end."""
    fixed: Path | None = None
    """File to write with the rows that can be used, as kind table reads them: a CSV with all columns that they had, or
    JSON lines for a name ending in .jsonl. The annotations themselves are never written."""
    overwrite: bool = False
    """Replace the file of --fixed that is there."""
    report: Path | None = None
    """File for a JSON line about each row that is not used as it is, and why."""

    def run(self) -> None:
        """Check, and print what was found.

        Raises BadInput for what is no annotations or no root, CorruptMedia if a row cannot be used.
        """
        self._check_places()
        parsed, found, kind = self._checked()
        fixed = None if self.fixed is None else fixed_rows(found, parsed, kind, self.fixed)
        print("\n".join(told(found)))
        if self.report is not None:
            _write(self.report, _report(found), option="--report")
        if self.fixed is not None and fixed is not None:
            _write(self.fixed, fixed, option="--fixed")
        if found.unusable:
            bad = [state for state in _ODD if state != CLIPPED and found.counts[state]]
            why = ", ".join(f"{found.counts[state]} {state}" for state in bad)
            raise CorruptMedia(f"{found.unusable} of {found.rows} rows of {self.annotations} cannot be used: {why}")

    def _check_places(self) -> None:
        """Raise BadInput for files to write that cannot be written, or may not."""
        read = [self.annotations]
        if self.annotations.is_dir():
            read = [path for path in self.annotations.rglob("*") if path.is_file()]
        check_report(self.report, read=read)
        check_place(self.fixed, option="--fixed", read=read)
        if self.fixed is None:
            return
        if self.report is not None and self.fixed.absolute() == self.report.absolute():
            raise BadInput(f"--fixed and --report are both {self.fixed}; wanted two files")
        if self.fixed.exists() and not self.overwrite:
            raise BadInput(f"--fixed {self.fixed} is there already; wanted a new file, or --overwrite")

    def checked(self) -> tuple[Parsed, RowCheck]:
        """The rows as they were read, and what was found of them. Raises BadInput."""
        return self._checked()[:2]

    def _checked(self) -> tuple[Parsed, RowCheck, Kind]:
        folder = self.index or self.root
        manifest = read_manifest(folder)
        parsed, unread, kind = self._read(manifest)
        rows = list(parsed.rows)
        listed = read_quarantine(*dict.fromkeys((self.root, folder)))
        found = check_rows(rows, manifest, listed, clip=self.clip)
        if not parsed.labels and (parsed.has_text or kind == "table"):  # a list may be of videos alone
            bare = np.fromiter((not any(row.texts) for row in rows), np.bool_, len(rows))
            found = found.but(NO_TEXT if parsed.has_text else UNSAID, bare)
        place = "row" if parsed.source is None else "line"
        whole = replace(found, unread=tuple(unread.lines), lines=parsed.lines, place=place)
        if not whole.rows:
            raise BadInput(f"annotations {self.annotations} have no row, wanted at least one")
        return replace(parsed, rows=rows), whole, kind

    def _read(self, manifest: Manifest) -> tuple[Parsed, Unread, Kind]:
        """The rows of the file, or of the first split that there is."""
        path = self.annotations
        if not path.exists():
            raise BadInput(f"annotations {path} do not exist; wanted a file of rows, or a folder with one a split")
        kind = self.kind or _kind_of(path)
        splits: tuple[Split, ...] = ("train", "val", "test")
        if self.split is not None:
            splits = (self.split,)
        elif not path.is_dir():
            splits = ("val" if _is_val(path) else "train",)
        missed: list[str] = []
        for split in splits:
            unread = Unread()
            try:
                return read_rows(DataSpec(kind=kind, path=path, split=split), manifest, unread), unread, kind
            except NoSuchFile as error:
                missed += error.names
        tried = f" ({', '.join(splits)} were tried)" if len(splits) > 1 else ""
        guess = "" if self.kind else ", which is a guess from the names of its files"
        raise BadInput(
            f"annotations {path} have none of {', '.join(dict.fromkeys(missed))}{tried}, as --kind {kind} has them"
            f"{guess}; wanted another folder, its file itself, or --kind: {', '.join(get_args(Kind))}"
        )


def told(found: RowCheck) -> list[str]:
    """What was found, in lines: how many rows are what, and the first rows of each kind of trouble."""
    lines = [f"{found.rows:>9}  rows", f"{found.counts[USABLE]:>9}  {USABLE}"]
    for state in _ODD:
        if count := found.counts[state]:
            lines.append(f"{count:>9}  {state}")
            shown = [str(one) for one in found.findings(state, most=_SHOWN)]
            lines += [f"{'':11}{line}" for line in shown]
            if count > _SHOWN:
                lines.append(f"{'':11}and {count - _SHOWN} more; --report FILE has all")
    return lines


def _report(found: RowCheck) -> bytes:
    """A JSON line for each row that is not used as it is; an end that is the video's is null."""
    lines = []
    for one in (one for state in _ODD for one in found.findings(state)):
        said = {one.place: one.number, "state": one.state}
        if one.state != UNREAD:
            said |= {"video": one.video, "start_s": one.start_s, "end_s": one.end_s}
        lines.append(_JSON.encode({**said, "why": one.why}) + b"\n")
    return b"".join(lines)


def _write(path: Path, data: bytes, *, option: str) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise BadInput(f"{option} {path} cannot be written ({error.strerror})") from None


def _kind_of(path: Path) -> Kind:
    names = [one.name for one in path.iterdir()] if path.is_dir() else [path.name]
    if any(name.startswith("EPIC_100_") for name in names):
        return "ek100_cls"
    if path.is_dir():
        names = [
            name for name in names if not name.endswith(".json") or name == EGOMCQ_NAME
        ]  # any tool's files are JSON
    kinds = [_SUFFIXES[Path(name).suffix] for name in sorted(names) if Path(name).suffix in _SUFFIXES]
    return kinds[0] if kinds else "kinetics"


def _is_val(path: Path) -> bool:
    return any(word in path.stem for word in ("val", "test"))
