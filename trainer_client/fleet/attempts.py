"""Attempts in flight and the clips that they are for: who was asked what, until when, and whose reply would be late.

Bookkeeping only: it decides nothing about servers and reads no clock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from framefeed.request import ClipRequest
from framefeed.wire import ClipReply
from trainer_client.fleet.poison_detection import PoisonDetection

_REMEMBERED = 4096  # attempts given up whose late reply is still told from a duplicate


class Stage(Enum):
    """How far the patience with an attempt has gone."""

    ASKED = "asked"
    OVERDUE = "overdue"  # longer than its deadline: another server may be asked as well; does its own still live?
    SLOW = "slow"  # its server lives, so it may take its full time
    CANCELLED = "cancelled"  # not wanted any more, or not from there; only the last word on it is awaited


@dataclass(slots=True, eq=False)
class Attempt:
    """One request at one server; a hedge if the clip was in flight.

    It is looked at again at `look_s`, for its `stage` may end then; that began at `since_s`. Its full time is up at
    `give_up_s`. `outcome` is what a cancelled one counts as.
    """

    number: int
    url: str
    wanted: Wanted
    sent_s: float
    look_s: float
    give_up_s: float
    hedge: bool = False
    stage: Stage = Stage.ASKED
    since_s: float = 0.0
    outcome: str = ""
    unheard_s: float = 0.0  # of its time, in which nobody listened

    def took_s(self, now_s: float) -> float:
        """How long it is under way, as far as its server is concerned."""
        return now_s - self.sent_s - self.unheard_s

    def enter(self, stage: Stage, *, now_s: float, look_s: float) -> None:
        """Go on to a stage; it is looked at again then (the owner of the times is told: Attempts.look_at)."""
        self.stage, self.since_s, self.look_s = stage, now_s, look_s


@dataclass(slots=True, eq=False)
class Wanted:
    """A clip that is wanted: what failed so far, and the attempts that are open.

    `clip_bytes` are its pixels', `key` is the part of a video that it lies in; `idle` while it waits or rests; `done`
    once its ticket ended, though attempts may still be in flight; `owed_hedge` once an attempt was overdue or lost: a
    second one may then be made beyond the budget; `alone` once a try failed, since what a server decodes together falls
    together.
    """

    ticket: int
    request: ClipRequest
    clip_bytes: int
    key: int
    wanted_s: float
    rounds: int = 0
    owed_hedge: bool = False
    idle: bool = False
    done: bool = False
    open: list[Attempt] = field(default_factory=list)
    avoid: set[str] = field(default_factory=set)
    poison: PoisonDetection = field(default_factory=PoisonDetection)
    alone: bool = False
    trouble: str = "not asked yet"

    @property
    def asked(self) -> list[str]:
        """The servers that it is awaited from."""
        return [attempt.url for attempt in self.open if attempt.stage is not Stage.CANCELLED]

    def is_whole(self, reply: ClipReply, *, pixel_bytes: int) -> bool:
        """Whether an answer has its bytes and its frames."""
        return pixel_bytes == self.clip_bytes and len(reply.info.pts_s) == self.request.sampling.frames

    def __str__(self) -> str:
        return f"{self.request.video} [{self.request.start_s:g}, {self.request.end_s:g}) s"


class Attempts:
    """The open attempts by number, the times at which something is due, and the numbers given up."""

    def __init__(self) -> None:
        self._open: dict[int, Attempt] = {}
        self._next = 1
        self._looks: list[tuple[float, int]] = []  # heaps; entries of ended attempts, and outdated ones, are skipped
        self._hedges: list[tuple[float, int]] = []
        self._abandoned: OrderedDict[int, float] = OrderedDict()  # number: when it was sent

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._open.values()))

    def number(self) -> int:
        """A number that no message of this feed had."""
        self._next += 1
        return self._next - 1

    def was_given(self, number: int) -> bool:
        """Whether some message of this feed had this number."""
        return 0 < number < self._next

    def add(self, attempt: Attempt, *, hedge_at_s: float | None) -> None:
        """It is in flight; `hedge_at_s` is when another server may be asked as well."""
        self._open[attempt.number] = attempt
        attempt.wanted.open.append(attempt)
        self.look_at(attempt)
        if hedge_at_s is not None:
            self.hedge_at(attempt, hedge_at_s)

    def look_at(self, attempt: Attempt) -> None:
        """Return it from due() at its `look_s`, which may be another than before."""
        heapq.heappush(self._looks, (attempt.look_s, attempt.number))

    def hedge_at(self, attempt: Attempt, at_s: float) -> None:
        """Look at it then: another server may be asked as well."""
        heapq.heappush(self._hedges, (at_s, attempt.number))

    def postpone(self, by_s: float) -> None:
        """All times that are to come move by so much: nobody listened meanwhile."""
        for attempt in self._open.values():
            attempt.look_s += by_s
            attempt.give_up_s += by_s
            attempt.unheard_s += by_s
        self._looks = [(attempt.look_s, number) for number, attempt in self._open.items()]
        heapq.heapify(self._looks)
        self._hedges = [(at_s + by_s, number) for at_s, number in self._hedges]

    def remove(self, attempt: Attempt) -> None:
        """It ended."""
        del self._open[attempt.number]
        attempt.wanted.open.remove(attempt)

    def abandon(self, attempt: Attempt) -> None:
        """Its reply, should it still come, is late."""
        self._abandoned[attempt.number] = attempt.sent_s
        if len(self._abandoned) > _REMEMBERED:
            self._abandoned.popitem(last=False)

    def late(self, number: int) -> float | None:
        """When the abandoned attempt of a reply was sent, once; None if it is none."""
        return self._abandoned.pop(number, None)

    def of(self, url: str, number: int) -> Attempt | None:
        """The open attempt with this number at this server."""
        found = self._open.get(number)
        return found if found is not None and found.url == url else None

    def numbered(self, number: int) -> Attempt | None:
        """The open attempt with this number."""
        return self._open.get(number)

    def due(self, now_s: float) -> Iterator[Attempt]:
        """Those to look at now; the caller ends each, or has it looked at later, before it asks for the next."""
        while self._live_looks() and self._looks[0][0] <= now_s:
            yield self._open[heapq.heappop(self._looks)[1]]

    def to_hedge(self, now_s: float) -> list[Attempt]:
        """Those whose clip may be asked of another server as well; each is returned once, unless hedge_at() again."""
        ready = []
        while self._live_hedges() and self._hedges[0][0] <= now_s:
            ready.append(self._open[heapq.heappop(self._hedges)[1]])
        return ready

    def next_s(self) -> float | None:
        """When due() or to_hedge() next has something; None if never."""
        heads = [self._looks[0][0]] if self._live_looks() else []
        heads += [self._hedges[0][0]] if self._live_hedges() else []
        return min(heads, default=None)

    def _live_looks(self) -> bool:
        while self._looks:
            at_s, number = self._looks[0]
            attempt = self._open.get(number)
            if attempt is not None and attempt.look_s == at_s:
                return True
            heapq.heappop(self._looks)
        return False

    def _live_hedges(self) -> bool:
        while self._hedges and self._hedges[0][1] not in self._open:
            heapq.heappop(self._hedges)
        return bool(self._hedges)
