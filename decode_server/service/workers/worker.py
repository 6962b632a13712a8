"""A worker process: threads that take tasks from one socket and read ahead, and others that decode what was read into
the buffer pool and answer.

It knows nothing of clients, queues or deadlines. It ends when the front does: its socket closes, and the kernel kills
it even while all its threads are stuck in a read.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from msgspec.structs import replace

from decode_server.clips.clip_cost import CostLimits
from decode_server.clips.clip_reader import ClipReader, ReadClips
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.clips.read_watch import Met, ReadWatch
from decode_server.clips.storage import Seams
from decode_server.service.workers.fingerprint import decoder_fingerprint
from decode_server.service.workers.hand_over import HandOver
from decode_server.service.workers.read_depth import readers
from decode_server.service.workers.sandbox import Sandbox, enter_sandbox
from decode_server.service.workers.shared_map import map_shared
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
_WAITING_TASKS = 2  # for each decode thread, beyond which nobody reads further ahead
_RESOURCES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Decodes(Protocol):
    """What a decode thread needs of an engine."""

    def decode_together(
        self,
        requests: Sequence[ClipRequest],
        outs: Sequence[memoryview],
        *,
        cancelled: Callable[[], bool],
        ahead: ReadClips | None,
    ) -> list[ClipInfo]:
        """Write each clip's bytes into its place in `outs`; raise a FramefeedError if that cannot be done for one.
        `ahead` is what was read for them before, None if nothing was.

        Raise Cancelled soon after `cancelled` is true.
        """

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeBackend:
    """What a worker decodes with: engines, one a thread, who reads ahead for them (None: nobody), a video's codec (a
    metrics label), the watch over all reads, who it is, and what it serves. `outdated` says why the root is not the one
    any more that it opened, "" if it is. `readable` is all that it needs to read beside the program: once that is
    known, the rest is taken from it.
    """

    engine: Callable[[], Decodes]
    codec: Callable[[str], str]
    watch: ReadWatch
    fingerprint: str
    videos: int
    dataset: str = ""
    outdated: Callable[[], str] = lambda: ""
    readable: tuple[Path, ...] | None = None  # None: no sandbox
    reader: ClipReader | None = None


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


@dataclass(slots=True)
class _Read:
    """Clips that wait for a decode thread since `since_s`: what was read of them, in what time of a reading thread, how
    many bytes are reserved for it, and what their reads met.
    """

    clips: Sequence[_Clip]
    ahead: ReadClips | None = None
    read_s: float = 0.0
    reserved_bytes: int = 0
    met: list[Met] = field(default_factory=list)
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """What a worker shares with the front: its part of the pool, and which of its clips are not wanted."""

    buffer_pool: memoryview
    cancel_flags: memoryview


class Worker:
    """The tasks of one process. Some of its threads run `read`, and others `decode`, each with an engine of its own."""

    def __init__(
        self, channel: socket.socket, shared: SharedMemory, *, backend: DecodeBackend, server: str, threads: int = 1
    ) -> None:
        self._channel = channel
        self._buffer_pool = shared.buffer_pool
        self._flags = shared.cancel_flags
        self._backend = backend
        self._server = server
        self._threads = threads
        self._tasks: dict[int, int] = {}  # by thread: the id of the first of those that it reads or decodes
        self._readers: set[int] = set()  # threads
        self._hand_over: HandOver[_Read] = HandOver(tasks=_WAITING_TASKS * threads)

    def read(self) -> None:
        """Take tasks and read ahead for them until the front closes the socket. Blocks on the front while there are
        none, on storage, and on the decode threads while these have enough to do.

        All threads wait on one socket and the kernel gives each task to one of them; a datagram is never split.
        """
        self._readers.add(threading.get_ident())
        while True:
            self._hand_over.wait_for_room()
            datagram = self._channel.recv(MAX_MESSAGE_BYTES)
            if not datagram:
                return
            message = unpack_message(datagram)
            assert isinstance(message, Tasks)
            self._tasks[threading.get_ident()] = message.tasks[0].id
            for done in self._read(_Read([_Clip.of(task, self._buffer_pool) for task in message.tasks])):
                self._channel.send(pack_message(done))

    def decode(self) -> None:
        """Decode what was read and answer, for as long as the process lives. Blocks while nothing is ready."""
        engine = self._backend.engine()
        try:
            while True:
                read = self._hand_over.take()
                self._tasks[threading.get_ident()] = read.clips[0].task.id
                for done in self._do(engine, read):
                    self._channel.send(pack_message(done))
                read.ahead = None
                self._hand_over.give_back(read.reserved_bytes)
        finally:
            engine.close()

    def report_stuck(self, longer_than_s: float) -> None:
        """Tell the front of each read that has lasted so long; of each one once."""
        for read in self._backend.watch.overdue(longer_than_s=longer_than_s):
            reason = f"a read of {read.path} has not returned for {longer_than_s:g} s"
            if read.thread in self._tasks:
                ahead = read.thread in self._readers
                self._channel.send(pack_message(Stuck(self._tasks[read.thread], reason, ahead)))

    def _read(self, read: _Read) -> Iterator[Done]:
        """Read ahead and hand over; or the end of each, where that is certain. What is wrong with one of several is
        found when each is decoded by itself.
        """
        clips, began_s = read.clips, time.monotonic()
        try:
            if self._backend.reader is not None:
                self._read_ahead(self._backend.reader, read)
        except Exception as error:
            self._hand_over.give_back(read.reserved_bytes)
            read.ahead, read.reserved_bytes = None, 0
            if len(clips) == 1 or isinstance(error, StorageFault | Cancelled):
                busy_s = self._as_decoding((time.monotonic() - began_s) / len(clips))
                for clip in clips:
                    yield self._failed(clip, error, self._effort(busy_s))
                return
        read.since_s = time.monotonic()
        read.read_s = read.since_s - began_s
        read.met.append(self._backend.watch.take_all())
        self._hand_over.put(read)

    def _read_ahead(self, reader: ClipReader, read: _Read) -> None:
        cancelled = self._cancelled(read.clips)
        read.ahead = reader.open([clip.call.request for clip in read.clips], cancelled=cancelled)
        read.reserved_bytes = self._hand_over.reserve(read.ahead.ahead_bytes)
        read.ahead.read_ahead(read.reserved_bytes, cancelled=cancelled)

    def _do(self, engine: Decodes, read: _Read) -> Iterator[Done]:
        """The end of each. What fails together is decoded one by one, so that none is refused for another's fault; but
        storage that fails one fails all.
        """
        clips, began_s = read.clips, time.monotonic()
        waited_s = began_s - read.since_s if read.since_s else 0.0
        requests, outs, cancelled = (
            [clip.call.request for clip in clips],
            [c.out for c in clips],
            self._cancelled(clips),
        )
        try:
            if cancelled():
                raise Cancelled("the clip is not wanted any more")
            infos = engine.decode_together(requests, outs, cancelled=cancelled, ahead=read.ahead)
        except Exception as error:
            busy_s = self._busy_s(read, began_s)
            for clip in clips:
                if len(clips) == 1 or isinstance(error, StorageFault | Cancelled):
                    yield self._failed(clip, error, self._effort(busy_s, read.met))
                else:
                    yield from self._do(engine, _Read([clip], met=read.met))
            return
        busy_s = self._busy_s(read, began_s)
        for clip, info in zip(clips, infos, strict=True):
            stage_s = {"queue": clip.queue_s + waited_s, **info.stage_s}
            told = replace(info, stage_s=stage_s)
            yield self._decoded(clip, told, self._effort(busy_s, read.met), among=len(clips))

    def _busy_s(self, read: _Read, began_s: float) -> float:
        """What each of several took of the worker, as a decode thread's time: of whichever is short, these threads or
        those that read.
        """
        return max(time.monotonic() - began_s, self._as_decoding(read.read_s)) / len(read.clips)

    def _as_decoding(self, read_s: float) -> float:
        return read_s * self._threads / readers(self._threads)

    def _cancelled(self, clips: Sequence[_Clip]) -> Callable[[], bool]:
        """Whether none of them is wanted any more."""
        flags, first, *others = self._flags, *(clip.task.flag for clip in clips)
        return lambda: bool(flags[first]) and all(flags[other] for other in others)

    def _decoded(self, clip: _Clip, info: ClipInfo, effort: Effort, *, among: int) -> Done:
        """The end of one of several clips, whose times are those of all: the metrics are to count them once."""
        task, call = clip.task, clip.call
        reply = ClipReply(attempt=call.attempt, server=self._server, info=info)
        codec = self._backend.codec(call.request.video)
        stage_s = {stage: spent_s if stage == "queue" else spent_s / among for stage, spent_s in info.stage_s.items()}
        packed = pack_unsealed(reply)
        return Done(task.id, "clip", packed, codec, info.read_bytes, stage_s, effort)

    def _failed(self, clip: _Clip, error: Exception, effort: Effort) -> Done:
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
        return Done(clip.task.id, code, pack_unsealed(reply), "", 0, {}, effort)

    def _effort(self, busy_s: float, met: list[Met] | None = None) -> Effort:
        """What a task took, and what its reads met: in this thread, and before in another, told once."""
        seen = self._backend.watch.take_all()
        while met:
            seen += met.pop()
        return Effort(busy_s, time.monotonic(), dict(seen.faults), list(seen.times), seen.lookups)


def _is_of_resources(error: Exception) -> bool:
    """Whether this machine had no memory or descriptor left, which says nothing of the clip."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _RESOURCES)


def library_backend(setup: Setup, *, seams: Seams | None = None) -> DecodeBackend:
    """The backend that decodes the videos of a root, opened through `seams`. Raises BadInput."""
    index_folder = Path(setup.index_folder) if setup.index_folder else None
    library = Library(
        Path(setup.root),
        index_folder=index_folder,
        seams=seams,
        since_s=setup.started_s,
        memory=setup.manifest,
        follow_links=setup.follow_links,
    )
    costs = CostLimits(read_mib=setup.max_read_mib, decode_mpx=setup.max_decode_mpx)
    return DecodeBackend(
        engine=lambda: Engine(library, limits=costs),
        reader=ClipReader(library, limits=costs),
        codec=lambda video: library.manifest.videos[video].codec,
        watch=library.watch,
        fingerprint=decoder_fingerprint(),
        videos=len(library.manifest.videos),
        dataset=library.identity,
        outdated=library.outdated,
        readable=library.folders,
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
    shared = _map_memory(setup)
    sandbox = Sandbox(missing=("all (this backend has none)",))
    if backend.readable is not None:
        sandbox = enter_sandbox(backend.readable)
    log.debug("sandbox: %s", sandbox)
    worker = Worker(channel, shared, backend=backend, server=setup.server, threads=setup.threads)
    channel.send(pack_message(Hello(backend.fingerprint, backend.videos, backend.dataset, sandbox)))
    threads = [threading.Thread(target=_run, args=(worker.decode,), name=f"decode-{i}") for i in range(setup.threads)]
    ahead = readers(setup.threads) if backend.reader is not None else setup.threads
    threads += [threading.Thread(target=_run, args=(worker.read,), name=f"read-{i}") for i in range(ahead)]
    for thread in threads:
        thread.start()
    while True:  # a thread that ends takes the process with it
        threads[0].join(min(setup.read_s / 4, _WATCH_S))
        _watch(worker, setup.read_s)


def _map_memory(setup: Setup) -> SharedMemory:
    """What this worker may reach of what the front has; there is no way to any more of it from then on."""
    shared = SharedMemory(
        buffer_pool=map_shared(setup.buffer_pool, setup.part_bytes, offset=setup.part_offset, writable=True),
        cancel_flags=map_shared(setup.cancel_flags, os.fstat(setup.cancel_flags).st_size),
    )
    for fd in (setup.buffer_pool, setup.cancel_flags, setup.manifest):
        os.close(fd)
    return shared


def _watch(worker: Worker, read_s: float) -> None:
    try:
        worker.report_stuck(read_s)
    except OSError:
        os._exit(0)  # the front is gone


def _run(loop: Callable[[], None]) -> None:
    """A thread that fails ends the process, so that the front sees it and replaces the whole worker."""
    try:
        loop()
    except ConnectionError:
        pass  # the front is gone, and so is whoever wanted the answer
    except BaseException:
        log.exception("a worker's thread failed")
        os._exit(3)
    os._exit(0)  # the socket is closed: at once, whatever the other threads are doing


def main(make_backend: Callable[[Setup], DecodeBackend] = library_backend) -> int:
    """The process's entry: its one argument is the inherited descriptor of the socket to the front."""
    log_to_stderr(worker=True)
    try:
        return run_worker(socket.socket(fileno=int(sys.argv[1])), make_backend)
    except ConnectionError:
        return 0  # the front is gone, or ends, and wants no worker any more


if __name__ == "__main__":
    raise SystemExit(main())
