"""The processes of the workers: started, watched, killed, reaped and replaced, one a slot. It knows no jobs.

It never blocks (but for `close`, which is bounded) and reports what happened as it comes.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from decode_server.clips.clip_cost import CostLimits
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.descriptor_reserve import PASSING, DescriptorReserve
from decode_server.service.process_end import describe_end
from decode_server.service.workers.restarts import Restarts
from decode_server.service.workers.sandbox import Sandbox, clean_environment
from decode_server.service.workers.topology import WorkerSlot
from decode_server.service.workers.worker_messages import (
    MAX_MESSAGE_BYTES,
    Done,
    Hello,
    Message,
    NoStart,
    Setup,
    Stuck,
    Tasks,
    pack_message,
    unpack_message,
)
from framefeed.cli import interrupts
from framefeed.errors import BadInput, FramefeedError
from framefeed.show_value import show_value

log = logging.getLogger("framefeed.serve")

WORKER_COMMAND = (sys.executable, "-P", "-m", "decode_server.service.workers.worker")
START_S = 60.0  # a worker that is not up by then is killed, unless one has read on in the manifest meanwhile
_MOST_STARTING = max(8, os.cpu_count() or 1)  # at a time: each takes a CPU, and reads the program from storage
_MESSAGES_A_TURN = 256  # of one worker
_REAP_S = 1.0  # a killed process that does not go by then (a read that cannot be interrupted) is replaced beforehand
_REAP_EVERY_S = 0.002
ZOMBIES_A_SLOT = 2  # killed workers that cannot go; with so many no further one is started there
_FIRST_TRIES, _LATER_TRIES = 3, 8  # failed starts in a row, at every slot, before there is no point


class WorkerState(enum.Enum):
    """STARTING until Hello, READY while it serves, DYING once killed or at end of file, GONE when reaped."""

    STARTING = "starting"
    READY = "ready"
    DYING = "dying"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One process, of its `place` until another may start there."""

    place: _Place
    process: subprocess.Popen[bytes]
    channel: socket.socket
    since_s: float  # of this state
    state: WorkerState = WorkerState.STARTING
    was_ready: bool = False
    killed_because: str = ""
    crossed: int = 0  # messages of hung reads of jobs that it did not have

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def part(self) -> int:
        """The number of the part of the buffer pool that it writes to, which is its slot's."""
        return self.place.number

    @property
    def socket_number(self) -> int:
        """The CPU socket that it runs on."""
        return self.place.worker_slot.socket

    def __repr__(self) -> str:
        return f"WorkerProcess({self.pid}, {self.state.value})"


@dataclass(slots=True, eq=False)
class _Place:
    worker_slot: WorkerSlot
    number: int
    restarts: Restarts = field(default_factory=Restarts)
    worker: WorkerProcess | None = None
    zombies: int = 0
    start_at_s: float = -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What every worker is told, the pool of which each slot has a part, and the command that starts one; `costs` are
    what one clip may cost, `started_s` is when the server started, by the wall clock. `came_up` is called with each
    that serves: its name, and its sandbox. The memory of the manifest is closed with the supervisor.
    """

    root: str
    index_folder: str
    server: str
    threads: int
    buffer_pool: BufferPool
    cancel_flags_fd: int
    manifest_fd: int
    read_s: float
    costs: CostLimits = field(default_factory=CostLimits)
    command: tuple[str, ...] = WORKER_COMMAND
    started_s: float = field(default_factory=time.time)
    came_up: Callable[[str, Sandbox], None] = lambda _name, _sandbox: None
    follow_links: bool = False


@dataclass(frozen=True, slots=True)
class CameUp:
    """A worker can take tasks."""

    worker: WorkerProcess


@dataclass(frozen=True, slots=True)
class Heard:
    """A worker said something of its tasks."""

    worker: WorkerProcess
    message: Done | Stuck


@dataclass(frozen=True, slots=True)
class Dying:
    """A worker takes no more tasks."""

    worker: WorkerProcess


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker is given up, and why; it may still write where it was told to."""

    worker: WorkerProcess
    reason: str


@dataclass(frozen=True, slots=True)
class Reaped:
    """A worker's process is gone."""

    worker: WorkerProcess


Happening = CameUp | Heard | Dying | Ended | Reaped


class Supervisor:
    """One worker a slot. Poll its `fileno()`, then call `poll`, at the latest at `next_timer_s`."""

    def __init__(self, worker_slots: Sequence[WorkerSlot], options: WorkerOptions) -> None:
        self.fingerprint = ""  # of all workers, and how many videos of which data set: known once one is ready
        self.videos = 0
        self.dataset = ""
        self.restarts = 0
        self.zombies = 0  # killed workers that cannot go, for the kernel does not end a read that hangs
        self.hopeless: FramefeedError | None = None  # the error to end the server with, once no worker can be started
        self._options = options
        self._places = [_Place(slot, number) for number, slot in enumerate(worker_slots)]
        self._vacant = list(self._places)  # those where a worker is to be started
        self._epoll = select.epoll()
        self._by_fd: dict[int, WorkerProcess] = {}
        self._starting: set[WorkerProcess] = set()
        self._dying: list[WorkerProcess] = []
        self._happened: list[Happening] = []
        self._refused = ""
        self._manifest = options.manifest_fd  # shared by all workers, and filled by the first one
        self._filled_bytes = 0  # of it, when a start last took long
        self._reserve = DescriptorReserve()

    def fileno(self) -> int:
        """A descriptor that is readable when a worker has something to say."""
        return self._epoll.fileno()

    @property
    def size(self) -> int:
        """Workers that there should be."""
        return len(self._places)

    def pids(self) -> list[int]:
        """The processes that are there."""
        return [worker.pid for worker in self._everyone()]

    def send(self, worker: WorkerProcess, tasks: Tasks) -> None:
        """Give a worker tasks. One that died meanwhile does not take them; that it ended follows."""
        try:
            worker.channel.send(pack_message(tasks))
        except OSError as error:
            log.warning("worker %d does not take tasks: %s", worker.pid, error)

    def poll(self, now_s: float) -> list[Happening]:
        """Take in what workers said and how they ended, kill those that do not come up, start the missing."""
        self._reserve.refill()
        for fd, _ in self._epoll.poll(0):
            self._receive(self._by_fd[fd], now_s)
        for worker in list(self._dying):
            self._reap(worker, now_s)
        self._end_slow_starts(now_s)
        for place in [place for place in self._vacant if now_s >= place.start_at_s]:
            if len(self._starting) < _MOST_STARTING:
                self._spawn(place, now_s)
        happened, self._happened = self._happened, []
        return happened

    def next_timer_s(self, now_s: float) -> float:
        """When to call `poll` at the latest, whatever the descriptor says."""
        if self._happened:
            return now_s
        timers = [place.start_at_s for place in self._vacant if len(self._starting) < _MOST_STARTING]
        timers += [worker.since_s + START_S for worker in self._starting]
        timers += [now_s + (_REAP_EVERY_S if w.place.worker is w else _REAP_S) for w in self._dying]
        return min(timers, default=math.inf)

    def condemn(self, worker: WorkerProcess, because: str, now_s: float) -> None:
        """Kill it (a no-op where it is dead already) and wait, without blocking, for it to be reaped."""
        if worker.state in (WorkerState.DYING, WorkerState.GONE):
            return
        worker.process.kill()
        self._epoll.unregister(worker.channel.fileno())
        del self._by_fd[worker.channel.fileno()]
        self._starting.discard(worker)
        worker.killed_because = worker.killed_because or because
        worker.state, worker.since_s = WorkerState.DYING, now_s
        self._dying.append(worker)
        self._happened.append(Dying(worker))

    def close(self, *, grace_s: float = 1.0) -> None:
        """End all workers: at once if idle, by kill after `grace_s`. Blocks for at most that and 1 s. Idempotent."""
        workers = list(self._everyone())
        for worker in workers:
            worker.channel.close()
        for worker in _still_there(workers, within_s=grace_s):
            worker.process.kill()
        for worker in _still_there(workers, within_s=_REAP_S):
            log.warning("worker %d is killed but cannot go (a read that does not return)", worker.pid)
        self._places, self._vacant, self._dying, self._by_fd = [], [], [], {}
        self._starting.clear()
        self._reserve.close()
        self._epoll.close()
        if self._manifest >= 0:
            os.close(self._manifest)
        self._manifest = -1

    def _everyone(self) -> Iterator[WorkerProcess]:
        yield from (place.worker for place in self._places if place.worker is not None)
        yield from (worker for worker in self._dying if worker.place.worker is not worker)

    def _spawn(self, place: _Place, now_s: float) -> None:
        try:
            with self._reserve.lent():
                process, ours = self._start(place)
        except OSError as error:
            passes = error.errno in PASSING and bool(self.fingerprint)  # others were up: it can be done
            self._failed(place, f"cannot start a process: {error}", now_s=now_s, was_ready=passes)
            return
        worker = place.worker = WorkerProcess(place, process, ours, now_s)
        self._vacant.remove(place)
        self._starting.add(worker)
        self._by_fd[ours.fileno()] = worker

    def _start(self, place: _Place) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """A process and our end of its channel. Raises OSError, with nothing left, when it cannot be started."""
        options, part = self._options, self._options.buffer_pool.ranges.part(place.number)
        setup = Setup(
            options.root,
            options.index_folder,
            options.server,
            options.threads,
            options.read_s,
            place.worker_slot.cpus,
            options.buffer_pool.fd,
            part.offset,
            part.length_bytes,
            options.cancel_flags_fd,
            self._manifest,
            os.getpid(),
            options.started_s,
            options.costs.read_mib,
            options.costs.decode_mpx,
            options.follow_links,
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.enter_context(ours)
            ours.setblocking(False)
            self._epoll.register(ours.fileno(), select.EPOLLIN)  # closing it undoes that
            ours.send(pack_message(setup))  # before the process is there: it cannot be gone
            with interrupts.held():  # as of its first import it is not to end by them
                process = subprocess.Popen(
                    [*options.command, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(), options.buffer_pool.fd, options.cancel_flags_fd, self._manifest),
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # stdout is the front's own
                    process_group=0,  # Ctrl-C in a terminal is the front's to handle
                    env={**clean_environment(), "OPENBLAS_NUM_THREADS": "1"},
                )
            undo.pop_all()
        return process, ours

    def _receive(self, worker: WorkerProcess, now_s: float) -> None:
        try:
            for _ in range(_MESSAGES_A_TURN):
                datagram = worker.channel.recv(MAX_MESSAGE_BYTES)
                if not datagram:
                    break
                self._heard(worker, datagram, now_s)
                if worker.state is WorkerState.DYING:
                    return
            else:
                return  # one that never stops keeps nobody else from being heard
        except BlockingIOError:
            return
        except OSError as error:
            log.debug("worker %d: %s", worker.pid, error)
        self.condemn(worker, "", now_s)

    def _heard(self, worker: WorkerProcess, datagram: bytes, now_s: float) -> None:
        try:
            message = unpack_message(datagram)
        except ValueError as error:
            self.condemn(worker, f"it sent nonsense ({error})", now_s)
            return
        if isinstance(message, Done | Stuck):
            self._happened.append(Heard(worker, message))
        elif isinstance(message, NoStart):
            self._refused = worker.killed_because = message.reason
            if not self.fingerprint:
                self.hopeless = BadInput(message.reason)
        elif isinstance(message, Hello) and worker.state is WorkerState.STARTING and self._agrees(message):
            self.fingerprint, self.videos, self.dataset = message.fingerprint, message.videos, message.dataset
            self.hopeless = None
            worker.state, worker.was_ready, worker.since_s = WorkerState.READY, True, now_s
            self._starting.discard(worker)
            worker.place.restarts.came_up()
            slot = worker.place.worker_slot
            log.info("worker %d is up on CPUs %s of socket %d", worker.pid, slot.cpus, slot.socket)
            self._options.came_up(f"worker {worker.pid}", message.sandbox)
            self._happened.append(CameUp(worker))
        else:
            serves = f"{self.fingerprint} of data set {self.dataset or 'unknown'}"
            self.condemn(worker, f"it sent {_said(message)}, this server decodes with {serves}", now_s)

    def _agrees(self, hello: Hello) -> bool:
        """Whether a worker would give the bytes of those that were up before it."""
        first = not self.fingerprint
        return first or (hello.fingerprint, hello.dataset) == (self.fingerprint, self.dataset)

    def _reap(self, worker: WorkerProcess, now_s: float) -> None:
        code, place = worker.process.poll(), worker.place
        if place.worker is worker and (code is not None or now_s >= worker.since_s + _REAP_S):
            end = _describe_end(worker, code)
            self._happened.append(Ended(worker, end))
            place.worker = None
            place.zombies += 1
            self.zombies += 1
            self._failed(place, end, now_s=now_s, was_ready=worker.was_ready)
            if code is None and place.zombies >= ZOMBIES_A_SLOT:
                log.error("%d killed workers of one slot cannot go; none starts there before one does", place.zombies)
        if code is not None:
            worker.state = WorkerState.GONE
            worker.channel.close()
            self._dying.remove(worker)
            place.zombies -= 1
            self.zombies -= 1
            self._happened.append(Reaped(worker))
        self._look_for_vacancy(place)

    def _end_slow_starts(self, now_s: float) -> None:
        """Kill workers that do not come up. While a manifest is read, whoever reads it is at work and the others wait:
        none of them is slow.
        """
        late = [worker for worker in self._starting if now_s >= worker.since_s + START_S]
        if late and (filled_bytes := os.fstat(self._manifest).st_size) != self._filled_bytes:
            log.info("workers are not up yet: %d MB of the manifest are read", filled_bytes // 1_000_000)
            self._filled_bytes = filled_bytes
            for worker in late:
                worker.since_s = now_s
            return
        for worker in late:
            self.condemn(worker, f"it was not up after {START_S:g} s", now_s)

    def _look_for_vacancy(self, place: _Place) -> None:
        is_vacant = place.worker is None and place.zombies < ZOMBIES_A_SLOT
        if is_vacant != (place in self._vacant):
            (self._vacant.append if is_vacant else self._vacant.remove)(place)

    def _failed(self, place: _Place, end: str, *, now_s: float, was_ready: bool) -> None:
        place.start_at_s = place.restarts.died(now_s=now_s, was_ready=was_ready)
        self.restarts += 1
        tries = _LATER_TRIES if self.fingerprint else _FIRST_TRIES
        if self.hopeless is None and all(place.restarts.failed_starts >= tries for place in self._places):
            self.hopeless = FramefeedError(f"no worker can be started, {tries} tries each; the last: {end}")
        if self.hopeless is None:  # else the server ends, and says why
            log.warning("%s; the next starts in %.1f s", end, place.start_at_s - now_s)

    def __repr__(self) -> str:
        return (
            f"Supervisor({len(self._by_fd)} of {self.size} workers, {self.restarts} restarts, {self.zombies} zombies)"
        )


def _still_there(workers: list[WorkerProcess], *, within_s: float) -> list[WorkerProcess]:
    """Those whose processes have not ended after so long."""
    until_s = time.monotonic() + within_s
    there = []
    for worker in workers:
        try:
            worker.process.wait(timeout=max(until_s - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            there.append(worker)
    return there


def _describe_end(worker: WorkerProcess, code: int | None) -> str:
    who = f"worker {worker.pid}"
    if worker.killed_because:
        return f"{who} was stopped because {worker.killed_because}"
    return f"{who} {describe_end(code)}"


def _said(message: Message) -> str:
    """A message of a worker, for people."""
    if isinstance(message, Hello):
        return f"{show_value(message.fingerprint)} of data set {show_value(message.dataset)}"
    return show_value(message)
