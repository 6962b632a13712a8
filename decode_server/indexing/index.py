"""Builds the manifest and the packet indices of a root: the verb `framefeed index`, and what `chunk` ends with.

It re-encodes nothing and leaves media files as they are; files whose size and time of change are those of the last
index are not read again, those of an index that was not finished neither. A file that cannot be used is a line in the
report, whatever is wrong with it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from decode_server.indexing.probe import ProbeOptions, probe_file
from decode_server.indexing.sidecar import NoRoom, drop_sidecars
from decode_server.media.media_use import Loss, MediaUse
from decode_server.media.timeline import DEFAULT_MAX_GAP_S
from decode_server.sources.file_names import as_text, for_people
from decode_server.sources.index_records import (
    UNFINISHED_FOLDER,
    IndexedFile,
    Probed,
    known_records,
    write_lost,
    write_records,
    write_uses,
)
from decode_server.sources.isolated import run_isolated
from decode_server.sources.outside_links import write_outside
from decode_server.sources.pace import Pace
from decode_server.sources.progress import WorkProgress
from decode_server.sources.report import FileReport, Report
from decode_server.sources.root_files import MediaFile, root_files
from decode_server.sources.unchanged import change_since
from decode_server.sources.walk import VIDEO_SUFFIXES, Tree, WalkRules, walk
from framefeed.errors import BadInput, StorageFault
from framefeed.manifest import MANIFEST_NAME, PACKETS_NAME, Manifest, Refusal, is_finished
from framefeed.new_file import NewFile, drop_leftovers
from framefeed.new_folder import new_folder
from framefeed.ranges import MAX_NAME, check_text
from framefeed.report_file import check_report
from framefeed.show_value import one_line


@dataclass(frozen=True, kw_only=True)
class Index:
    """Make a folder of video files or chunks ready to be served.

    It builds the packet index of chunk trees (ROOT/{video}.{ext}/{start}.{ext}) and of plain video files, which it
    leaves as they are.
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder of chunk folders or video files, searched recursively."""
    index: Annotated[Path | None, tyro.conf.arg(aliases=["--to"])] = None
    """Folder for the manifest and the index when ROOT is not writable; default ROOT."""
    jobs: int = len(os.sched_getaffinity(0))
    """Files read at once."""
    check: bool = False
    """Decode all of each file three times, to find damage that its codec does not report (HEVC, VP8): for files that
    may have rotted. Without it only damage that shows in decoding is refused, when a clip is asked for."""
    max_gap_s: float = DEFAULT_MAX_GAP_S
    """A longer pause, in which one frame stays on show, is cut out; in seconds."""
    all_files: bool = False
    """Look into files of every suffix, not only into those of usual video suffixes."""
    follow_links: bool = False
    """Take files that links lead to outside of ROOT too; 'framefeed serve' then needs --follow-links as well."""
    report: Path | None = None
    """File for a JSON line about each input: used whole, in part, refused or ignored, and why."""

    def run(self) -> None:
        """Index, and print what became of each file.

        Raises BadInput for what cannot be indexed at all, StorageFault where the index cannot be written, and, with the
        index written, CorruptMedia when more files are refused than used.
        """
        if self.jobs < 1:
            raise BadInput(f"--jobs is {self.jobs}, wanted at least 1")
        check_gap(self.max_gap_s)
        check_report(self.report)
        rules = WalkRules(all_files=self.all_files, follow_links=self.follow_links)
        console = Console(stderr=True)
        build = Build(jobs=self.jobs, check=self.check, rules=rules, max_gap_s=self.max_gap_s, console=console)
        manifest, report = index_root(self.root, index_folder=self.index, build=build)
        console = Console()
        report.show(console)
        if self.report:
            report.write(self.report)
        hours = sum(entry.duration_s for entry in manifest.videos.values()) / 3600
        chunks = sum(len(entry.chunk_start_s) for entry in manifest.videos.values())
        where = for_people(str(self.index or self.root))
        console.print(
            f"indexed {len(manifest.videos)} videos, {chunks} files, {hours:.2f} h in {where}", soft_wrap=True
        )
        console.print(f"data set {manifest.identity}", highlight=False)
        report.require_mostly_used()


def check_gap(max_gap_s: float) -> None:
    """Raises BadInput for a longest pause that is none."""
    if not max_gap_s > 0:
        raise BadInput(f"--max-gap-s is {max_gap_s:g}, wanted more than 0 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How to index: in so many processes (0 is this one), decoding all if `check`, what of the folder is taken, and
    where progress is told. Not `finished` is an index of what is there so far, of a root that still grows.
    """

    jobs: int = 0
    check: bool = False
    rules: WalkRules = field(default_factory=WalkRules)
    max_gap_s: float = DEFAULT_MAX_GAP_S
    console: Console | None = None
    finished: bool = True

    def options(self, folder: Path) -> ProbeOptions:
        """How a file is indexed, its sidecar going to `folder`."""
        return ProbeOptions(index_folder=folder, check=self.check, max_gap_s=self.max_gap_s)


def build_index(root: Path, *, index_folder: Path | None = None, jobs: int = 0, check: bool = False) -> Manifest:
    """Index every media file under `root` in so many processes (0 is this one), as `index_root` does. Returns the
    manifest.
    """
    return index_root(root, index_folder=index_folder, build=Build(jobs=jobs, check=check))[0]


def index_root(root: Path, *, index_folder: Path | None = None, build: Build) -> tuple[Manifest, Report]:
    """Write manifest and packet records of every media file under `root`, atomically, into `index_folder`.

    What is done so far is written about every half minute: as a manifest that says that it is not finished or, where
    there is a finished one, to a folder beside it. Blocks until all is done. Returns the manifest and what became of
    each file. Raises BadInput when the root is missing or holds no file that can be served, or the folder cannot be
    written to, StorageFault where that fills up.
    """
    if not root.is_dir():
        raise BadInput(f"root {root} is not a folder; wanted a folder of chunk folders or video files")
    folder = index_folder or root
    with _writable(folder, root):
        return _indexed(root, folder, build)


def _indexed(root: Path, folder: Path, build: Build) -> tuple[Manifest, Report]:
    tree = walk(root, build.rules)
    if not (tree.files or tree.refused):
        wanted = f"wanted files ending in {' '.join(sorted(VIDEO_SUFFIXES))}, or --all-files"
        raise BadInput(f"root {root} holds no video file; {wanted}")
    work = _Work(root, folder, build, tree)
    try:
        work.probe_all()
        if not work.serves and not (folder / MANIFEST_NAME).exists():  # an older index is not to promise what is gone
            raise _none_served(root, work.report())
        manifest = work.write(folder, finished=build.finished)
    except OSError as error:
        raise _unwritable(folder, root, error) from None
    report = work.report()
    if not manifest.videos:
        raise _none_served(root, report)
    drop_leftovers(folder)
    return manifest, report


def _none_served(root: Path, report: Report) -> BadInput:
    first = report.files[0]
    return BadInput(
        f"root {root}: none of its {len(report.files)} files can be served; first: {first.file}: {first.use.refused}"
    )


@contextmanager
def _writable(folder: Path, root: Path) -> Iterator[None]:
    """Make the folder if it is not there; one that got nothing goes again where the block raises.

    Raises BadInput, before any file is read, where nothing can be written.
    """
    with ExitStack() as made:
        try:
            made.enter_context(new_folder(folder))
            NewFile(folder / PACKETS_NAME).close()
        except OSError as error:
            raise BadInput(str(_unwritable(folder, root, error))) from None
        yield


def _unwritable(folder: Path, root: Path, error: OSError | NoRoom) -> StorageFault:
    wanted = f"wanted --index FOLDER, one that can, as 'framefeed index {root} --index FOLDER'"
    return StorageFault(f"the index cannot be written to {folder} ({error.strerror}); {wanted}")


class _Work:
    """One run: what is known of each file so far, by its path as text."""

    def __init__(self, root: Path, folder: Path, build: Build, tree: Tree) -> None:
        self._root, self._folder, self._build = root, folder, build
        self._known, named = known_records(root, folder, check=build.check, max_gap_s=build.max_gap_s)
        self._files, unnamed = root_files(tree.files, named=named)
        self._refused = tree.refused | unnamed
        self._ignored: Counter[str] = tree.ignored
        self._outside = tree.outside

    def probe_all(self) -> None:
        """Read the files that are not known, and write what is done now and then. Raises OSError, StorageFault."""
        fresh = [file for file in self._files if as_text(file.path) not in self._known]
        probe_one = partial(_probe_one, self._root, self._build.options(self._folder))
        pace = Pace(now_s=time.monotonic())
        with WorkProgress("indexing", total=len(fresh), console=self._build.console) as progress:
            for file, outcome in self._outcomes(fresh, probe_one):
                if isinstance(outcome, tuple):
                    self._known[as_text(file.path)] = outcome
                else:
                    self._refused[file.path] = outcome
                progress.one_done()
                if pace.is_due(began_s := time.monotonic()):
                    self.write(self._folder, finished=False)
                    pace.wrote(began_s=began_s, ended_s=time.monotonic())
        self._drop_changed(fresh)

    @property
    def serves(self) -> bool:
        """Whether any file can be served."""
        return bool(self._known)

    def _drop_changed(self, fresh: Sequence[MediaFile]) -> None:
        """Refuse what was read, and was written to since."""
        for file in fresh:
            if probed := self._known.get(as_text(file.path)):
                index, path = probed[0], self._root / file.path
                since = change_since(
                    path, size_bytes=index.media_bytes, mtime_ns=index.mtime_ns, when="since it was read"
                )
                if since:
                    self._refused[file.path] = since
                    del self._known[as_text(file.path)]

    def _outcomes(
        self, files: Sequence[MediaFile], probe_one: Callable[[MediaFile], Probed | str]
    ) -> Iterator[tuple[MediaFile, Probed | str]]:
        if self._build.jobs and files:
            return run_isolated(files, probe_one, jobs=self._build.jobs)
        return ((file, probe_one(file)) for file in files)

    def write(self, folder: Path, *, finished: bool) -> Manifest:
        """Write what is known: the packet records, then the manifest that points into them. Raises OSError."""
        aside = folder / UNFINISHED_FOLDER
        if not finished and is_finished(folder):
            folder = aside
            folder.mkdir(exist_ok=True)
        refused = tuple(_refusal(path, reason) for path, reason in sorted(self._refused.items()))
        write_uses(folder, self._known, max_gap_s=self._build.max_gap_s)
        videos = self._videos()
        manifest = write_records(folder, videos, refused, finished=finished)
        write_lost(folder, videos)
        if finished:
            write_outside(folder, self._outside)
            drop_sidecars(folder, keep={index.sidecar for index, _ in self._known.values()})
            shutil.rmtree(aside, ignore_errors=True)
        return manifest

    def _videos(self) -> dict[str, list[IndexedFile]]:
        """The files of each video that are known, in time order."""
        videos: dict[str, list[IndexedFile]] = {}
        for file in self._files:
            if probed := self._known.get(as_text(file.path)):
                videos.setdefault(file.video, []).append(IndexedFile(file, *probed))
        return {video: sorted(videos[video], key=lambda row: row.file.start_s) for video in sorted(videos)}

    def report(self) -> Report:
        """What became of each video's file or folder, and of each that is refused."""
        used = [
            FileReport(
                file=for_people(rows[0].file.owner),
                video=video,
                use=_use(rows),
                decoded=all(row.index.checked for row in rows),
            )
            for video, rows in self._videos().items()
        ]
        refused = [
            FileReport(file=for_people(path), use=MediaUse(refused=why)) for path, why in sorted(self._refused.items())
        ]
        return Report(files=(*used, *refused), ignored=self._ignored)


def _probe_one(root: Path, options: ProbeOptions, file: MediaFile) -> Probed | str:
    """The file's index and what of it is used, or the reason why nothing is. Raises StorageFault where the index folder
    has no room.
    """
    name, path = as_text(file.path), root / file.path
    try:
        check_text("its name", name)
        probed = probe_file(path, name=name, chunk=file.chunk, options=options)
        index = probed.index
        if index is None:
            return probed.use.refused
    except NoRoom as error:
        raise _unwritable(options.index_folder, root, error) from None
    except Exception as error:  # whatever is wrong with one file, the others are indexed
        return f"cannot be indexed ({type(error).__name__}: {error})"
    return change_since(path, size_bytes=index.media_bytes, mtime_ns=index.mtime_ns) or (index, probed.use)


def _refusal(path: str, reason: str) -> Refusal:
    return Refusal(path=one_line(for_people(path), chars=MAX_NAME), reason=reason)


def _use(rows: list[IndexedFile]) -> MediaUse:
    """What of a video's files is used, in seconds of the video."""
    end_s = rows[-1].file.start_s + rows[-1].index.duration_s
    shown_s = np.concatenate([row.file.start_s + row.index.times_s for row in rows])
    return MediaUse(
        losses=tuple(_shifted(loss, row.file.start_s) for row in rows for loss in row.use.losses),
        notes=tuple(note for row in rows for note in row.use.notes),
        used_s=end_s,
        longest_frame_s=float(np.diff(shown_s, append=end_s).max()),
    )


def _shifted(loss: Loss, by_s: float) -> Loss:
    return replace(loss, start_s=loss.start_s + by_s, end_s=None if loss.end_s is None else loss.end_s + by_s)
