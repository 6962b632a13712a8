"""One chunking run over a root: what is finished stays, what is not is made, and nobody else writes meanwhile.

The root's index is written as the work goes on, so that a run that is killed leaves what it has made ready to use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from decode_server.chunking.chunk_report import REPORT_NAME, VideoOutcome, quarantine_losses, report_of, write_report
from decode_server.chunking.chunk_workers import ChunkTask, NoRoom, Outcome, run_chunk_tasks
from decode_server.chunking.find_sources import Sources, chunk_folder, find_videos
from decode_server.chunking.transcode import ChunkRecord, ChunkSettings, finished_record, read_record, was_chunked
from decode_server.indexing.index import Build, index_root
from decode_server.sources.pace import Pace
from decode_server.sources.progress import WorkProgress
from decode_server.sources.unchanged import change_since
from framefeed.errors import BadInput, Retryable, StorageFault
from framefeed.new_folder import new_folder
from framefeed.show_value import show_bytes

_STAGING_NAME = ".framefeed.parts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How to run: so many videos at a time (None is a CPU each), making videos again that were made with other options
    or from another file if `overwrite`, telling progress on `console`.
    """

    jobs: int | None = None
    overwrite: bool = False
    console: Console | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise BadInput(f"--jobs is {self.jobs}, wanted at least 1")

    @property
    def processes(self) -> int:
        """Videos at a time."""
        return self.jobs or len(os.sched_getaffinity(0))


def chunk_videos(
    sources: Sequence[Path],
    root: Path,
    *,
    settings: ChunkSettings,
    jobs: int | None = None,
    console: Console | None = None,
    overwrite: bool = False,
) -> list[VideoOutcome]:
    """Chunk `sources` (files or folders) into `root`, skipping what is finished; a damaged video is an outcome.

    Blocks until all are done, minutes to days, telling progress on `console` if one is given. A run that was
    killed continues with the videos that it had not finished. The scripts that call it need a `__main__` guard, since
    workers are spawned.

    Raises:
        BadInput: no video in `sources`, a folder in `root` that this did not make, or made with other options and not
            `overwrite`, or a second run.
        StorageFault: `root` cannot be written.
    """
    running = Running(jobs=jobs, console=console, overwrite=overwrite)
    return chunk_found(find_videos(sources, root), root, settings=settings, running=running)


def chunk_found(sources: Sources, root: Path, *, settings: ChunkSettings, running: Running) -> list[VideoOutcome]:
    """The same for sources that were found already, in name order."""
    with made_root(root), _sole_writer(root) as staging:
        kept = finished_videos(sources, root, settings)
        outcomes = {
            video: VideoOutcome(video=video, source=sources.videos[video], record=record, kept=True)
            for video, record in kept.items()
        }
        left = {video: source for video, source in sources.videos.items() if video not in kept}
        require_replaceable(left, root, settings, overwrite=running.overwrite)
        tasks = [
            ChunkTask(
                video=video,
                source=source,
                folder=chunk_folder(root, video),
                staging=staging / str(number),
                settings=settings,
                source_bytes=size_of(source),
            )
            for number, (video, source) in enumerate(left.items())
        ]
        _chunk_all(tasks, root, running, outcomes)
        outcomes |= {task.video: _if_unchanged(task, outcomes[task.video]) for task in tasks}
        ordered = [outcomes[video] for video in sources.videos]
        if any(outcome.record for outcome in ordered) or (root / REPORT_NAME).exists():
            write_report(root, report_of(ordered, sources))
        quarantine_losses(root, ordered)
    return ordered


@contextmanager
def made_root(root: Path) -> Iterator[None]:
    """Make the root; where the block raises, it goes again if nothing is in it. Raises BadInput if it cannot be."""
    with ExitStack() as stack:
        try:
            stack.enter_context(new_folder(root))
        except OSError as error:
            raise BadInput(f"--out {root} cannot be made a folder: {error.strerror}") from None
        yield


def _chunk_all(tasks: list[ChunkTask], root: Path, running: Running, outcomes: dict[str, VideoOutcome]) -> None:
    """Put what becomes of each task into `outcomes`. Raises StorageFault, NoRoom with how much is wanted."""
    try:
        for task, outcome in _with_progress(tasks, root, running):
            outcomes[task.video] = _outcome(task, outcome)
    except NoRoom as fault:
        undone = [task for task in tasks if task.video not in outcomes]
        records = [outcomes[task.video].record for task in tasks if task.video in outcomes]
        raise NoRoom(f"{fault}; {_room(root, undone, [record for record in records if record])}") from None


def finished_videos(sources: Sources, root: Path, settings: ChunkSettings) -> dict[str, ChunkRecord]:
    """The records of the videos that an earlier run finished, of the sources as they are now, with these settings."""
    found = {}
    for video, source in sources.videos.items():
        with contextlib.suppress(OSError):  # a source that is gone or cannot be looked at is its worker's to report
            if record := finished_record(source, chunk_folder(root, video), settings):
                found[video] = record
    return found


def require_replaceable(videos: dict[str, Path], root: Path, settings: ChunkSettings, *, overwrite: bool) -> None:
    """Raises BadInput, before any work, if chunks would be replaced that this program did not make or, unless
    `overwrite`, that it made with other options or from another file.
    """
    others = []
    for video, source in videos.items():
        folder = chunk_folder(root, video)
        if folder.exists() and not was_chunked(folder):
            raise BadInput(
                f"{folder} exists and was not made by 'framefeed chunk'; move it away or choose another --out"
            )
        record = None if overwrite else read_record(folder)
        if record is not None and (why := _other(record, source, settings)):
            others.append(f"{folder} was made {why}")
    if others:
        raise BadInput(
            f"{others[0]}; wanted the same, another --out, or --overwrite to make {len(others)} videos again"
        )


def _other(record: ChunkRecord, source: Path, settings: ChunkSettings) -> str:
    """What else chunks were made from or with, empty if it is the same file, changed or not, and the same options."""
    wanted = settings.as_json()
    changed = [name for name in wanted if record.settings.get(name) != wanted[name]]
    if changed:
        return "with other options: " + ", ".join(
            f"{name} {_brief(record.settings.get(name))}, now {_brief(wanted[name])}" for name in changed
        )
    if os.path.abspath(record.source) != os.path.abspath(source) and record.source_bytes != size_of(source):
        return f"from {record.source}, not from {source}"
    return ""


def _brief(value: object) -> str:
    return f"{value['name']} {value.get('options', '')}".strip() if isinstance(value, dict) else str(value)


def _room(root: Path, undone: Sequence[ChunkTask], made: Sequence[ChunkRecord]) -> str:
    """What is free at the root, and what the videos that are left want: as much as those that were made took for each
    byte of their source, or as their files have where none was made yet.
    """
    source_bytes = sum(task.source_bytes for task in undone)
    read_bytes = sum(record.source_bytes for record in made)
    rate = sum(record.media_bytes for record in made) / read_bytes if read_bytes else 1.0
    free = show_bytes(shutil.disk_usage(root).free)
    return f"{free} are free at {root}, wanted some {show_bytes(rate * source_bytes)} for the {len(undone)} left"


def size_of(path: Path) -> int:
    """How large a file is, 0 where that cannot be told."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _with_progress(tasks: list[ChunkTask], root: Path, running: Running) -> Iterator[tuple[ChunkTask, Outcome]]:
    total_bytes = sum(task.source_bytes for task in tasks)
    pace = Pace(now_s=time.monotonic())
    with WorkProgress("chunking", total=len(tasks), total_bytes=total_bytes, console=running.console) as progress:
        for task, outcome in run_chunk_tasks(tasks, jobs=running.processes, on_bytes=progress.read):
            progress.one_done()
            yield task, outcome
            if pace.is_due(began_s := time.monotonic()):
                with contextlib.suppress(BadInput):  # nothing can be served yet
                    index_root(root, build=Build(finished=False))
                pace.wrote(began_s=began_s, ended_s=time.monotonic())


def _outcome(task: ChunkTask, outcome: Outcome) -> VideoOutcome:
    if isinstance(outcome, ChunkRecord):
        return VideoOutcome(video=task.video, source=task.source, record=outcome)
    retry = isinstance(outcome, Retryable)
    return VideoOutcome(video=task.video, source=task.source, reason=str(outcome), retry=retry)


def _if_unchanged(task: ChunkTask, outcome: VideoOutcome) -> VideoOutcome:
    """The outcome, unless the source was written to since it was read; then its chunks go."""
    if outcome.record is None:
        return outcome
    size_bytes, mtime_ns = outcome.record.source_bytes, outcome.record.source_mtime_ns
    since = change_since(task.source, size_bytes=size_bytes, mtime_ns=mtime_ns, when="since it was read")
    if not since:
        return outcome
    shutil.rmtree(task.folder, ignore_errors=True)
    return VideoOutcome(video=task.video, source=task.source, reason=since, retry=True)


def _lock(path: Path) -> int:
    """The descriptor of an empty file; a link in its place is refused. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


@contextmanager
def _sole_writer(root: Path) -> Iterator[Path]:
    """The staging folder, held by this process alone; what a killed run left in it is removed first and last."""
    staging = root / _STAGING_NAME
    if staging.is_symlink():  # what lies where it leads is not this program's to remove
        raise BadInput(f"root {root}: {_STAGING_NAME} is a link, wanted a folder or none; remove it")
    try:
        staging.mkdir(exist_ok=True)
        lock = os.fdopen(_lock(staging / "lock"), "w")
    except OSError as error:
        raise BadInput(f"root {root} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        except BlockingIOError:
            raise BadInput(f"another run is writing to {root}; wait for it or choose another --out") from None
        for left in staging.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        try:
            yield staging
        except OSError as error:
            raise StorageFault(f"root {root} cannot be written: {error.strerror or error}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
