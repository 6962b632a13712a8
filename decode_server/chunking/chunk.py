"""The verb `chunk`: video files and folders to a root of short chunks; knows neither codecs nor processes.

ROOT/{video}.mp4/{start}.mp4, starts in whole seconds without padding (0, 15, 30…), and ROOT/{video}.mp4/chunks.json,
the record by which a later run sees that the video is finished. A video's name is its path below the folder it was
found in, without suffix. ROOT/framefeed.chunks.json reports the last run: every video, used or refused, with reasons.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from decode_server.chunking.advise import Load, advise, measure_costs, print_advice
from decode_server.chunking.chunk_report import VideoOutcome, print_report, quarantine_losses, write_report
from decode_server.chunking.chunk_workers import ChunkTask, Outcome, run_chunk_tasks
from decode_server.chunking.encoder_trial import try_encoder
from decode_server.chunking.frame_rate import parse_rate
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.transcode import CHUNK_EXTENSION, ChunkRecord, ChunkSettings, finished_record, was_chunked
from decode_server.indexing.index import build_index
from decode_server.sources.walk import VIDEO_SUFFIXES
from framefeed.errors import BadInput, CorruptMedia, Retryable

_STAGING_NAME = ".framefeed.parts"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Cut videos into short chunks that are cheap to read at random."""

    src: tyro.conf.Positional[tuple[Path, ...]]
    """Video files, or folders that are searched for video files."""
    out: Path | None = None
    """Root to write: OUT/{video}.mp4/{start}.mp4."""
    profile: str = "train"
    """How to encode: train (cheap random access), balanced, archive (small but slow to read), intra (key frames)."""
    encoder: str | None = None
    """Another encoder for the profile: libx264, libx265 or libsvtav1."""
    encoder_options: str = ""
    """Encoder options over the profile's, such as preset=fast:crf=28:ref=2, by the encoder's own names."""
    short_side_px: int = 288
    """Scale the short side down to this; never up."""
    chunk_s: int = 15
    """Length of a chunk in seconds."""
    fps: str | None = None
    """Frames a second of the chunks, such as 30 or 29.97; the source's own frames and times if not given."""
    audio: bool = False
    """Keep the sound, as AAC."""
    jobs: int | None = None
    """Videos at a time; the CPUs there are if not given."""
    advise: bool = False
    """Write nothing, but propose profile and chunk length for a training run from a sample of the videos."""
    batch_clips: int | None = None
    """With --advise: clips of a training step, of all GPUs together."""
    step_s: float | None = None
    """With --advise: seconds of a training step."""
    storage_mb_per_s: float | None = None
    """With --advise: what the storage reads, such as 80 (hard disk), 500 (SATA SSD) or 1100 (10 GbE)."""
    clip_frames: int | None = None
    """With --advise: frames of a clip; 4 if not given."""
    clip_s: float | None = None
    """With --advise: seconds that a clip is taken from; 1 if not given."""

    def run(self) -> None:
        """Chunk what is not chunked yet, print what became of it, build the root's index.

        Raises:
            BadInput: the sources or the options cannot be used.
            CorruptMedia: not one video is usable.
            StorageFault: the root cannot be written.
        """
        load = self._load()
        settings = self._settings()
        jobs = self.jobs or len(os.sched_getaffinity(0))
        if load:
            videos = find_videos(self.src, None)
            costs = measure_costs(videos, load, settings=settings, jobs=jobs, console=Console(stderr=True))
            print_advice(costs, load, advise(costs, load), Console())
            return
        if self.out is None:
            raise BadInput("chunk: --out is missing; wanted the root to write")
        outcomes = chunk_videos(self.src, self.out, settings=settings, jobs=self.jobs, console=Console(stderr=True))
        print_report(outcomes, Console())
        if not any(outcome.record for outcome in outcomes):
            first = outcomes[0]
            raise CorruptMedia(f"none of {len(outcomes)} videos is usable; {first.source} {first.reason}")
        print(f"data set {build_index(self.out, jobs=jobs).identity}")

    def _settings(self) -> ChunkSettings:
        profile = profile_named(self.profile, encoder=self.encoder, options=self.encoder_options)
        try_encoder(profile)
        return ChunkSettings(
            profile=profile,
            short_side_px=self.short_side_px,
            chunk_s=self.chunk_s,
            fps=parse_rate(self.fps) if self.fps else None,
            audio=self.audio,
        )

    def _load(self) -> Load | None:
        """What training asks for, if advice is wanted. Raises BadInput for half of either."""
        needed = {"batch_clips": self.batch_clips, "step_s": self.step_s, "storage_mb_per_s": self.storage_mb_per_s}
        given = [
            name
            for name, value in (needed | {"clip_frames": self.clip_frames, "clip_s": self.clip_s}).items()
            if value is not None
        ]
        if not self.advise:
            if given:
                raise BadInput(f"chunk: {_option(given[0])} goes with --advise only")
            return None
        missing = [name for name in needed if name not in given]
        if missing:
            raise BadInput(f"chunk: --advise needs {' and '.join(_option(name) for name in missing)} too")
        if self.out is not None or (self.profile, self.encoder, self.encoder_options) != ("train", None, ""):
            raise BadInput("chunk: --advise writes nothing and tries every profile; leave --out and the encoding away")
        assert self.batch_clips is not None
        assert self.step_s is not None
        assert self.storage_mb_per_s is not None
        return Load(
            batch_clips=self.batch_clips,
            step_s=self.step_s,
            storage_bytes_per_s=self.storage_mb_per_s * 1e6,
            clip_frames=4 if self.clip_frames is None else self.clip_frames,
            clip_s=1.0 if self.clip_s is None else self.clip_s,
        )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def chunk_videos(
    sources: Sequence[Path],
    root: Path,
    *,
    settings: ChunkSettings,
    jobs: int | None = None,
    console: Console | None = None,
) -> list[VideoOutcome]:
    """Chunk `sources` (files or folders) into `root`, skipping what is finished; a damaged video is an outcome.

    Blocks until all are done, minutes to days, with a progress bar on `console` if one is given. A run that was
    killed continues with the videos that it had not finished. The scripts that call it need a `__main__` guard, since
    workers are spawned.

    Raises:
        BadInput: no video in `sources`, two of one name, a folder in `root` that this did not make, or a second run.
        StorageFault: `root` cannot be written.
    """
    if jobs is not None and jobs < 1:
        raise BadInput(f"jobs is {jobs}, wanted at least 1")
    found = find_videos(sources, root)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"root {root} cannot be made: {error.strerror}") from None
    outcomes: dict[str, VideoOutcome] = {}
    with _sole_writer(root) as staging:
        tasks = []
        for number, (video, source) in enumerate(found.items()):
            folder = root / f"{video}.{CHUNK_EXTENSION}"
            if record := finished_record(source, folder, settings):
                outcomes[video] = VideoOutcome(video=video, source=source, record=record, kept=True)
                continue
            _check_replaceable(folder)
            tasks.append(
                ChunkTask(video=video, source=source, folder=folder, staging=staging / str(number), settings=settings)
            )
        for task, outcome in _with_progress(tasks, jobs or len(os.sched_getaffinity(0)), console):
            outcomes[task.video] = _outcome(task, outcome)
        ordered = [outcomes[video] for video in found]
        write_report(root, ordered)
        quarantine_losses(root, ordered)
    return ordered


def find_videos(sources: Sequence[Path], root: Path | None) -> dict[str, Path]:
    """Video name to file, in name order, of files and of folders searched recursively; `root`, if any, is left out.

    Raises:
        BadInput: a source that is missing or holds no video, or two files that would share a name or a folder.
    """
    if not sources:
        raise BadInput("no source given; wanted video files or folders")
    videos: dict[str, Path] = {}
    for source in sources:
        if not source.exists():
            raise BadInput(f"source {source} does not exist")
        below = source if source.is_dir() else source.parent
        files = _video_files(source, root) if source.is_dir() else [source]
        if not files:
            raise BadInput(f"source {source} holds no video file (looked for {' '.join(sorted(VIDEO_SUFFIXES))})")
        for file in files:
            name = file.relative_to(below).with_suffix("").as_posix()
            other = videos.setdefault(name, file)
            if other.resolve() != file.resolve():
                raise BadInput(f"{other} and {file} would both be video {name!r}; rename one or chunk them apart")
    for name, file in videos.items():
        for parent in Path(name).parents:
            owner = videos.get(parent.with_suffix("").as_posix()) if parent.suffix == f".{CHUNK_EXTENSION}" else None
            if owner:
                raise BadInput(f"{file} would lie in the chunk folder of {owner}; chunk them apart")
    return dict(sorted(videos.items()))


def _video_files(folder: Path, root: Path | None) -> list[Path]:
    if root and folder.resolve() == root.resolve():
        raise BadInput(f"source and root are the same folder {folder}; wanted another --out")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    return sorted(
        path
        for path in files
        if path.is_file()
        and not (root and path.resolve().is_relative_to(root.resolve()))
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


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
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not was_chunked(folder):
        raise BadInput(f"{folder} exists and was not made by 'framefeed chunk'; move it away or choose another --out")


def _with_progress(tasks: list[ChunkTask], jobs: int, console: Console | None) -> Iterator[tuple[ChunkTask, Outcome]]:
    columns = (TextColumn("chunking {task.fields[done]}/{task.fields[videos]} videos"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=console is None, transient=True
    ) as progress:
        total_bytes = sum(task.source.stat().st_size for task in tasks)
        bar = progress.add_task("", total=total_bytes, done=0, videos=len(tasks))
        work = run_chunk_tasks(tasks, jobs=jobs, on_bytes=lambda done: progress.update(bar, completed=done))
        for done, (task, outcome) in enumerate(work, start=1):
            progress.update(bar, done=done)
            yield task, outcome


def _outcome(task: ChunkTask, outcome: Outcome) -> VideoOutcome:
    if isinstance(outcome, ChunkRecord):
        return VideoOutcome(video=task.video, source=task.source, record=outcome)
    retry = isinstance(outcome, Retryable)
    return VideoOutcome(video=task.video, source=task.source, reason=str(outcome), retry=retry)
