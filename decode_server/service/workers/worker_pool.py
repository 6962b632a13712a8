"""The workers as the front sees them: jobs go in, and what became of them comes out as events.

It brings together the processes and the table of who has which job, and knows neither clients nor replies. A process
that was killed may still write to its buffers until it is reaped, so only then are they given back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from decode_server.service.admission import Job
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.range_allocator import Buffer
from decode_server.service.workers.cancel_flags import CancelFlags
from decode_server.service.workers.job_table import JobTable, Running
from decode_server.service.workers.read_depth import ReadDepth
from decode_server.service.workers.supervisor import CameUp, Dying, Ended, Happening, Heard, Supervisor, WorkerProcess
from decode_server.service.workers.worker_events import Event, Finished, Hung, Lost, Released, TimedOut
from decode_server.service.workers.worker_messages import Done, Stuck, Task, Tasks
from framefeed.errors import FramefeedError
from framefeed.wire import attempt_of_unsealed

log = logging.getLogger("framefeed.serve")

_MOST_CROSSED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """A worker of `threads` counts as hung `hang_s` after a decode's deadline, or after it was found to be stuck in
    reads.
    """

    threads: int
    hang_s: float


class WorkerPool:
    """Poll its `fileno()`, then call `poll`, at the latest at `next_timer_s`. It closes supervisor and flags."""

    def __init__(self, supervisor: Supervisor, buffer_pool: BufferPool, flags: CancelFlags, limits: PoolLimits) -> None:
        self._supervisor, self._buffer_pool = supervisor, buffer_pool
        self._at: dict[int, WorkerProcess] = {}  # who takes tasks, by the part of the buffer pool
        self._flags = flags
        self._limits = limits
        self._table: JobTable[WorkerProcess] = JobTable(threads=limits.threads)
        self._depth = ReadDepth(threads=limits.threads)
        self._next_due_s = math.inf  # a lower bound of the running jobs' timers

    def fileno(self) -> int:
        """A descriptor that is readable when a worker has something to say."""
        return self._supervisor.fileno()

    @property
    def fingerprint(self) -> str:
        """Of all workers, "" before one is ready."""
        return self._supervisor.fingerprint

    @property
    def videos(self) -> int:
        """How many videos they have, 0 before one is ready."""
        return self._supervisor.videos

    @property
    def dataset(self) -> str:
        """Identity of the data set that they serve, "" before one is ready."""
        return self._supervisor.dataset

    @property
    def ready(self) -> int:
        """Workers that can take tasks."""
        return self._table.ready

    @property
    def busy(self) -> int:
        """Workers that have a task."""
        return self._table.busy

    @property
    def unanswered(self) -> int:
        """Jobs that workers have and whose client has no reply yet."""
        return self._table.unanswered

    @property
    def stuck_reads(self) -> int:
        """Threads of workers that wait in a read that does not return."""
        return self._table.stuck_reads

    @property
    def zombies(self) -> int:
        """Killed workers that cannot go."""
        return self._supervisor.zombies

    @property
    def restarts(self) -> int:
        """Workers that ended too early, so far."""
        return self._supervisor.restarts

    @property
    def size(self) -> int:
        """Workers that there should be."""
        return self._supervisor.size

    @property
    def capacity(self) -> int:
        """Clips that are decoded at a time when all workers are up."""
        return self._supervisor.size * self._limits.threads

    def pids(self) -> list[int]:
        """The processes of all workers."""
        return self._supervisor.pids()

    @property
    def room(self) -> int:
        """How often `start` can be called now."""
        return self._table.room

    def parts_with_room(self) -> Iterator[int]:
        """Those parts of the buffer pool whose workers have room, the least loaded worker's first."""
        return (worker.part for worker in self._table.roomiest())

    def start(self, together: Sequence[tuple[Job, Buffer]], *, part: int) -> None:
        """Have the worker of a part, which has room, decode jobs together into buffers of its part. A worker that died
        meanwhile loses them later.
        """
        worker = self._at[part]
        flagged = [(job, buffer, self._flags.take()) for job, buffer in together]
        self._table.start(worker, flagged)
        self._next_due_s = min(self._next_due_s, *(job.due_s for job, _ in together))
        start = self._buffer_pool.ranges.part(part).offset
        tasks = [Task(j.id, b.offset - start, j.clip_bytes, j.received_s, flag, j.header) for j, b, flag in flagged]
        self._supervisor.send(worker, Tasks(tuple(tasks)))

    def cancel(self, client: bytes, attempt: int) -> Job | None:
        """A client does not want its job of this attempt: it counts as answered, and its worker soon stops decoding it.

        None if no worker has it, or it was answered before.
        """
        running = self._table.awaited(client, attempt)
        return self._give_up(running, "cancelled") if running is not None else None

    def forget(self, client: bytes) -> list[Job]:
        """A client is gone: as `cancel`, for all that it had here."""
        return [self._give_up(running, "client_gone") for running in self._table.awaited_by(client)]

    def poll(self, now_s: float) -> list[Event]:
        """Take in what workers said and how they ended, time out jobs, kill the hung, start the missing."""
        events: list[Event] = []
        for happening in self._supervisor.poll(now_s):
            self._take_in(happening, now_s, events)
        if now_s >= self._next_due_s:
            self._check_times(now_s, events)
        return events

    def next_timer_s(self, now_s: float) -> float:
        """When to call `poll` at the latest, whatever the descriptor says."""
        return min(self._next_due_s, self._supervisor.next_timer_s(now_s))

    def hopeless(self) -> FramefeedError | None:
        """The error to end the server with, once no worker can be started."""
        return self._supervisor.hopeless

    def abandon(self) -> list[Job]:
        """Count all running jobs as answered and return them: the drain is over."""
        running = [running for _, running in self._table.everything() if not running.answered]
        return [self._table.answered(one, "late") for one in running]

    def close(self) -> None:
        """End all workers; see Supervisor.close."""
        self._supervisor.close()
        self._flags.close()

    def _give_up(self, running: Running, why: str) -> Job:
        self._flags.set(running.flag)
        return self._table.answered(running, why)

    def _take_in(self, happening: Happening, now_s: float, events: list[Event]) -> None:
        worker = happening.worker
        match happening:
            case CameUp():
                self._table.came_up(worker)
                self._at[worker.part] = worker
            case Heard(_, Done() as done):
                ended = self._table.done(worker, done.id)
                if ended is None:
                    self._supervisor.condemn(worker, f"it ended job {done.id}, which it was not given", now_s)
                    return
                running, before = ended
                self._flags.give_back(running.flag)
                if attempt_of_unsealed(done.reply) != running.job.attempt:
                    self._supervisor.condemn(worker, f"it answered job {done.id} with a reply to another", now_s)
                    if not before:
                        events.append(Lost(running.job, f"worker {worker.pid} answered another job with it"))
                    events.append(Released(running.job, running.buffer))
                    return
                self._learn(done)
                events.append(Finished(running.job, running.buffer, done, worker.socket_number, before))
            case Heard(_, Stuck() as stuck):
                self._read_hangs(worker, stuck, now_s, events)
            case Dying():
                self._table.stop(worker)
            case Ended(_, reason):
                for running in self._table.lost(worker):
                    lost = self._table.answered(running, "lost")
                    events.append(Lost(lost, f"{reason} while decoding {running.job.what}"))
            case _:
                for running in self._table.release(worker):
                    self._flags.give_back(running.flag)
                    events.append(Released(running.job, running.buffer))
                self._buffer_pool.worker_ended(worker.part)

    def _learn(self, done: Done) -> None:
        """How far ahead workers should read."""
        if done.outcome == "clip":
            storage_s = sum(took_s for _, took_s in done.effort.reads_s)
            self._depth.took(storage_s, done.stage_s.get("decode", 0.0) + done.stage_s.get("scale", 0.0))
            self._table.allow(self._depth.spare)

    def _read_hangs(self, worker: WorkerProcess, message: Stuck, now_s: float, events: list[Event]) -> None:
        hung = self._table.stuck(worker, message.id, now_s, ahead=message.ahead)
        if not hung:  # its end and this crossed, which is rare
            worker.crossed += 1
            if worker.crossed > _MOST_CROSSED:
                self._supervisor.condemn(
                    worker, "it tells again and again of reads of jobs that it does not have", now_s
                )
            return
        for running in hung:
            before = running.answered
            job = running.job if before else self._give_up(running, "hung")
            events.append(Hung(job, f"{job.what}: {message.reason}", bool(before)))
        log.warning("worker %d: %s", worker.pid, message.reason)
        if self._table.all_stuck_s(worker) is not None:
            log.warning("worker %d: all its threads that decode, or too many that read, are stuck in reads", worker.pid)
            self._next_due_s = min(self._next_due_s, now_s + self._limits.hang_s)
            behind = [r for r in self._table.of(worker) if not r.answered]  # no thread is left that could begin them
            for running in behind:
                lost = self._give_up(running, "hung")
                events.append(Lost(lost, f"{lost.what}: its worker is stuck in reads"))

    def _check_times(self, now_s: float, events: list[Event]) -> None:
        """Answer jobs past their deadline; kill workers that hang on one long past it, or in reads."""
        self._next_due_s = math.inf
        for worker, running in self._table.everything():
            if not running.answered and now_s >= running.job.due_s:
                events.append(TimedOut(self._give_up(running, "late")))
            if not running.answered:
                self._next_due_s = min(self._next_due_s, running.job.due_s)
            elif running.stuck_s is None:
                because = f"{running.job.what} was past its deadline for"
                self._kill_when_hung(worker, running.job.due_s, now_s, because)
            elif (stuck_s := self._table.all_stuck_s(worker)) is not None:
                self._kill_when_hung(worker, stuck_s, now_s, "its threads were stuck in reads for")

    def _kill_when_hung(self, worker: WorkerProcess, since_s: float, now_s: float, because: str) -> None:
        hung_s = since_s + self._limits.hang_s
        if now_s >= hung_s:
            self._supervisor.condemn(worker, f"{because} {now_s - since_s:.1f} s", now_s)
        else:
            self._next_due_s = min(self._next_due_s, hung_s)

    def __repr__(self) -> str:
        return f"WorkerPool({self.ready} of {self.size} ready, {self.busy} busy, {self.unanswered} jobs)"
