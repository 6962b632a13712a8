"""The workers of a server, as the front sees them: starts, feeds, watches, kills and replaces their processes.

It never blocks (but for `close`, which is bounded) and reports what happened as events; it knows neither clients nor
replies. A process that was killed may still write to its buffers until it is reaped, so only then are they given back.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from decode_server.service.admission import Job
from decode_server.service.buffer_pool import Buffer
from decode_server.service.workers.restarts import Restarts
from decode_server.service.workers.sandbox import clean_environment
from decode_server.service.workers.topology import WorkerSlot
from decode_server.service.workers.worker_events import Event, Finished, Hung, Lost, Released, TimedOut
from decode_server.service.workers.worker_messages import (
    MAX_MESSAGE_BYTES,
    Done,
    Hello,
    NoStart,
    Setup,
    Stuck,
    Task,
    Tasks,
    pack_message,
    unpack_message,
)
from framefeed.errors import BadInput, FramefeedError

log = logging.getLogger("framefeed.serve")

WORKER_COMMAND = (sys.executable, "-P", "-m", "decode_server.service.workers.worker")
START_S = 60.0  # a worker that is not up by then is killed
_REAP_S = 1.0  # a killed process that does not go by then (a read that cannot be interrupted) is replaced beforehand
_REAP_EVERY_S = 0.002
_SPARE_TASKS = 1  # handed to a worker beyond its threads, so that none idles while the front turns round
_ZOMBIES_A_SLOT = 2  # killed workers that cannot go; with so many no further one is started there
_FIRST_TRIES, _LATER_TRIES = 3, 8  # failed starts in a row, at every slot, before the pool is hopeless


class WorkerState(enum.Enum):
    """STARTING until Hello, READY while it serves, DYING once killed or at end of file, GONE when reaped."""

    STARTING = "starting"
    READY = "ready"
    DYING = "dying"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class _Running:
    job: Job
    buffer: Buffer
    first: int  # id of the first of the jobs that one thread decodes together
    answered: bool = False
    stuck_s: float | None = None  # since when its thread waits in a read


@dataclass(slots=True, eq=False)
class _Worker:
    place: _Place
    process: subprocess.Popen[bytes]
    channel: socket.socket
    since_s: float  # of this state
    state: WorkerState = WorkerState.STARTING
    was_ready: bool = False
    running: dict[int, _Running] = field(default_factory=dict)
    killed_because: str = ""

    @property
    def stuck(self) -> int:
        """Threads that wait in a read that does not return."""
        return len({running.first for running in self.running.values() if running.stuck_s is not None})

    @property
    def load(self) -> int:
        """Threads that its jobs take."""
        return len({running.first for running in self.running.values()})


@dataclass(slots=True, eq=False)
class _Place:
    worker_slot: WorkerSlot
    restarts: Restarts = field(default_factory=Restarts)
    worker: _Worker | None = None
    start_at_s: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """What every worker is told, and when it counts as hung: `hang_s` after a decode's deadline, or after a read of
    each of its threads lasted longer than `read_s`.
    """

    root: str
    index_folder: str
    server: str
    threads: int
    buffer_pool_fd: int
    hang_s: float
    read_s: float
    command: tuple[str, ...] = WORKER_COMMAND


class WorkerPool:
    """One worker a slot. Poll its `fileno()`, then call `poll`, at the latest at `next_timer_s`."""

    def __init__(self, worker_slots: Sequence[WorkerSlot], options: PoolOptions) -> None:
        self.fingerprint = ""  # of all workers, and how many videos they have: known once one is ready
        self.videos = 0
        self.unanswered = 0  # jobs handed to workers whose client has no reply yet
        self.restarts = 0
        self._options = options
        self._places = [_Place(slot) for slot in worker_slots]
        self._epoll = select.epoll()
        self._by_fd: dict[int, _Worker] = {}
        self._dying: list[_Worker] = []
        self._last_failure = ""
        self._refused = ""
        self._next_due_s = math.inf  # a lower bound of the running jobs' timers

    def fileno(self) -> int:
        """A descriptor that is readable when a worker has something to say."""
        return self._epoll.fileno()

    @property
    def ready(self) -> int:
        """Workers that can take tasks."""
        return sum(self._usable(worker) for worker in self._live())

    @property
    def busy(self) -> int:
        """Workers that have a task."""
        return sum(bool(worker.running) for worker in self._live())

    @property
    def stuck_reads(self) -> int:
        """Threads of live workers that wait in a read that does not return."""
        return sum(worker.stuck for worker in self._live())

    @property
    def zombies(self) -> int:
        """Killed workers that cannot go, for the kernel does not end a read that hangs."""
        return sum(self._zombies_of(place) for place in self._places)

    @property
    def size(self) -> int:
        """Workers that there should be."""
        return len(self._places)

    @property
    def capacity(self) -> int:
        """Clips that are decoded at a time when all workers are up."""
        return len(self._places) * self._options.threads

    @property
    def room(self) -> int:
        """How often `start` can be called now."""
        return sum(map(self._room_of, self._live()))

    def start(self, together: Sequence[tuple[Job, Buffer]]) -> None:
        """Have the least loaded worker decode jobs together; there must be room. A worker that died meanwhile loses
        them later.
        """
        worker = max(self._live(), key=self._room_of, default=None)
        assert worker is not None, "worker pool: no room"
        assert self._room_of(worker) > 0, "worker pool: no room"
        for job, buffer in together:
            worker.running[job.id] = _Running(job, buffer, together[0][0].id)
            self._next_due_s = min(self._next_due_s, job.due_s)
        self.unanswered += len(together)
        tasks = tuple(Task(j.id, buffer.offset, j.clip_bytes, j.received_s, j.header) for j, buffer in together)
        try:
            worker.channel.send(pack_message(Tasks(tasks)))
        except OSError as error:
            log.warning("worker %d does not take tasks: %s", worker.process.pid, error)  # its end of file follows

    def poll(self, now_s: float) -> list[Event]:
        """Take in what workers said and how they ended, time out jobs, kill the hung, start the missing."""
        events: list[Event] = []
        for fd, _ in self._epoll.poll(0):
            self._receive(self._by_fd[fd], now_s, events)
        for worker in list(self._dying):
            self._reap(worker, now_s, events)
        if now_s >= self._next_due_s:
            self._check_times(now_s, events)
        for place in self._places:
            if self._vacant(place) and now_s >= place.start_at_s:
                self._spawn(place, now_s)
        return events

    def next_timer_s(self, now_s: float) -> float:
        """When to call `poll` at the latest, whatever the descriptor says."""
        timers = [self._next_due_s]
        timers += [place.start_at_s for place in self._places if self._vacant(place)]
        timers += [now_s + (_REAP_EVERY_S if w.place.worker is w else _REAP_S) for w in self._dying]
        return min(timers)

    def hopeless(self) -> FramefeedError | None:
        """The error to end the server with, once no worker can be started."""
        if self._refused and not self.fingerprint:
            return BadInput(self._refused)
        tries = _LATER_TRIES if self.fingerprint else _FIRST_TRIES
        if all(place.restarts.failed_starts >= tries for place in self._places):
            return FramefeedError(f"no worker can be started, {tries} tries each; the last: {self._last_failure}")
        return None

    def abandon(self) -> list[Job]:
        """Count all running jobs as answered and return them: the drain is over."""
        running = [r for worker in self._everyone() for r in worker.running.values() if not r.answered]
        return [self._answered(r) for r in running]

    def close(self, *, grace_s: float = 1.0) -> None:
        """End all workers: at once if idle, by kill after `grace_s`. Blocks for at most that and 1 s. Idempotent."""
        workers = list(self._everyone())
        for worker in workers:
            worker.channel.close()
        for worker in _still_there(workers, within_s=grace_s):
            worker.process.kill()
        for worker in _still_there(workers, within_s=_REAP_S):
            log.warning("worker %d is killed but cannot go (a read that does not return)", worker.process.pid)
        self._places, self._dying, self._by_fd = [], [], {}
        self._epoll.close()

    def _live(self) -> Iterator[_Worker]:
        return (place.worker for place in self._places if place.worker is not None)

    def _everyone(self) -> Iterator[_Worker]:
        yield from self._live()
        yield from (worker for worker in self._dying if worker.place.worker is not worker)

    def _room_of(self, worker: _Worker) -> int:
        return self._options.threads + _SPARE_TASKS - worker.load if self._usable(worker) else 0

    def _usable(self, worker: _Worker) -> bool:
        return worker.state is WorkerState.READY and worker.stuck < self._options.threads

    def _vacant(self, place: _Place) -> bool:
        return place.worker is None and self._zombies_of(place) < _ZOMBIES_A_SLOT

    def _zombies_of(self, place: _Place) -> int:
        return sum(worker.place is place and place.worker is not worker for worker in self._dying)

    def _answered(self, running: _Running) -> Job:
        running.answered = True
        self.unanswered -= 1
        return running.job

    def _spawn(self, place: _Place, now_s: float) -> None:
        options = self._options
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        setup = Setup(
            options.root,
            options.index_folder,
            options.server,
            options.threads,
            options.read_s,
            place.worker_slot.cpus,
            options.buffer_pool_fd,
            os.getpid(),
        )
        with theirs:
            try:
                process = subprocess.Popen(
                    [*options.command, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(), options.buffer_pool_fd),
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # stdout is the front's own
                    process_group=0,  # Ctrl-C in a terminal is the front's to handle
                    env={**clean_environment(), "OPENBLAS_NUM_THREADS": "1"},
                )
            except OSError as error:
                ours.close()
                self._failed(place, f"cannot start a process: {error}", now_s=now_s, was_ready=False)
                return
        ours.setblocking(False)
        ours.send(pack_message(setup))
        place.worker = _Worker(place, process, ours, now_s)
        self._by_fd[ours.fileno()] = place.worker
        self._epoll.register(ours.fileno(), select.EPOLLIN)
        self._next_due_s = min(self._next_due_s, now_s + START_S)

    def _receive(self, worker: _Worker, now_s: float, events: list[Event]) -> None:
        try:
            while datagram := worker.channel.recv(MAX_MESSAGE_BYTES):
                self._heard(worker, datagram, now_s, events)
                if worker.state is WorkerState.DYING:
                    return
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("worker %d: %s", worker.process.pid, error)
        self._condemn(worker, "", now_s)

    def _heard(self, worker: _Worker, datagram: bytes, now_s: float, events: list[Event]) -> None:
        try:
            message = unpack_message(datagram)
        except ValueError as error:
            self._condemn(worker, f"it sent nonsense ({error})", now_s)
            return
        if isinstance(message, Done) and message.id in worker.running:
            running = worker.running.pop(message.id)
            late = running.answered
            if not late:
                self._answered(running)
            events.append(Finished(running.job, running.buffer, message, worker.place.worker_slot.socket, late))
        elif isinstance(message, Stuck):
            self._read_hangs(worker, message, now_s, events)
        elif isinstance(message, NoStart):
            self._refused = message.reason
            worker.killed_because = message.reason
        elif isinstance(message, Hello) and message.fingerprint == (self.fingerprint or message.fingerprint):
            self.fingerprint, self.videos = message.fingerprint, message.videos
            worker.state, worker.was_ready, worker.since_s = WorkerState.READY, True, now_s
            worker.place.restarts.came_up()
            slot = worker.place.worker_slot
            log.info("worker %d is up on CPUs %s of socket %d", worker.process.pid, slot.cpus, slot.socket)
        else:
            self._condemn(worker, f"it sent {message!r:.200}, this server decodes with {self.fingerprint}", now_s)

    def _read_hangs(self, worker: _Worker, message: Stuck, now_s: float, events: list[Event]) -> None:
        hung = [r for r in worker.running.values() if r.first == message.id and r.stuck_s is None]
        if not hung:
            return  # its end and this crossed
        for running in hung:
            running.stuck_s = now_s
            late = running.answered
            job = running.job if late else self._answered(running)
            events.append(Hung(job, f"{job.what}: {message.reason}", late))
        log.warning("worker %d: %s; %d of its threads are stuck", worker.process.pid, message.reason, worker.stuck)
        if not self._usable(worker):
            self._next_due_s = min(self._next_due_s, now_s + self._options.hang_s)
            behind = [r for r in worker.running.values() if not r.answered]  # no thread is left that could begin them
            events.extend(Lost(self._answered(r), f"{r.job.what}: its worker is stuck in reads") for r in behind)

    def _check_times(self, now_s: float, events: list[Event]) -> None:
        """Answer jobs past their deadline; kill workers that hang on one long past it, or that do not come up."""
        self._next_due_s = math.inf
        for worker in list(self._live()):
            if worker.state is WorkerState.STARTING:
                if now_s >= worker.since_s + START_S:
                    self._condemn(worker, f"it was not up after {START_S:g} s", now_s)
                else:
                    self._next_due_s = min(self._next_due_s, worker.since_s + START_S)
            if worker.state is WorkerState.READY and worker.stuck == self._options.threads:
                stuck_s = max(r.stuck_s for r in worker.running.values() if r.stuck_s is not None)
                self._kill_when_hung(worker, stuck_s, now_s, "all its threads were stuck in reads for")
            for running in worker.running.values():
                if not running.answered and now_s >= running.job.due_s:
                    events.append(TimedOut(self._answered(running)))
                if not running.answered:
                    self._next_due_s = min(self._next_due_s, running.job.due_s)
                elif running.stuck_s is None:
                    because = f"{running.job.what} was past its deadline for"
                    self._kill_when_hung(worker, running.job.due_s, now_s, because)

    def _kill_when_hung(self, worker: _Worker, since_s: float, now_s: float, because: str) -> None:
        hung_s = since_s + self._options.hang_s
        if now_s >= hung_s:
            self._condemn(worker, f"{because} {now_s - since_s:.1f} s", now_s)
        elif worker.state is WorkerState.READY:
            self._next_due_s = min(self._next_due_s, hung_s)

    def _condemn(self, worker: _Worker, because: str, now_s: float) -> None:
        """Kill it (a no-op where it is dead already) and wait, without blocking, for it to be reaped."""
        if worker.state is WorkerState.DYING:
            return
        worker.process.kill()
        self._epoll.unregister(worker.channel.fileno())
        del self._by_fd[worker.channel.fileno()]
        worker.killed_because = worker.killed_because or because
        worker.state, worker.since_s = WorkerState.DYING, now_s
        self._dying.append(worker)

    def _reap(self, worker: _Worker, now_s: float, events: list[Event]) -> None:
        code = worker.process.poll()
        if worker.place.worker is worker and (code is not None or now_s >= worker.since_s + _REAP_S):
            end = _describe_end(worker, code)
            for running in worker.running.values():
                if not running.answered:
                    events.append(Lost(self._answered(running), f"{end} while decoding {running.job.what}"))
            self._failed(worker.place, end, now_s=now_s, was_ready=worker.was_ready)
            if not self._vacant(worker.place):
                log.error("%d killed workers of one slot cannot go; none starts there before one does", _ZOMBIES_A_SLOT)
        if code is not None:
            worker.state = WorkerState.GONE
            worker.channel.close()
            self._dying.remove(worker)
            events.extend(Released(running.buffer) for running in worker.running.values())

    def _failed(self, place: _Place, end: str, *, now_s: float, was_ready: bool) -> None:
        place.worker = None
        place.start_at_s = place.restarts.died(now_s=now_s, was_ready=was_ready)
        self.restarts += 1
        self._last_failure = end
        if self.hopeless() is None:  # else the server ends, and says why
            log.warning("%s; the next starts in %.1f s", end, place.start_at_s - now_s)

    def __repr__(self) -> str:
        return f"WorkerPool({self.ready} of {self.size} ready, {self.busy} busy, {self.unanswered} jobs)"


def _still_there(workers: list[_Worker], *, within_s: float) -> list[_Worker]:
    """Those whose processes have not ended after so long."""
    until_s = time.monotonic() + within_s
    there = []
    for worker in workers:
        try:
            worker.process.wait(timeout=max(until_s - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            there.append(worker)
    return there


def _describe_end(worker: _Worker, code: int | None) -> str:
    who = f"worker {worker.process.pid}"
    if worker.killed_because:
        return f"{who} was stopped because {worker.killed_because}"
    if code is not None and code < 0:
        return f"{who} died by signal {-code} ({signal.strsignal(-code)})"
    return f"{who} exited with code {code}"
