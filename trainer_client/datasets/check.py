"""The verb `check`: whether a root can give what annotations name, before a run finds out. It opens no video.

framefeed check /nfs/chunks my.csv                               # the kind follows from the file, or is said
framefeed check /nfs/chunks epic/ --kind ek100_cls --split val --report odd.jsonl
framefeed check /nfs/chunks my.csv --clip --fixed usable.csv     # what can be used, as a table
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import tyro

from framefeed.errors import BadInput, CorruptMedia
from framefeed.manifest import read_manifest
from framefeed.new_file import check_place, write_whole
from framefeed.quarantine import read_quarantine
from trainer_client.datasets.annotated import ABSENT, NO_SPAN, PAST_END
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.open_dataset import read_rows
from trainer_client.datasets.parsed import Parsed, Unread
from trainer_client.datasets.row_check import CLIPPED, QUARANTINED, UNREAD, USABLE, RowCheck, check_rows
from trainer_client.datasets.spec import DataSpec, Kind, Split

_JSON = msgspec.json.Encoder()
_SHOWN = 3  # rows of each kind on the terminal; the report has all
_ODD = (UNREAD, ABSENT, NO_SPAN, PAST_END, QUARANTINED, CLIPPED)
_SUFFIXES: dict[str, Kind] = {".csv": "table", ".tsv": "table", ".jsonl": "table", ".pkl": "ego4d", ".json": "egomcq"}
_EPIC = ("EPIC_100_validation.csv", "EPIC_100_train.csv", "EPIC_100_retrieval_test.csv")


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
    """CSV to write with the rows that can be used, as kind table reads them."""
    report: Path | None = None
    """File for a JSON line about each row that is not used as it is, and why."""

    def run(self) -> None:
        """Check, and print what was found.

        Raises BadInput for what is no annotations or no root, CorruptMedia if a row cannot be used.
        """
        check_place(self.report, option="--report")
        check_place(self.fixed, option="--fixed")
        parsed, found = self.checked()
        print("\n".join(told(found)))
        if self.report is not None:
            _write(self.report, _report(found), option="--report")
        if self.fixed is not None:
            _write(self.fixed, _fixed(found, parsed).encode(), option="--fixed")
        if found.unusable:
            bad = [state for state in _ODD if state != CLIPPED and found.counts[state]]
            why = ", ".join(f"{found.counts[state]} {state}" for state in bad)
            raise CorruptMedia(f"{found.unusable} of {found.rows} rows of {self.annotations} cannot be used: {why}")

    def checked(self) -> tuple[Parsed, RowCheck]:
        """The rows as they were read, and what was found of them. Raises BadInput."""
        folder = self.index or self.root
        manifest = read_manifest(folder)
        spec, unread = self._spec(), Unread()
        parsed = read_rows(spec, manifest, unread)
        rows = list(parsed.rows)
        listed = read_quarantine(*dict.fromkeys((self.root, folder)))
        found = check_rows(rows, manifest, listed, clip=self.clip)
        whole = replace(found, unread=tuple(unread.lines))
        if not whole.rows:
            raise BadInput(f"annotations {self.annotations} have no row, wanted at least one")
        return Parsed(rows=rows, labels=parsed.labels, classes=parsed.classes, has_text=parsed.has_text), whole

    def _spec(self) -> DataSpec:
        path = self.annotations
        if not path.exists():
            raise BadInput(f"annotations {path} do not exist; wanted a file of rows, or a folder with one a split")
        kind = self.kind or _kind_of(path)
        if self.split is not None or not path.is_dir():
            return DataSpec(kind=kind, path=path, split=self.split or ("val" if _is_val(path) else "train"))
        names = [one.name for one in path.rglob("*") if one.is_file()]
        split: Split = "train" if any("train" in name for name in names) else "val"
        return DataSpec(kind=kind, path=path, split=split)


def told(found: RowCheck) -> list[str]:
    """What was found, in lines: how many rows are what, and the first rows of each kind of trouble."""
    lines = [f"{found.rows:>9}  rows", f"{found.counts[USABLE]:>9}  {USABLE}"]
    for state in _ODD:
        if count := found.counts[state]:
            lines.append(f"{count:>9}  {state}")
            shown = [str(one) for one in found.findings(state, most=_SHOWN)]
            if state == UNREAD:
                shown = [f"line {line}: {why}" for line, why in found.unread[:_SHOWN]]
            lines += [f"{'':11}{line}" for line in shown]
            if count > _SHOWN:
                lines.append(f"{'':11}and {count - _SHOWN} more; --report FILE has all")
    return lines


def _report(found: RowCheck) -> bytes:
    """A JSON line for each row that is not used as it is; an end that is the video's is null."""
    lines = [_JSON.encode({"line": line, "state": UNREAD, "why": why}) for line, why in found.unread]
    lines += [_JSON.encode(one) for state in _ODD if state != UNREAD for one in found.findings(state)]
    return b"".join(line + b"\n" for line in lines)


def _fixed(found: RowCheck, parsed: Parsed) -> str:
    """The rows that can be used as a CSV of kind table: a label each where they have one, and their texts."""
    rows: list[Row] = list(parsed.rows)
    label = "label" if "label" in parsed.labels else "action" if "action" in parsed.labels else None
    at = parsed.labels.index(label) if label else 0
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "start", "end", *(["label"] if label else []), "text"])
    for row, used in found.usable_rows():
        named = [parsed.classes[label][rows[row].labels[at]]] if label else []
        texts = rows[row].texts
        written = texts[0] if len(texts) == 1 else json.dumps(texts) if texts else ""
        writer.writerow([used.video, f"{used.start_s:.6f}", f"{used.end_s:.6f}", *named, written])
    return text.getvalue()


def _write(path: Path, data: bytes, *, option: str) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise BadInput(f"{option} {path} cannot be written ({error.strerror})") from None


def _kind_of(path: Path) -> Kind:
    names = [one.name for one in path.iterdir()] if path.is_dir() else [path.name]
    if any(name.startswith("EPIC_100_") for name in names):
        return "ek100_cls"
    kinds = [_SUFFIXES[Path(name).suffix] for name in sorted(names) if Path(name).suffix in _SUFFIXES]
    return kinds[0] if kinds else "kinetics"


def _is_val(path: Path) -> bool:
    return any(word in path.stem for word in ("val", "test"))
