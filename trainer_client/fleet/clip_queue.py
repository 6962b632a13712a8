"""The clips that are wanted: which of them wait for a server, which rest first, and which is the oldest.

Bookkeeping only: it knows tickets and times, no servers, and reads no clock. A clip that is in flight is in it too, but
neither waits nor rests.
"""

from __future__ import annotations

import heapq

from trainer_client.fleet.attempts import Wanted


class ClipQueue:
    """By ticket, the earliest wanted first."""

    def __init__(self) -> None:
        self.wanted: dict[int, Wanted] = {}  # in the order of tickets
        self._waiting: list[int] = []  # heap
        self._resting: list[tuple[float, int]] = []  # heap: (until, ticket)

    @property
    def idle(self) -> list[int]:
        """Tickets that no server is asked for now."""
        return [*self._waiting, *(ticket for _, ticket in self._resting)]

    @property
    def oldest(self) -> int:
        """The first ticket that has not ended; there must be one."""
        return next(iter(self.wanted))

    @property
    def next_s(self) -> float | None:
        """When the next rest is over; None if none rests."""
        return self._resting[0][0] if self._resting else None

    def add(self, wanted: Wanted) -> None:
        """A clip is wanted, and waits."""
        again = bool(self.wanted) and wanted.ticket < next(reversed(self.wanted))
        self.wanted[wanted.ticket] = wanted
        if again:
            self.wanted = dict(sorted(self.wanted.items()))
        self.wait(wanted)

    def wait(self, wanted: Wanted) -> None:
        """It waits for a server."""
        wanted.idle = True
        heapq.heappush(self._waiting, wanted.ticket)

    def rest(self, wanted: Wanted, *, until_s: float) -> None:
        """It waits from then on."""
        wanted.idle = True
        heapq.heappush(self._resting, (until_s, wanted.ticket))

    def wake(self, now_s: float) -> None:
        """Those wait whose rest is over."""
        while self._resting and self._resting[0][0] <= now_s:
            heapq.heappush(self._waiting, heapq.heappop(self._resting)[1])

    def first(self) -> Wanted | None:
        """The earliest that waits; it goes on waiting."""
        return self.wanted[self._waiting[0]] if self._waiting else None

    def take_first(self) -> None:
        """It waits no more."""
        self.wanted[heapq.heappop(self._waiting)].idle = False

    def end(self, wanted: Wanted) -> None:
        """Its ticket is over."""
        if wanted.idle:  # the late answer to a cancelled attempt came
            self._waiting = [ticket for ticket in self._waiting if ticket != wanted.ticket]
            self._resting = [entry for entry in self._resting if entry[1] != wanted.ticket]
            heapq.heapify(self._waiting)
            heapq.heapify(self._resting)
        wanted.done = True
        del self.wanted[wanted.ticket]

    def clear(self) -> None:
        """Nothing is wanted any more."""
        self.wanted.clear()
        self._waiting.clear()
        self._resting.clear()
