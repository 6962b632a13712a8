"""Servers' real policies (queue, run shares, credits) and clients that keep to their credits, on a clock of events.

What is left out is all that moves bytes: a decode is a duration, a message takes none.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from decode_server.service.admission import Admission, Job, Limits
from decode_server.service.credits import Credits
from decode_server.service.run_shares import RunShares
from framefeed.wire import WorkClass

REST_S = 0.01  # of a client, after a server was busy


class Clock:
    """Calls what is due, in order of time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, duration_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now_s + duration_s, next(self._numbers), call))

    def run(self, until_s: float) -> None:
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, call = heapq.heappop(self._due)
            call()
        self.now_s = until_s


@dataclass(kw_only=True)
class Client:
    """Wants `ahead` clips at once, for ever, from whichever server has given it room."""

    name: bytes
    clock: Clock
    servers: list[Server]
    ahead: int = 16
    run: str = ""
    work_class: WorkClass = "train"
    clip_s: Callable[[], float] = lambda: 0.02
    deadline_s: float = 60.0
    pause_s: float = 0.0  # between a clip and the next request for one
    got: int = 0
    waits_s: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    credits: dict[int, int] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)
    rests: dict[int, float] = field(default_factory=dict)

    def begin(self) -> None:
        for number, server in enumerate(self.servers):
            self.credits[number] = server.describe(self)
        self.ask()

    def ask(self) -> None:
        while self.asked.total() < self.ahead:
            room = [
                n for n in self.credits if self.asked[n] < self.credits[n] and self.rests.get(n, 0) <= self.clock.now_s
            ]
            if not room:
                return
            number = min(room, key=lambda n: (self.asked[n] / self.credits[n], n ^ hash(self.name)))
            self.asked[number] += 1
            self.servers[number].request(self, number)

    def replied(self, number: int, outcome: str, granted: int, waited_s: float) -> None:
        self.asked[number] -= 1
        self.credits[number] = granted
        self.outcomes[outcome] += 1
        if outcome == "busy":
            self.rests[number] = self.clock.now_s + REST_S
            self.clock.after(REST_S, self.ask)
            return
        self.got += outcome == "clip"
        self.waits_s.append(waited_s)
        self.clock.after(self.pause_s, self.ask)


class Asks(Protocol):
    """What a server needs of who asks it; `replied` is told the number that came with the request."""

    @property
    def name(self) -> bytes: ...

    @property
    def run(self) -> str: ...

    @property
    def work_class(self) -> WorkClass: ...

    @property
    def deadline_s(self) -> float: ...

    @property
    def clip_s(self) -> Callable[[], float]: ...

    def replied(self, number: int, outcome: str, granted: int, waited_s: float) -> None: ...


class Server:
    """So many threads behind the queue."""

    def __init__(self, clock: Clock, *, threads: int, queue: int = 256, shares: dict[str, float] | None = None) -> None:
        self.shares = RunShares(shares or {})
        self.admission = Admission(Limits(requests=queue), self.shares)
        self.credits = Credits(self.shares.weight, queue=queue)
        self.busy_s: Counter[str] = Counter()
        self.threads = threads
        self._clock = clock
        self._working = 0
        self._numbers = itertools.count()
        self._of: dict[int, tuple[Asks, int, float]] = {}

    def describe(self, client: Asks) -> int:
        self.credits.seen(client.name, client.run, self._clock.now_s)
        return self.granted(client)

    def granted(self, client: Asks) -> int:
        return self.credits.granted(client.name, self._clock.now_s, slots=self.threads)

    def request(self, client: Asks, number: int) -> None:
        now_s, id = self._clock.now_s, next(self._numbers)
        job = Job(
            id=id,
            client=client.name,
            attempt=number,
            what="a clip",
            header=b"",
            clip_bytes=1,
            received_s=now_s,
            due_s=now_s + client.deadline_s,
            frames=id,
            run=client.run,
            work_class=client.work_class,
        )
        self._of[id] = client, number, client.clip_s()
        self.credits.asked(client.name, client.run, now_s)
        refused = self.admission.offer(job, now_s=now_s)
        if refused is not None:
            self.credits.replied(refused[0].client)
            self._clock.after(0.0, lambda: self._reply(refused[0], refused[1].code))
        self._dispatch()

    def cancel(self, client: Asks, number: int) -> None:
        """It is not decoded if it still waits; else it comes, late."""
        job = self.admission.cancel(client.name, number)
        if job is not None:
            self.credits.replied(job.client)
            self._reply(job, "cancelled")

    def _dispatch(self) -> None:
        for late in self.admission.expire(now_s=self._clock.now_s):
            self.credits.replied(late.client)
            self._reply(late, "deadline_exceeded")
        while self._working < self.threads:
            job = self.admission.first(blocked=lambda _: False)
            if job is None:
                return
            self.admission.take(job)
            self._working += 1
            self._clock.after(self._of[job.id][2], lambda job=job: self._ended(job))  # type: ignore[misc]

    def _ended(self, job: Job) -> None:
        took_s = self._of[job.id][2]
        self._working -= 1
        self.busy_s[job.run] += took_s
        self.admission.ended(job, took_s)
        self.credits.decoded(took_s, 1)
        self.credits.replied(job.client)
        self._reply(job, "clip" if self._clock.now_s <= job.due_s else "deadline_exceeded")
        self._dispatch()

    def _reply(self, job: Job, outcome: str) -> None:
        client, number, _ = self._of.pop(job.id)
        client.replied(number, outcome, self.granted(client), self._clock.now_s - job.received_s)


def around(mean_s: float, rng: random.Random) -> Callable[[], float]:
    """Durations as decodes have them: half to one and a half of the mean."""
    return lambda: rng.uniform(0.5, 1.5) * mean_s
