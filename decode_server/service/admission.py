"""Admission: which requests may wait, for how long, and which is next. A pure state machine of jobs and times.

It refuses at once rather than let a request wait in vain. It knows neither sockets nor workers nor the buffer pool.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from framefeed.errors import BadInput, Busy, DeadlineExceeded, Draining, FramefeedError

TOGETHER = 8  # jobs at most that one thread decodes together
_LOOK_AHEAD = 4 * TOGETHER  # jobs of a client that may be overtaken by one that is decoded together with its first
_LONG_HEADER_BYTES = 4096  # the tasks of TOGETHER jobs with shorter ones are one message to a worker
MAX_DEADLINE_S = 600.0  # nothing waits for ever, whatever a client asks for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """A valid decode request in this server; times are on this machine's monotonic clock.

    `what` names it for people; `header` is the call as it came, which workers read again. Jobs with equal `frames` may
    be decoded together, except those that are to be `alone`.
    """

    id: int
    client: bytes
    attempt: int
    what: str
    header: bytes
    clip_bytes: int
    received_s: float
    due_s: float
    frames: object
    alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many requests may wait, and for how many bytes of clips."""

    requests: int
    clip_bytes: int

    def __post_init__(self) -> None:
        if self.requests < 1 or self.clip_bytes < 1:
            raise BadInput(f"admission: limits are {self.requests} requests, {self.clip_bytes} bytes; wanted >= 1")


class Admission:
    """The queue: first come, first served for each client, and clients in turn, so none starves another.

    A job may come earlier, and with another in one turn, if its frames are decoded for that one anyway.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self.queued_bytes = 0
        self._queued = 0
        self._clients: OrderedDict[bytes, deque[Job]] = OrderedDict()  # the client whose turn it is comes first
        self._next_due_s = math.inf  # a lower bound: exact after each expire

    def __len__(self) -> int:
        return self._queued

    @property
    def full(self) -> bool:
        """Whether the queue is at its limit of requests."""
        return self._queued >= self.limits.requests

    @property
    def next_due_s(self) -> float:
        """No queued request expires before this time."""
        return self._next_due_s

    def offer(self, job: Job, *, now_s: float) -> FramefeedError | None:
        """Queue the job, or say why not."""
        if self.draining:
            return Draining("server is draining; try another")
        if job.due_s <= now_s:
            return DeadlineExceeded(f"{job.what} came with no time left")
        if self.full:
            return Busy(f"queue is full with {self._queued} requests; try another server, or later")
        if self._queued and self.queued_bytes + job.clip_bytes > self.limits.clip_bytes:
            return Busy(f"queue is full with {self.queued_bytes} bytes of clips; try another server, or later")
        self._clients.setdefault(job.client, deque()).append(job)
        self._queued += 1
        self.queued_bytes += job.clip_bytes
        self._next_due_s = min(self._next_due_s, job.due_s)
        return None

    def first(self, *, blocked: Callable[[Job], bool]) -> Job | None:
        """The job to start next, still queued: the oldest of the client whose turn it is.

        A client whose oldest is `blocked` has clips that it does not read, and gets no more decoded until it does.
        """
        return next((jobs[0] for jobs in self._clients.values() if not blocked(jobs[0])), None)

    def companions(self, job: Job) -> list[Job]:
        """Other queued jobs of its client to decode together with it, oldest first, at most TOGETHER - 1."""
        if job.alone:
            return []
        near = islice(self._clients[job.client], _LOOK_AHEAD)
        others = (other for other in near if other is not job and other.frames == job.frames)
        fit = (other for other in others if not other.alone and len(other.header) <= _LONG_HEADER_BYTES)
        return list(islice(fit, TOGETHER - 1))

    def take(self, job: Job) -> None:
        """Remove a queued job: it starts now, and its client goes to the end of the line."""
        self._clients[job.client].remove(job)
        self._removed(job)
        self._clients.move_to_end(job.client)
        if not self._clients[job.client]:
            del self._clients[job.client]

    def expire(self, *, now_s: float) -> list[Job]:
        """Remove and return the jobs whose time is up."""
        if now_s < self._next_due_s:
            return []
        return self._remove([job for jobs in self._clients.values() for job in jobs if job.due_s <= now_s])

    def forget(self, client: bytes) -> list[Job]:
        """Remove and return the jobs of a client that is gone."""
        return self._remove(list(self._clients.get(client, ())))

    def clear(self) -> list[Job]:
        """Remove and return all jobs."""
        return self._remove([job for jobs in self._clients.values() for job in jobs])

    def _remove(self, gone: list[Job]) -> list[Job]:
        for job in gone:
            self._clients[job.client].remove(job)
            self._removed(job)
            if not self._clients[job.client]:
                del self._clients[job.client]
        self._next_due_s = min((job.due_s for jobs in self._clients.values() for job in jobs), default=math.inf)
        return gone

    def _removed(self, job: Job) -> None:
        self._queued -= 1
        self.queued_bytes -= job.clip_bytes

    def __repr__(self) -> str:
        return f"Admission({self._queued} of {self.limits.requests} requests, {self.queued_bytes} bytes)"
