"""The verb `verify`: every file of a root against its packet index, and the quarantine list of what is damaged.

Fast: the index record is whole and the bytes of every packet are those that were indexed. Deep: besides, every frame
decodes clean. The unit of damage is the stretch between key frames that depends on what is damaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from decode_server.clips.decoder import Decoder
from decode_server.clips.library import Library
from decode_server.clips.packet_bytes import PacketBytes
from decode_server.clips.plan import Run
from decode_server.media.media_use import Loss, MediaUse
from decode_server.media.packet_index import HIDDEN, PacketIndex
from decode_server.sources.file_names import as_path
from decode_server.sources.isolated import GivenUp, run_isolated
from decode_server.sources.progress import WorkProgress
from decode_server.sources.report import FileReport, Report
from framefeed.errors import BadInput, CorruptMedia, NotHere, StorageFault, UnsupportedMedia
from framefeed.manifest import VideoEntry, identity_of, read_manifest
from framefeed.quarantine import QUARANTINE_NAME, QuarantinedSpan, read_quarantine
from framefeed.report_file import check_report

_LEAST_LEFT_S = 0.05  # what is left of a video that is shorter is none
_TOUCHED = "changed on disk since it was indexed, with the same packets"


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check files against their index; quarantine what is damaged."""

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, made by 'framefeed chunk' or indexed by 'framefeed index'."""
    index: Path | None = None
    """Folder of the manifest and packet indices, if they do not lie in the root; the quarantine list goes there."""
    deep: bool = False
    """Decode every frame as well; without it only the bytes are compared."""
    jobs: int = len(os.sched_getaffinity(0))
    """Files checked at once."""
    report: Path | None = None
    """File for a JSON line about each video: used whole, in part or refused, and why."""

    def run(self) -> None:
        """Check, write the quarantine list and print a summary.

        Raises CorruptMedia when anything is quarantined by this run, StorageFault when files could not be read, and
        BadInput when the root has no usable manifest, or one whose identity is not that of what it lists.
        """
        if self.jobs < 1:
            raise BadInput(f"--jobs is {self.jobs}, wanted at least 1")
        check_report(self.report)
        console = Console(stderr=True)
        checks = verify_root(self.root, index_folder=self.index, deep=self.deep, jobs=self.jobs, console=console)
        report = report_of(checks, read_manifest(self.index or self.root).videos)
        report.show(Console())
        if self.report:
            report.write(self.report)
        _print_totals(checks, Console(), deep=self.deep)
        print(f"data set {_checked_identity(self.index or self.root) or 'unknown: index the root again'}")
        spans = [span for check in checks for span in check.spans]
        unread = [check.unread for check in checks if check.unread]
        if spans:
            videos = len({span.video for span in spans})
            where = (self.index or self.root) / QUARANTINE_NAME
            raise CorruptMedia(f"{len(spans)} stretches of {videos} videos are quarantined, listed in {where}")
        if unread:
            raise StorageFault(f"{len(unread)} of {len(checks)} files could not be read; first: {unread[0]}")


def _checked_identity(folder: Path) -> str:
    """The data set's identity, "" in a manifest of version 1. Raises BadInput if it is that of another one.

    The manifest lists a digest of every packet index, against which each is checked when it is read.
    """
    manifest = read_manifest(folder)
    listed = identity_of(manifest.videos)
    if manifest.identity not in ("", listed):
        raise BadInput(
            f"manifest in {folder} says data set {manifest.identity}, what it lists is {listed}; "
            "run 'framefeed index' again"
        )
    return manifest.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckTask:
    """One file to check: a chunk of a video, by its number in the manifest's entry."""

    root: Path
    index_folder: Path
    entry: VideoEntry
    chunk: int
    deep: bool

    def span(self, reason: str, start_s: float | None = None, end_s: float | None = None) -> QuarantinedSpan:
        """A stretch of the video to quarantine, by default the whole file's."""
        starts_s = self.entry.chunk_start_s
        last = self.chunk + 1 == len(starts_s)
        file_end_s = max(self.entry.duration_s, starts_s[-1] + 1e-3) if last else starts_s[self.chunk + 1]
        return QuarantinedSpan(
            video=self.entry.video,
            start_s=round(starts_s[self.chunk] if start_s is None else start_s, 6),
            end_s=round(file_end_s if end_s is None else end_s, 6),
            reason=reason,
            found_by="verify",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """What a check found: damaged spans, a reason why the file could not be read now, a note; and what it looked at."""

    video: str
    checked_bytes: int = 0
    checked_frames: int = 0
    spans: tuple[QuarantinedSpan, ...] = ()
    unread: str = ""
    note: str = ""


def verify_root(
    root: Path, *, index_folder: Path | None = None, deep: bool = False, jobs: int = 1, console: Console | None = None
) -> list[FileCheck]:
    """Check every file of the manifest, in processes of their own, and write the quarantine list.

    Blocks until all are checked, with a progress bar if `console` is a terminal. Lines that `framefeed chunk` wrote
    stay, and so do those of videos of which a file could not be read. Raises BadInput as read_manifest does.
    """
    folder = index_folder or root
    tasks = [
        CheckTask(root=root, index_folder=folder, entry=entry, chunk=chunk, deep=deep)
        for entry in read_manifest(folder).videos.values()
        for chunk in range(len(entry.chunk_start_s))
    ]
    checks = []
    with WorkProgress("verifying", total=len(tasks), console=console) as progress:
        for check in check_all(tasks, jobs=max(jobs, 1)):
            checks.append(check)
            progress.one_done()
    checks.sort(key=lambda check: check.video)
    unread = {check.video for check in checks if check.unread}
    known = read_quarantine(folder)
    fresh = {span.video for span in known.spans} - unread | {task.entry.video for task in tasks} - unread
    spans = [span for check in checks for span in check.spans if span.video not in unread]
    stuck = [span for check in checks for span in check.spans if span.video in unread and span not in known.spans]
    try:
        known.replaced([*spans, *stuck], found_by="verify", videos=fresh).write(folder)
    except OSError as error:
        wanted = "wanted --index FOLDER, one that can be"
        raise StorageFault(f"{folder / QUARANTINE_NAME} cannot be written ({error.strerror}); {wanted}") from None
    return checks


def check_all(
    tasks: list[CheckTask], *, jobs: int, check: Callable[[CheckTask], FileCheck] | None = None
) -> Iterator[FileCheck]:
    """Check files, `jobs` at a time, in any order. A file whose decoder crashes or hangs, twice, is damaged."""
    for task, found in run_isolated(tasks, check or check_file, jobs=jobs):
        if isinstance(found, GivenUp):
            yield FileCheck(video=task.entry.video, spans=(task.span(found),))
        else:
            yield found


def check_file(task: CheckTask) -> FileCheck:
    """Check one file. What is damaged is in the result; nothing is raised for it."""
    av.logging.set_level(None)  # what FFmpeg has to say arrives as exceptions and reasons
    with closing(
        Library(task.root, index_folder=task.index_folder, honour_quarantine=False, follow_links=True)
    ) as library:
        try:
            index = library.index(task.entry, task.chunk)
            return _check_packets(task, library, index)
        except CorruptMedia as error:
            return FileCheck(video=task.entry.video, spans=(task.span(str(error)),))
        except (StorageFault, NotHere) as error:
            return FileCheck(video=task.entry.video, unread=str(error))


def _check_packets(task: CheckTask, library: Library, index: PacketIndex) -> FileCheck:
    check = FileCheck(video=task.entry.video, note=_touched(task, index))
    spans: list[QuarantinedSpan] = []
    decoder = Decoder()
    runs = gop_runs(index)
    for number, run in enumerate(runs):
        try:
            _check_run(library, index, run, decoder if task.deep else None)
        except (CorruptMedia, UnsupportedMedia) as error:
            following = runs[number + 1] if number + 1 < len(runs) else None
            spans.append(_span(task, index, run if number else None, following, str(error)))
    return replace(
        check,
        checked_bytes=int(index.size.sum()),
        checked_frames=len(index.shown) if task.deep else 0,
        spans=tuple(_joined(spans)),
        note="" if spans else check.note,
    )


def gop_runs(index: PacketIndex) -> list[Run]:
    """All packets from the first key packet on, cut before each key packet that no picture leads.

    Pictures that show before a key packet but follow it in decode order (open GOPs) may depend on the GOP before.
    """
    cuts = [int(index.keys[0])]
    for key, end in pairwise([*index.keys[1:].tolist(), len(index.pts)]):
        if not (index.pts[key:end] < index.pts[key]).any():
            cuts.append(key)
    runs = []
    for start, end in zip(cuts, [*cuts[1:], len(index.pts)], strict=True):
        feed = np.arange(start, end)
        hidden = (index.flags[feed] & HIDDEN) != 0
        feed = feed[~(hidden & (index.pts[feed] < index.pts[start]))]  # leads the first key packet: never decodes
        runs.append(Run(feed=feed, keep={int(packet): (0,) for packet in feed if not index.flags[packet] & HIDDEN}))
    return runs


def _check_run(library: Library, index: PacketIndex, run: Run, decoder: Decoder | None) -> None:
    """Raise CorruptMedia if the packets of a run are not those indexed or, with a decoder, do not decode clean."""
    offsets, ends = index.offset[run.feed], index.offset[run.feed] + index.size[run.feed]
    first, last = int(offsets.min()), int(ends.max())
    packets = PacketBytes(library, index, ((first, last),))
    if decoder is None:
        for ordinal in run.feed.tolist():
            packets.packet(ordinal)
        return
    shown = 0
    for _, frame in decoder.frames(index, run, packets.packet):
        if (frame.width, frame.height, frame.format.name) != (index.width_px, index.height_px, index.pixel_format):
            raise CorruptMedia(f"{index.path} changes to {frame.width}x{frame.height} {frame.format.name} on the way")
        shown += 1
    if shown != len(run.keep):
        raise CorruptMedia(f"{index.path} gives {shown} of {len(run.keep)} frames of a GOP")


def _span(task: CheckTask, index: PacketIndex, run: Run | None, following: Run | None, reason: str) -> QuarantinedSpan:
    """From the first frame of a run (the file's begin for the first) to the key frame of the next."""
    start_s = end_s = None
    if run is not None and run.keep:
        start_s = _time_s(task, index, int(index.pts[list(run.keep)].min()))
    if following is not None:
        end_s = _time_s(task, index, int(index.pts[following.feed[0]]))
    return task.span(reason, start_s, end_s)


def _time_s(task: CheckTask, index: PacketIndex, pts: int) -> float:
    numerator, denominator = index.time_base_s
    return task.entry.chunk_start_s[task.chunk] + max(pts - index.origin_pts, 0) * numerator / denominator


def _joined(spans: list[QuarantinedSpan]) -> Iterator[QuarantinedSpan]:
    """Spans of one file with those that follow each other made one, under the first one's reason."""
    while spans:
        first, *spans = spans
        while spans and spans[0].start_s <= first.end_s:
            first = replace(first, end_s=max(first.end_s, spans[0].end_s))
            spans = spans[1:]
        yield first


def _touched(task: CheckTask, index: PacketIndex) -> str:
    """A note if the file is not of the size and time that were indexed. Raises CorruptMedia if it is gone."""
    try:
        status = (task.root / as_path(index.path)).stat()
    except FileNotFoundError:
        raise CorruptMedia(f"{index.path} is gone") from None
    except OSError as error:
        raise StorageFault(f"{index.path}: cannot be read ({error.strerror})") from None
    same = (status.st_size, status.st_mtime_ns) == (index.media_bytes, index.mtime_ns)
    return "" if same else f"{index.path} {_TOUCHED}"


def report_of(checks: list[FileCheck], videos: Mapping[str, VideoEntry]) -> Report:
    """What of each video can be used, in the words of all verbs."""
    found: dict[str, list[FileCheck]] = {}
    for check in checks:
        found.setdefault(check.video, []).append(check)
    rows = []
    for video, of_video in found.items():
        unread = next((check.unread for check in of_video if check.unread), "")
        spans = [span for check in of_video for span in check.spans]
        lost_s = sum(span.end_s - span.start_s for span in spans)
        all_lost = bool(spans) and lost_s >= videos[video].duration_s - _LEAST_LEFT_S
        use = MediaUse(
            losses=() if all_lost else tuple(Loss(start_s=s.start_s, end_s=s.end_s, reason=s.reason) for s in spans),
            notes=tuple(f"{check.note}; 'framefeed index' notes it" for check in of_video if check.note),
            refused=unread or (spans[0].reason if all_lost else ""),
            used_s=videos[video].duration_s,
        )
        rows.append(FileReport(file=video, video=video, use=use, again=bool(unread)))
    return Report(files=tuple(rows), ignored={})


def _print_totals(checks: list[FileCheck], console: Console, *, deep: bool) -> None:
    spans = [span for check in checks for span in check.spans]
    table = Table("files", "MB", "frames decoded", "quarantined", "seconds", "unread", "touched", box=None)
    table.add_row(
        str(len(checks)),
        f"{sum(check.checked_bytes for check in checks) / 1e6:.1f}",
        str(sum(check.checked_frames for check in checks)) if deep else "-",
        str(len(spans)),
        f"{sum(span.end_s - span.start_s for span in spans):.1f}",
        str(sum(bool(check.unread) for check in checks)),
        str(sum(bool(check.note) for check in checks)),
    )
    console.print(table)
