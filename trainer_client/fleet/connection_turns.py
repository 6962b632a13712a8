"""Connection turns: who has a connection when there are not enough descriptors for all servers. Pure: no clock, no I/O.

Servers that are there keep theirs; of the others each has its turn, and gives its connection back when nothing came of
it. It knows neither sockets nor why there is no room.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection

from trainer_client.fleet.membership import Change

_TURN_S, _TURN_MAX_S = 0.5, 8.0  # a turn in vain; each further one of the same server is twice as long
_REST_S, _REST_MAX_S = 0.5, 8.0  # between two tries while there is no room, doubling


class ConnectionTurns:
    """The connections of one feed. Times are of one monotonic clock that the caller reads."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}  # of connections: when made, or when the server was last seen to be there
        self._waiting: dict[str, None] = {}
        self._in_vain: Counter[str] = Counter()  # turns
        self._short_s: float | None = None  # since when there is not room for all
        self._again_s = -math.inf
        self._rest_s = _REST_S

    @property
    def connected(self) -> Collection[str]:
        """Who has a connection, whether or not the server is there."""
        return self._since_s.keys()

    @property
    def waiting(self) -> Collection[str]:
        """Who is wanted and has none."""
        return self._waiting.keys()

    def had_turns(self, url: str) -> bool:
        """Whether a server had a connection before, in vain."""
        return bool(self._in_vain[url])

    def decide(self, wanted: Collection[str], *, there: Collection[str], now_s: float) -> Change:
        """Whom to connect to, the first that is refused ending it, after those were cut that left or gave up.

        `there` are the servers whose connections stand.
        """
        for url in there:
            if url in self._since_s:
                self._since_s[url] = now_s
                del self._in_vain[url]
        left = [url for url in self._since_s if url not in wanted]
        for url in left:
            del self._since_s[url]
        self._waiting = dict.fromkeys([url for url in self._waiting if url in wanted])
        self._waiting |= dict.fromkeys(url for url in wanted if url not in self._since_s)
        self._in_vain = Counter({url: turns for url, turns in self._in_vain.items() if url in wanted})
        given_up = self._given_up(now_s) if self._short_s is not None else []
        if not self._waiting:
            self._short_s = None
        next_ones = [url for url in self._waiting if url not in given_up] if given_up or now_s >= self._again_s else []
        return Change(joined=tuple(sorted(next_ones, key=self._in_vain.__getitem__)), left=(*left, *given_up))

    def made(self, url: str, now_s: float) -> None:
        """A server has a connection now."""
        del self._waiting[url]
        self._since_s[url] = now_s
        self._rest_s = _REST_S

    def refused(self, now_s: float) -> None:
        """There was no room for a further one."""
        if self._short_s is None:
            self._short_s = now_s
        self._again_s = now_s + self._rest_s
        self._rest_s = min(2 * self._rest_s, _REST_MAX_S)

    def none_for_s(self, now_s: float) -> float:
        """Seconds in which there was no room for a single one."""
        return now_s - self._short_s if self._short_s is not None and not self._since_s else 0.0

    def _given_up(self, now_s: float) -> list[str]:
        """Those whose turn is over, as many as others wait."""
        over = [url for url, since_s in self._since_s.items() if now_s - since_s >= self._turn_s(url)]
        given_up = over[: len(self._waiting)]
        for url in given_up:
            del self._since_s[url]
            self._in_vain[url] += 1
            self._waiting[url] = None  # behind all that wait
        return given_up

    def _turn_s(self, url: str) -> float:
        return min(_TURN_S * 2.0 ** min(self._in_vain[url], 30), _TURN_MAX_S)
