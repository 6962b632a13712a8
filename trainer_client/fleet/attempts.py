"""Attempts in flight and the clips that they are for: who was asked what, until when, and whose reply would be late.

Bookkeeping only: it decides nothing about servers and reads no clock.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from framefeed.request import ClipRequest
from trainer_client.fleet.poison_detection import PoisonDetection

_REMEMBERED = 4096  # attempts given up whose late reply is still told from a duplicate


@dataclass(slots=True, eq=False)
class Wanted:
    """A clip that is wanted: what failed so far, and the servers it is asked of.

    `key` is the part of a video that it lies in; `done` once its ticket ended, though attempts may still be in flight;
    `owed_hedges` are those that it may cost beyond the budget: one for each attempt that got no answer; `alone` once a
    try failed, since what a server decodes together falls together.
    """

    ticket: int
    request: ClipRequest
    key: int
    wanted_s: float
    rounds: int = 0
    owed_hedges: int = 0
    done: bool = False
    asked: list[str] = field(default_factory=list)
    avoid: set[str] = field(default_factory=set)
    poison: PoisonDetection = field(default_factory=PoisonDetection)
    alone: bool = False
    trouble: str = "not asked yet"

    def __str__(self) -> str:
        return f"{self.request.video} [{self.request.start_s:g}, {self.request.end_s:g}) s"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """One request at one server, whose last word is awaited until `give_up_s`; a hedge if the clip was in flight."""

    number: int
    url: str
    wanted: Wanted
    sent_s: float
    give_up_s: float
    hedge: bool = False


class Attempts:
    """The open attempts by number, the times at which something is due, and the numbers given up."""

    def __init__(self) -> None:
        self._open: dict[int, Attempt] = {}
        self._next = 1
        self._give_up: list[tuple[float, int]] = []  # heaps; entries of ended attempts are skipped
        self._hedge: list[tuple[float, int]] = []
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
        attempt.wanted.asked.append(attempt.url)
        heapq.heappush(self._give_up, (attempt.give_up_s, attempt.number))
        if hedge_at_s is not None:
            self.hedge_at(attempt, hedge_at_s)

    def hedge_at(self, attempt: Attempt, at_s: float) -> None:
        """Look at it then: another server may be asked as well."""
        heapq.heappush(self._hedge, (at_s, attempt.number))

    def remove(self, attempt: Attempt) -> None:
        """It ended."""
        del self._open[attempt.number]
        attempt.wanted.asked.remove(attempt.url)

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

    def overdue(self, now_s: float) -> Iterator[Attempt]:
        """Those whose time is up; the caller ends each before it asks for the next."""
        return self._due(self._give_up, now_s)

    def to_hedge(self, now_s: float) -> list[Attempt]:
        """Those whose clip may be asked of another server as well; each is returned once, unless hedge_at() again."""
        return list(self._due(self._hedge, now_s))

    def next_s(self) -> float | None:
        """When overdue() or to_hedge() next has something; None if never."""
        return min((heap[0][0] for heap in (self._give_up, self._hedge) if self._live(heap)), default=None)

    def _due(self, heap: list[tuple[float, int]], now_s: float) -> Iterator[Attempt]:
        while self._live(heap) and heap[0][0] <= now_s:
            yield self._open[heapq.heappop(heap)[1]]

    def _live(self, heap: list[tuple[float, int]]) -> bool:
        while heap and heap[0][1] not in self._open:
            heapq.heappop(heap)
        return bool(heap)
