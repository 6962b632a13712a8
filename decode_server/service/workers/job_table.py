"""Which worker has which jobs: who has room, whose time is up, what hangs. Pure bookkeeping of jobs and times.

It knows no processes: a worker is whatever its owner calls it. Every count is kept as it changes, for the front asks
for all of them at every turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from decode_server.service.admission import Job
from decode_server.service.range_allocator import Buffer
from decode_server.service.workers.read_depth import SPARE_TASKS, most_spare, most_stuck_readers

W = TypeVar("W")


@dataclass(slots=True, eq=False)
class Running:
    """A job that a worker has; `first` is the id of the first of those that one thread decodes together, `flag` what
    tells the worker that it is not wanted any more.
    """

    job: Job
    buffer: Buffer
    first: int
    flag: int
    answered: str = ""  # why its client has a reply though the worker may still be at it
    stuck_s: float | None = None  # since when its thread waits in a read


@dataclass(slots=True, eq=False)
class Held(Generic[W]):
    """What one worker has. `jobs_of` counts the jobs of each thread's task, `stuck` are the tasks whose reads hang, and
    whether they are read ahead.
    """

    worker: W
    ready: bool = True
    running: dict[int, Running] = field(default_factory=dict)
    jobs_of: dict[int, int] = field(default_factory=dict)
    stuck: dict[int, bool] = field(default_factory=dict)
    room: int = 0  # as counted in the table
    gone: bool = False  # it counts no more

    def __repr__(self) -> str:
        return f"Held({self.worker!r}, {len(self.running)} jobs of {len(self.jobs_of)} tasks, room {self.room})"


class JobTable(Generic[W]):
    """The jobs of all workers of `threads` threads each, beside those that read ahead.

    A worker is stuck, and gets no more, when all threads that decode wait in reads, or too many of those that read.
    """

    def __init__(self, *, threads: int) -> None:
        self.unanswered = 0  # jobs whose client has no reply yet
        self.ready = 0  # workers that can take tasks
        self.busy = 0  # workers that have one
        self.stuck_reads = 0  # threads that wait in a read that does not return
        self.room = 0  # how often `start` can be called
        self._threads, self._spare = threads, SPARE_TASKS
        self._most_stuck_readers = most_stuck_readers(threads)
        self._held: dict[W, Held[W]] = {}
        self._by_call: dict[tuple[bytes, int], Running] = {}
        self._by_room: list[dict[Held[W], None]] = [{} for _ in range(threads + most_spare(threads) + 1)]

    def allow(self, spare: int) -> None:
        """A worker may have so many tasks beyond its threads from now on: a look at each worker when that changes."""
        if spare != self._spare:
            self._spare = spare
            for held in self._held.values():
                self._place(held)

    def came_up(self, worker: W) -> None:
        """A worker can take tasks from now on."""
        held = self._held[worker] = Held(worker)
        self.ready += 1
        self._place(held)

    def stop(self, worker: W) -> None:
        """A worker takes no more tasks; what it has stays its own until `lost` and `release`."""
        held = self._held.get(worker)
        if held is not None and held.ready:
            self.ready -= self._usable(held)
            held.ready = False
            self._place(held)

    def roomiest(self) -> Iterator[W]:
        """The workers that have room, those with most first. Not to be used on once anything changed."""
        return (held.worker for some in reversed(self._by_room[1:]) for held in some)

    def start(self, worker: W, together: Sequence[tuple[Job, Buffer, int]]) -> None:
        """A worker, which has room, is to decode these jobs in one thread. A job comes with its buffer and its flag."""
        held = self._held[worker]
        assert held.room, f"worker pool: no room at {held}"
        first = together[0][0].id
        self.busy += not held.running
        for job, buffer, flag in together:
            running = held.running[job.id] = Running(job, buffer, first, flag)
            self._by_call[job.client, job.attempt] = running
        held.jobs_of[first] = len(together)
        self.unanswered += len(together)
        self._place(held)

    def done(self, worker: W, job_id: int) -> tuple[Running, str] | None:
        """A worker ended a job: the job, and why it had been answered before, if so. None if it had no such job."""
        held = self._held.get(worker)
        running = held.running.pop(job_id, None) if held is not None else None
        if held is None or running is None:
            return None
        before = running.answered
        if not before:
            self.answered(running, "done")
        held.jobs_of[running.first] -= 1
        if not held.jobs_of[running.first]:
            del held.jobs_of[running.first]
            self._unstick(held, running.first)
        self.busy -= not held.running
        self._place(held)
        return running, before

    def stuck(self, worker: W, first: int, now_s: float, *, ahead: bool) -> list[Running]:
        """The thread that has this task waits in a read, one that reads `ahead` or one that decodes: its jobs that were
        not known to.
        """
        held = self._held.get(worker)
        if held is None or first not in held.jobs_of or first in held.stuck:
            return []  # its end and this crossed
        hung = [running for running in held.running.values() if running.first == first]
        for running in hung:
            running.stuck_s = now_s
        was_usable = self._usable(held)
        held.stuck[first] = ahead
        self.stuck_reads += 1
        self.ready -= was_usable and not self._usable(held)
        self._place(held)
        return hung

    def all_stuck_s(self, worker: W) -> float | None:
        """Since when a worker is stuck; None if it is not."""
        held = self._held.get(worker)
        if held is None or not self._stuck(held):
            return None
        return max(running.stuck_s for running in held.running.values() if running.stuck_s is not None)

    def answered(self, running: Running, why: str) -> Job:
        """Its client gets a reply now."""
        assert not running.answered, f"worker pool: {running.job.what} is answered twice"
        running.answered = why
        self.unanswered -= 1
        call = running.job.client, running.job.attempt
        if self._by_call.get(call) is running:
            del self._by_call[call]
        return running.job

    def awaited(self, client: bytes, attempt: int) -> Running | None:
        """A client's job of this attempt that a worker has and that has no reply yet."""
        return self._by_call.get((client, attempt))

    def awaited_by(self, client: bytes) -> list[Running]:
        """All such jobs of a client: a look at each job, for when a client is gone."""
        return [running for (who, _), running in self._by_call.items() if who == client]

    def of(self, worker: W) -> list[Running]:
        """What a worker has."""
        held = self._held.get(worker)
        return list(held.running.values()) if held is not None else []

    def lost(self, worker: W) -> list[Running]:
        """A worker is gone and counts no more: its jobs without a reply. Its buffers are its own until `release`."""
        self.stop(worker)
        held = self._held.get(worker)
        if held is None or held.gone:
            return []
        held.gone = True
        self.busy -= bool(held.running)
        self.stuck_reads -= len(held.stuck)
        return [running for running in held.running.values() if not running.answered]

    def release(self, worker: W) -> list[Running]:
        """Forget a worker that is lost and can write no more; returns what it had."""
        held = self._held.pop(worker, None)
        if held is None:
            return []
        assert held.gone, f"worker pool: {held} is released and was not lost"
        del self._by_room[held.room][held]
        return list(held.running.values())

    def everything(self) -> Iterator[tuple[W, Running]]:
        """All jobs of all workers: a look at each, for when a timer is due."""
        for held in list(self._held.values()):
            for running in list(held.running.values()):
                yield held.worker, running

    def _usable(self, held: Held[W]) -> bool:
        return held.ready and not self._stuck(held)

    def _stuck(self, held: Held[W]) -> bool:
        ahead = sum(held.stuck.values())
        return len(held.stuck) - ahead >= self._threads or ahead >= self._most_stuck_readers

    def _unstick(self, held: Held[W], first: int) -> None:
        if first in held.stuck:
            was_usable = self._usable(held)
            del held.stuck[first]
            self.stuck_reads -= 1
            self.ready += self._usable(held) and not was_usable

    def _place(self, held: Held[W]) -> None:
        """Count its room anew: the threads that decode and do not wait in a read, and tasks beyond those; what waits in
        a read takes none.
        """
        self._by_room[held.room].pop(held, None)
        at_work = len(held.jobs_of) - len(held.stuck)
        decoding = self._threads - (len(held.stuck) - sum(held.stuck.values()))
        room = max(decoding + self._spare - at_work, 0) if self._usable(held) else 0
        self.room += room - held.room
        held.room = room
        self._by_room[room][held] = None

    def __repr__(self) -> str:
        return f"JobTable({self.ready} workers ready, {self.busy} busy, room {self.room}, {self.unanswered} jobs)"
