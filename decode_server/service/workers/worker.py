"""A worker process: threads that take tasks from one socket, decode them into the buffer pool and answer.

It knows nothing of clients, queues or deadlines. It ends when the front does: its socket closes, and the kernel kills
it even while all its threads are stuck in a read.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from msgspec.structs import replace

from decode_server.clips.clip_cost import CostLimits
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.clips.read_watch import ReadWatch
from decode_server.clips.storage import Seams
from decode_server.service.workers.fingerprint import decoder_fingerprint
from decode_server.service.workers.sandbox import Sandbox, enter_sandbox
from decode_server.service.workers.worker_messages import (
    MAX_MESSAGE_BYTES,
    Done,
    Effort,
    Hello,
    NoStart,
    Setup,
    Stuck,
    Task,
    Tasks,
    pack_message,
    unpack_message,
)
from framefeed.cli.log_lines import log_to_stderr
from framefeed.cli.parent_death import end_with_parent
from framefeed.clip import ClipInfo
from framefeed.errors import Cancelled, FramefeedError, NotHere, Permanent, ResourceExhausted, StorageFault
from framefeed.request import ClipRequest
from framefeed.wire import ClipReply, DecodeCall, ErrorReply, pack_unsealed, unpack_call

log = logging.getLogger("framefeed.worker")

_WATCH_S = 0.5
_RESOURCES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Decodes(Protocol):
    """What a worker thread needs of an engine."""

    def decode_together(
        self, requests: Sequence[ClipRequest], outs: Sequence[memoryview], *, cancelled: Callable[[], bool]
    ) -> list[ClipInfo]:
        """Write each clip's bytes into its place in `outs`; raise a FramefeedError if that cannot be done for one.

        Raise Cancelled soon after `cancelled` is true.
        """

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeBackend:
    """What a worker decodes with: engines, one a thread, a video's codec (a metrics label), the watch over all reads,
    who it is, and what it serves. `outdated` says why the root is not the one any more that it opened, "" if it is.
    `readable` is all that it needs to read beside the program: once that is known, the rest is taken from it.
    """

    engine: Callable[[], Decodes]
    codec: Callable[[str], str]
    watch: ReadWatch
    fingerprint: str
    videos: int
    dataset: str = ""
    outdated: Callable[[], str] = lambda: ""
    readable: tuple[Path, ...] | None = None  # None: no sandbox


@dataclass(frozen=True, slots=True)
class _Clip:
    """A task, taken up: its call, where its pixels go, and how long it waited."""

    task: Task
    call: DecodeCall
    out: memoryview
    queue_s: float

    @classmethod
    def of(cls, task: Task, buffer_pool: memoryview) -> Self:
        call = unpack_call(task.header)
        assert isinstance(call, DecodeCall)
        out = buffer_pool[task.offset : task.offset + task.clip_bytes]
        return cls(task, call, out, max(time.monotonic() - task.received_s, 0.0))


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """What a worker shares with the front: the pool that it writes clips into, and which of them are not wanted."""

    buffer_pool: memoryview
    cancel_flags: memoryview


class Worker:
    """The tasks of one process. Each of its threads runs `serve` with an engine of its own."""

    def __init__(self, channel: socket.socket, shared: SharedMemory, *, backend: DecodeBackend, server: str) -> None:
        self._channel = channel
        self._buffer_pool = shared.buffer_pool
        self._flags = shared.cancel_flags
        self._backend = backend
        self._server = server
        self._tasks: dict[int, int] = {}  # by thread: the id of the first of those that it decodes

    def serve(self) -> None:
        """Take tasks and answer them until the front closes the socket. Blocks on the front while there are none.

        All threads wait on one socket and the kernel gives each task to one of them; a datagram is never split.
        """
        engine = self._backend.engine()
        try:
            while datagram := self._channel.recv(MAX_MESSAGE_BYTES):
                message = unpack_message(datagram)
                assert isinstance(message, Tasks)
                self._tasks[threading.get_ident()] = message.tasks[0].id
                for done in self._do(engine, [_Clip.of(task, self._buffer_pool) for task in message.tasks]):
                    self._channel.send(pack_message(done))
        except (ConnectionError, BrokenPipeError):
            pass  # the front is gone, and so is whoever wanted the answer
        finally:
            engine.close()

    def report_stuck(self, longer_than_s: float) -> None:
        """Tell the front of each read that has lasted so long; of each one once."""
        for read in self._backend.watch.overdue(longer_than_s=longer_than_s):
            reason = f"a read of {read.path} has not returned for {longer_than_s:g} s"
            if read.thread in self._tasks:
                self._channel.send(pack_message(Stuck(self._tasks[read.thread], reason)))

    def _do(self, engine: Decodes, clips: Sequence[_Clip]) -> Iterator[Done]:
        """The end of each. What fails together is decoded one by one, so that none is refused for another's fault; but
        storage that fails one fails all.
        """
        began_s = time.monotonic()
        requests, outs = [clip.call.request for clip in clips], [clip.out for clip in clips]
        try:
            infos = engine.decode_together(requests, outs, cancelled=self._cancelled(clips))
        except Exception as error:
            for clip in clips:
                if len(clips) == 1 or isinstance(error, StorageFault | Cancelled):
                    yield self._failed(clip, error, _each_s(began_s, clips))
                else:
                    yield from self._do(engine, [clip])
            return
        busy_s = _each_s(began_s, clips)
        for clip, info in zip(clips, infos, strict=True):
            yield self._decoded(clip, info, busy_s, among=len(clips))

    def _cancelled(self, clips: Sequence[_Clip]) -> Callable[[], bool]:
        """Whether none of them is wanted any more."""
        flags, first, *others = self._flags, *(clip.task.flag for clip in clips)
        return lambda: bool(flags[first]) and all(flags[other] for other in others)

    def _decoded(self, clip: _Clip, info: ClipInfo, busy_s: float, *, among: int) -> Done:
        """The end of one of several clips, whose times are those of all: the metrics are to count them once."""
        task, call = clip.task, clip.call
        info = replace(info, stage_s={"queue": clip.queue_s, **info.stage_s})
        reply = ClipReply(attempt=call.attempt, server=self._server, info=info)
        codec = self._backend.codec(call.request.video)
        stage_s = {stage: spent_s if stage == "queue" else spent_s / among for stage, spent_s in info.stage_s.items()}
        packed = pack_unsealed(reply)
        return Done(task.id, "clip", packed, codec, info.read_bytes, stage_s, self._effort(busy_s))

    def _failed(self, clip: _Clip, error: Exception, busy_s: float) -> Done:
        if isinstance(error, Permanent) and (outdated := self._backend.outdated()):
            error = NotHere(f"{outdated} ({error})")
        if isinstance(error, FramefeedError):
            code, message = error.code, str(error)
        elif _is_of_resources(error):
            code, message = ResourceExhausted.code, f"{clip.call.request.video}: {type(error).__name__}: {error}"
            log.error("decoding %s failed for want of memory or descriptors: %s", clip.call.request.video, error)
        else:
            video = clip.call.request.video
            log.error("decoding %s failed in a way that is a bug", video, exc_info=error)
            code, message = Permanent.code, f"{video}: {type(error).__name__}: {error}"
        reply = ErrorReply(attempt=clip.call.attempt, server=self._server, code=code, message=message)
        return Done(clip.task.id, code, pack_unsealed(reply), "", 0, {}, self._effort(busy_s))

    def _effort(self, busy_s: float) -> Effort:
        """What this thread's task took, beside its thread's time."""
        watch = self._backend.watch
        return Effort(busy_s, time.monotonic(), watch.take(), watch.take_times(), watch.take_lookups())


def _is_of_resources(error: Exception) -> bool:
    """Whether this machine had no memory or descriptor left, which says nothing of the clip."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _RESOURCES)


def _each_s(began_s: float, clips: Sequence[_Clip]) -> float:
    """A thread's time since then, in equal parts for these clips."""
    return (time.monotonic() - began_s) / len(clips)


def library_backend(setup: Setup, *, seams: Seams | None = None) -> DecodeBackend:
    """The backend that decodes the videos of a root, opened through `seams`. Raises BadInput."""
    index_folder = Path(setup.index_folder) if setup.index_folder else None
    library = Library(Path(setup.root), index_folder=index_folder, seams=seams, since_s=setup.started_s)
    costs = CostLimits(read_mib=setup.max_read_mib, decode_mpx=setup.max_decode_mpx)
    return DecodeBackend(
        engine=lambda: Engine(library, limits=costs),
        codec=lambda video: library.manifest.videos[video].codec,
        watch=library.watch,
        fingerprint=decoder_fingerprint(),
        videos=len(library.manifest.videos),
        dataset=library.identity,
        outdated=library.outdated,
        readable=(Path(setup.root), index_folder or Path(setup.root)),
    )


def run_worker(channel: socket.socket, make_backend: Callable[[Setup], DecodeBackend] = library_backend) -> int:
    """Be a worker until the front closes the socket; returns the exit code if it could not become one.

    This thread only watches the others' reads.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and a stop of the whole group are the front's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    datagram = channel.recv(MAX_MESSAGE_BYTES)
    setup = unpack_message(datagram) if datagram else None
    if not isinstance(setup, Setup):
        return 1
    end_with_parent(setup.parent)
    os.sched_setaffinity(0, setup.cpus)  # before any thread starts, so that all inherit it
    try:
        backend = make_backend(setup)
    except FramefeedError as error:
        channel.send(pack_message(NoStart(str(error))))
        return 2
    sandbox = Sandbox(missing=("all (this backend has none)",))
    if backend.readable is not None:
        sandbox = enter_sandbox(backend.readable)
    log.debug("sandbox: %s", sandbox)
    shared = SharedMemory(
        buffer_pool=memoryview(mmap.mmap(setup.buffer_pool, 0)),
        cancel_flags=memoryview(mmap.mmap(setup.cancel_flags, 0, prot=mmap.PROT_READ)),
    )
    worker = Worker(channel, shared, backend=backend, server=setup.server)
    channel.send(pack_message(Hello(backend.fingerprint, backend.videos, backend.dataset, sandbox)))
    threads = [threading.Thread(target=_serve, args=(worker,), name=f"decode-{i}") for i in range(setup.threads)]
    for thread in threads:
        thread.start()
    while True:  # a thread that ends takes the process with it
        threads[0].join(min(setup.read_s / 4, _WATCH_S))
        _watch(worker, setup.read_s)


def _watch(worker: Worker, read_s: float) -> None:
    try:
        worker.report_stuck(read_s)
    except OSError:
        os._exit(0)  # the front is gone


def _serve(worker: Worker) -> None:
    """A thread that fails ends the process, so that the front sees it and replaces the whole worker."""
    try:
        worker.serve()
    except BaseException:
        log.exception("a decode thread failed")
        os._exit(3)
    os._exit(0)  # the socket is closed: at once, whatever the other threads are doing


def main(make_backend: Callable[[Setup], DecodeBackend] = library_backend) -> int:
    """The process's entry: its one argument is the inherited descriptor of the socket to the front."""
    log_to_stderr(worker=True)
    return run_worker(socket.socket(fileno=int(sys.argv[1])), make_backend)


if __name__ == "__main__":
    raise SystemExit(main())
