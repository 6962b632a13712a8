"""Admission: which requests may wait, for how long, and which is next. A pure state machine of jobs and times.

It refuses at once rather than let a request wait in vain. It knows neither sockets nor workers nor the buffer pool.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from msgspec import Struct

from decode_server.service.fair_share import shares_of
from decode_server.service.run_shares import RunShares
from framefeed.errors import BadInput, Busy, DeadlineExceeded, Draining, FramefeedError
from framefeed.wire import WorkClass

TOGETHER = 8  # jobs at most that one thread decodes together
_LOOK_AHEAD = 4 * TOGETHER  # jobs of a client that may be overtaken by one that is decoded together with its first
_LONG_HEADER_BYTES = 4096  # the tasks of TOGETHER jobs with shorter ones are one message to a worker
FIRST_PLACES = 256  # of one principal's clients, beside the limit: more of them share the common places
RUNS_OF_PRINCIPAL = 8  # names of runs, each with a share of its own, that one principal may use at a time
EVALS_IN_A_ROW = 16  # of one run, while training of it waits

_Key = TypeVar("_Key", bytes, str)


class Job(Struct, frozen=True, kw_only=True, eq=False):  # a dataclass takes ten times as long to make
    """A valid decode request in this server; times are on this machine's monotonic clock.

    `what` names it for people; `header` is the call as it came, which workers read again. Jobs with equal `frames` may
    be decoded together, except those that are to be `alone`. `front_s` is how long it waited for the front.
    `principal` is whose connection its client is: of one there may be many.
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
    run: str = ""
    work_class: WorkClass = "train"
    front_s: float = 0.0
    principal: str = ""


class _Clients(OrderedDict[bytes, deque[Job]]):
    """Those of one principal in a line, the one whose turn it is first, and how many turns it had in a row."""

    turns = 0


_Line = OrderedDict[str, _Clients]  # by principal; the one whose turn it is comes first
_NOBODY = _Clients()


@dataclass(slots=True)
class _Asker:
    """A principal with queued requests: how many each of its clients has, and how many its jobs of each run."""

    queued: int = 0
    by_client: dict[bytes, int] = field(default_factory=dict)
    by_run: dict[str, int] = field(default_factory=dict)

    @property
    def load(self) -> float:
        """Requests for each of its shares."""
        return self.queued / shares_of(len(self.by_client))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many requests may wait beside the first one of each client."""

    requests: int

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise BadInput(f"admission: the limit is {self.requests} requests, wanted at least 1")


class Admission:
    """The queue. Runs share the decoding time, in each run evaluation goes before training, and principals take turns,
    one for each of their clients but no more than a node's ranks have, as do the clients of each.

    Evaluation is short and somebody waits for it, so it has the bounded priority: after EVALS_IN_A_ROW of a run its
    training has a turn. Each client has a place for one request (FIRST_PLACES of a principal's), and may have all the
    others while nobody else wants them: in a full queue the newest of whichever principal has most for its
    shares, and there of the client that has most, makes room for who has fewer (push-out; Thareja and Agrawala 1984).
    So many connections of one principal get what a node would where others wait, and all that there is where none does.
    A job may come earlier, and with another in one turn, if its frames are decoded for that one anyway.
    """

    def __init__(self, limits: Limits, shares: RunShares) -> None:
        self.limits = limits
        self.draining = False
        self.full = False  # whether it had to refuse one since a job last left it
        self._shares = shares
        self._queued = 0
        self._askers: dict[str, _Asker] = {}
        self._of_client: dict[bytes, str] = {}  # the principal of each client with queued requests
        self._first_places = 0  # taken
        self._lines: dict[tuple[str, WorkClass], _Line] = {}
        self._evals_in_a_row: dict[str, int] = {}
        self._next_due_s = math.inf  # a lower bound: exact after each expire

    def __len__(self) -> int:
        return self._queued

    @property
    def next_due_s(self) -> float:
        """No queued request expires before this time."""
        return self._next_due_s

    def shares(self, principal: str) -> int:
        """How many shares a principal has beside others that wait as well; 0 if none do."""
        asker = self._askers.get(principal)
        return shares_of(len(asker.by_client)) if asker is not None and len(self._askers) > 1 else 0

    def run_name(self, run: str, principal: str = "") -> str:
        """What a run is called here, for a Job: its own name, or "" once there are too many, or too many of this
        principal's: who thinks of many names gets no more for it.
        """
        asker = self._askers.get(principal)
        if asker is not None and run not in asker.by_run and len(asker.by_run) >= RUNS_OF_PRINCIPAL:
            return ""
        return self._shares.name(run)

    def offer(self, job: Job, *, now_s: float) -> tuple[Job, FramefeedError] | None:
        """Queue the job. Returns the one that finds no place, this or another that had one, and why."""
        if self.draining:
            return job, Draining("server is draining; try another")
        if job.due_s <= now_s:
            return job, DeadlineExceeded(f"{job.what} came with no time left")
        asker = self._askers.get(job.principal) or _Asker()
        has_first = job.client not in asker.by_client and len(asker.by_client) < FIRST_PLACES
        pushed_out = None
        if not has_first and self._queued - self._first_places >= self.limits.requests:
            self.full = True
            refused = self._make_room(job)
            theirs = self._askers[refused.principal].queued
            busy = Busy(f"{theirs} of the {self._queued} requests that wait are yours; try another server, or later")
            if refused is job:
                return job, busy
            self._give_up([refused])
            pushed_out = refused, busy
        self._line_up(job)
        self._shares.waits(job.run)
        self._queued += 1
        self._count(job, 1)
        self._next_due_s = min(self._next_due_s, job.due_s)
        self.full = pushed_out is not None
        return pushed_out

    def _line_up(self, job: Job) -> None:
        key = job.run, job.work_class
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = OrderedDict()
        clients = line.get(job.principal)
        if clients is None:
            clients = line[job.principal] = _Clients()
        jobs = clients.get(job.client)
        if jobs is None:
            jobs = clients[job.client] = deque()
        jobs.append(job)

    def first(self, *, blocked: Callable[[Job], bool]) -> Job | None:
        """The job to start next, still queued: the oldest of the client whose turn it is.

        A client whose oldest is `blocked` has clips that it does not read, and gets no more decoded until it does.
        """
        for run in self._shares.in_turn():
            for line in self._lines_of(run):
                for clients in line.values():
                    for jobs in clients.values():
                        if not blocked(jobs[0]):
                            return jobs[0]
        return None

    def companions(self, job: Job) -> list[Job]:
        """Other queued jobs of its client to decode together with it, oldest first, at most TOGETHER - 1."""
        if job.alone:
            return []
        near = islice(self._lines[job.run, job.work_class][job.principal][job.client], _LOOK_AHEAD)
        others = (other for other in near if other is not job and other.frames == job.frames)
        fit = (other for other in others if not other.alone and len(other.header) <= _LONG_HEADER_BYTES)
        return list(islice(fit, TOGETHER - 1))

    def take(self, job: Job) -> None:
        """Remove a queued job: it starts now, and its principal goes to the end of the line after its turns, its client
        to the end of that one's. `ended` must follow.
        """
        line = self._lines[job.run, job.work_class]
        clients = line[job.principal]
        clients.move_to_end(job.client)
        clients.turns += 1
        if clients.turns >= shares_of(len(clients)):
            clients.turns = 0
            line.move_to_end(job.principal)
        self._remove(job)
        self._shares.begins(job.run, job.id)
        passed_over = job.work_class == "eval" and (job.run, "train") in self._lines
        self._evals_in_a_row[job.run] = self._evals_in_a_row.get(job.run, 0) + 1 if passed_over else 0
        if not self._evals_in_a_row[job.run]:
            del self._evals_in_a_row[job.run]

    def ended(self, job: Job, took_s: float | None) -> None:
        """A job that was taken is being decoded no more: what it took of a thread's time, None if nobody knows."""
        self._shares.ended(job.id, took_s)

    def expire(self, *, now_s: float) -> list[Job]:
        """Remove and return the jobs whose time is up."""
        if now_s < self._next_due_s:
            return []
        late = self._give_up([job for job in self._jobs() if job.due_s <= now_s])
        self._next_due_s = min((job.due_s for job in self._jobs()), default=math.inf)
        return late

    def cancel(self, client: bytes, attempt: int) -> Job | None:
        """Remove and return a client's job of this attempt; None if none is queued."""
        jobs = self._jobs_of(client)
        found = next((job for job in jobs if job.attempt == attempt), None)
        return self._give_up([found])[0] if found is not None else None

    def forget(self, client: bytes) -> list[Job]:
        """Remove and return the jobs of a client that is gone."""
        return self._give_up(self._jobs_of(client))

    def clear(self) -> list[Job]:
        """Remove and return all jobs."""
        return self._give_up(list(self._jobs()))

    def _make_room(self, job: Job) -> Job:
        """Which job is to have no place: the newest of the client that has most of the principal that would have most;
        among one principal's, the clients are even.
        """
        asker = self._askers.get(job.principal) or _Asker()
        most = max(self._askers.values(), key=lambda one: one.load)
        clients = len(asker.by_client) + (job.client not in asker.by_client)
        if most.load <= (asker.queued + 1) / shares_of(clients):
            most = asker
        client = max(most.by_client, key=lambda one: most.by_client[one], default=job.client)
        if most is asker and asker.by_client.get(client, 0) <= asker.by_client.get(job.client, 0) + 1:
            return job
        return max(self._jobs_of(client), key=lambda queued: queued.id)

    def _lines_of(self, run: str) -> list[_Line]:
        """Those of a run that wait, the one whose turn it is first."""
        evals, trains = self._lines.get((run, "eval")), self._lines.get((run, "train"))
        lines = [trains, evals] if self._evals_in_a_row.get(run, 0) >= EVALS_IN_A_ROW else [evals, trains]
        return [line for line in lines if line]

    def _jobs(self) -> Iterator[Job]:
        lines = self._lines.values()
        return (job for line in lines for clients in line.values() for jobs in clients.values() for job in jobs)

    def _jobs_of(self, client: bytes) -> list[Job]:
        principal = self._of_client.get(client)
        if principal is None:
            return []
        return [job for line in self._lines.values() for job in line.get(principal, _NOBODY).get(client, ())]

    def _give_up(self, gone: list[Job]) -> list[Job]:
        for job in gone:
            self._remove(job)
            self._shares.waits_no_more(job.run)
        return gone

    def _remove(self, job: Job) -> None:
        """Take it out of its line; nothing empty is kept."""
        key = job.run, job.work_class
        line = self._lines[key]
        clients = line[job.principal]
        clients[job.client].remove(job)
        if not clients[job.client]:
            del clients[job.client]
        if not clients:
            del line[job.principal]
        if not line:
            del self._lines[key]
        self._count(job, -1)
        self._queued -= 1
        self.full = False

    def _count(self, job: Job, change: int) -> None:
        """One more or less of a job's principal, client and run; what has none is not kept."""
        asker = self._askers.get(job.principal)
        if asker is None:
            asker = self._askers[job.principal] = _Asker()
        before = len(asker.by_client)
        asker.queued += change
        _add(asker.by_client, job.client, change)
        _add(asker.by_run, job.run, change)
        if len(asker.by_client) > before:
            self._of_client[job.client] = job.principal
            self._first_places += before < FIRST_PLACES
        elif len(asker.by_client) < before:
            del self._of_client[job.client]
            self._first_places -= before <= FIRST_PLACES
        if not asker.queued:
            del self._askers[job.principal]

    def __repr__(self) -> str:
        return f"Admission({self._queued} requests of {len(self._of_client)} clients, limit {self.limits.requests})"


def _add(counts: dict[_Key, int], key: _Key, change: int) -> None:
    count = counts.get(key, 0) + change
    if count:
        counts[key] = count
    else:
        del counts[key]
