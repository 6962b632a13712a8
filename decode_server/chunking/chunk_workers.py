"""Several videos at once, one process each; knows how workers start, stop and die, and nothing of pixels.

A worker ends with its parent, whatever ends the parent. A worker that dies (a decoder crash, no memory) takes its
video with it and no other: the videos in flight are tried again alone, and the one that dies again is refused.
"""

from __future__ import annotations

import ctypes
import errno
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from decode_server.chunking.transcode import ChunkRecord, ChunkSettings, chunk_video
from decode_server.sources.unchanged import change_since
from framefeed.cli.interrupts import held
from framefeed.cli.uninterrupted import begin_uninterrupted
from framefeed.errors import CorruptMedia, FramefeedError, StorageFault, UnsupportedMedia

_POLL_S = 0.2
_CONTEXT = multiprocessing.get_context("spawn")  # a fork would copy the parent's threads' locks

# What FFmpeg says when a chunk cannot be written, whatever its pictures are.
_OF_STORAGE = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTask:
    """One video to make: its source and how large that is, its folder, and a staging path of its own beside that."""

    video: str
    source: Path
    folder: Path
    staging: Path
    settings: ChunkSettings
    source_bytes: int = 0


Outcome = ChunkRecord | FramefeedError


class NoRoom(StorageFault):
    """The root has no room for a chunk."""


class _Stopped(Exception):
    """The parent asked the worker to leave its video."""


def run_chunk_tasks(
    tasks: list[ChunkTask], *, jobs: int, on_bytes: Callable[[int], None]
) -> Iterator[tuple[ChunkTask, Outcome]]:
    """Do all tasks, `jobs` at a time, and give each with its record, or with the error that refused it, as it ends.

    `on_bytes` is called about five times a second with the source bytes read so far. Closing the iterator early stops
    the workers within a packet and leaves no half-made video.

    Raises:
        StorageFault: the chunks cannot be written; further videos would fail alike.
    """
    waiting = deque(tasks)
    suspects: deque[ChunkTask] = deque()
    read_bytes = 0
    while waiting or suspects:
        alone = bool(suspects)
        queue = deque([suspects.popleft()]) if alone else waiting
        with _Crew(1 if alone else jobs) as crew:
            while (queue and not crew.broken) or crew.running:
                while queue and not crew.broken and crew.free_slots:
                    crew.start(queue.popleft())
                for task, outcome in crew.finished():
                    died = isinstance(outcome, _WorkerDied)
                    if died and not alone:
                        suspects.append(task)
                        continue
                    read_bytes += task.source_bytes
                    yield task, CorruptMedia("its decoder crashed, twice") if died else outcome
                on_bytes(read_bytes + crew.bytes_in_flight())


class _WorkerDied(FramefeedError):
    """The process that held the task ended without an answer."""


class _Crew:
    """A pool of workers with one task each; a slot of shared memory a worker tells how far it has read."""

    def __init__(self, workers: int) -> None:
        self._progress: Any = _CONTEXT.RawArray(ctypes.c_int64, workers)
        self._stop: Any = _CONTEXT.RawValue(ctypes.c_bool, False)
        self._pool = ProcessPoolExecutor(
            workers, mp_context=_CONTEXT, initializer=_start_worker, initargs=(os.getpid(), self._progress, self._stop)
        )
        self.free_slots = list(range(workers))
        self.running: dict[Future[Outcome], tuple[ChunkTask, int]] = {}
        self.broken = False

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.value = True
        self._pool.shutdown(wait=True, cancel_futures=True)

    def start(self, task: ChunkTask) -> None:
        """Give `task` to a free worker."""
        slot = self.free_slots.pop()
        self._progress[slot] = 0
        try:
            with held():
                self.running[self._pool.submit(_work, task, slot)] = (task, slot)
        except BrokenProcessPool:
            future: Future[Outcome] = Future()
            future.set_result(_WorkerDied())
            self.running[future] = (task, slot)

    def finished(self) -> Iterator[tuple[ChunkTask, Outcome]]:
        """Tasks that ended since the last call; waits a moment for the first."""
        done, _ = wait(self.running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            task, slot = self.running.pop(future)
            self.free_slots.append(slot)
            self._progress[slot] = 0
            try:
                outcome = future.result()
            except BrokenProcessPool:
                outcome = _WorkerDied()
            self.broken = self.broken or isinstance(outcome, _WorkerDied)
            yield task, outcome

    def bytes_in_flight(self) -> int:
        """Source bytes that the running tasks have read."""
        return sum(self._progress)


_worker_progress: Any = None
_worker_stop: Any = None


def _start_worker(parent: int, progress: Any, stop: Any) -> None:
    global _worker_progress, _worker_stop  # shared memory reaches a spawned worker only this way
    _worker_progress, _worker_stop = progress, stop
    begin_uninterrupted(parent)  # the parent hears Ctrl-C and stops the crew
    av.logging.set_level(None)  # what FFmpeg has to say arrives as exceptions and reasons


def _work(task: ChunkTask, slot: int) -> Outcome:
    def on_bytes(packet_bytes: int) -> None:
        _worker_progress[slot] += packet_bytes
        if _worker_stop.value:
            raise _Stopped

    try:
        record = chunk_video(task.source, task.folder, staging=task.staging, settings=task.settings, on_bytes=on_bytes)
        return _if_unchanged(task, record)
    except _Stopped:
        raise
    except Exception as error:  # whatever is wrong with one video, the others are chunked
        if (refused := _refused(error)) is not None:
            return refused
        why = getattr(error, "strerror", None) or error
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (NoRoom if full else StorageFault)(f"chunks of {task.video} cannot be written: {why}") from None


def refusal(error: Exception) -> str:
    """Why a video is refused whose chunking ended so."""
    return str(_refused(error) or error)


def _refused(error: Exception) -> FramefeedError | None:
    """None if it is the storage's fault and not the video's."""
    if isinstance(error, FramefeedError):
        return error
    if isinstance(error, FFmpegError) and error.errno not in _OF_STORAGE:  # FFmpeg's are often OSErrors as well
        return UnsupportedMedia(f"has pictures that cannot be converted or encoded: {error.strerror}")
    if isinstance(error, OSError):
        too_long = error.errno == errno.ENAMETOOLONG
        wanted = "its path is too long for a folder of chunks; give it a shorter name"
        return UnsupportedMedia(wanted) if too_long else None
    return CorruptMedia(f"cannot be chunked ({type(error).__name__}: {error})")


def _if_unchanged(task: ChunkTask, record: ChunkRecord) -> Outcome:
    """The record, unless the source is not any more what it was when its reading began; then its chunks go."""
    changed = change_since(task.source, size_bytes=record.source_bytes, mtime_ns=record.source_mtime_ns)
    if not changed:
        return record
    shutil.rmtree(task.folder, ignore_errors=True)
    return StorageFault(changed)
