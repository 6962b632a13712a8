"""How many requests each client may have at a server at once. Pure: events and times in, numbers out.

What a server can have in work and, for a short time, in its queue is shared out by demand: who asks for little gets
what it asks for, and the others the rest in equal parts, by the weights of their runs (max-min fairness). Clients that
keep to it are hardly ever refused, and none gets its clips at another's cost, however their steps fall.
Source: Bertsekas and Gallager 1992, "Data Networks", 6.5.2 (max-min flow control).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from decode_server.service.fair_share import shares_of

QUEUE_S = 0.75  # of decoding that may wait for the threads
LATELY_S = 2.0  # what a client had at once in this time, or the one before, is its demand
_RECKON_S = 0.05
_GROWTH = 1.1  # of clients or of what there is to share, after which it is shared out anew at once
_CLIP_WEIGHT = 0.05  # of the newest clip in the moving average


@dataclass(slots=True)
class _Client:
    weight: float
    period: int
    asked: int = 0  # requests not yet replied to
    peak: float = math.inf  # of `asked` in this period; one that is new may want anything
    peak_before: float = math.inf

    def turn(self, period: int) -> None:
        """Note that another period has begun."""
        if period > self.period:
            self.peak_before = self.peak if period == self.period + 1 else self.asked
            self.peak, self.period = self.asked, period

    @property
    def demand(self) -> float:
        """Requests that it may want at once: one more than it had, so that it can grow."""
        return max(self.peak, self.peak_before) + 1


class Credits:
    """The clients of one server that asked lately. `weight` is the share of a run; its clients have equal
    parts of that, but those of one principal together no more than a node's ranks.
    """

    def __init__(self, weight: Callable[[str], float], *, queue: int) -> None:
        """`queue` is the most requests that wait beside the first one of each client."""
        self.clip_s = 0.0  # how long a thread lately took for a clip, and how large that was
        self.clip_bytes = 0.0
        self._weight = weight
        self._queue = queue
        self._clients: dict[bytes, _Client] = {}
        self._in_run: dict[bytes, tuple[str, str]] = {}  # run and principal of each client
        self._runs: dict[str, Counter[str]] = {}  # clients of each principal, by run
        self._level = 1.0  # requests for a weight of 1
        self._level_s = -math.inf
        self._level_of = (0, 0)  # clients and requests that it was reckoned for

    def seen(self, client: bytes, run: str, now_s: float, *, principal: str = "") -> None:
        """A client is there, of this principal."""
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(1.0, _period(now_s))
        if self._in_run.get(client) != (run, principal):
            self._leave_run(client)
            self._in_run[client] = run, principal
            self._runs.setdefault(run, Counter())[principal] += 1
        known.turn(_period(now_s))

    def asked(self, client: bytes, run: str, now_s: float, *, principal: str = "") -> None:
        """A client has one more request here."""
        self.seen(client, run, now_s, principal=principal)
        known = self._clients[client]
        known.asked += 1
        if math.isfinite(known.peak):
            known.peak = max(known.peak, known.asked)

    def replied(self, client: bytes) -> None:
        """A client has one less."""
        known = self._clients.get(client)
        if known is not None and known.asked:
            known.asked -= 1

    def gone(self, client: bytes) -> None:
        """A client is not there any more."""
        if self._clients.pop(client, None) is not None:
            self._leave_run(client)

    def decoded(self, took_s: float, clip_bytes: int) -> None:
        """A clip of so many bytes took a thread so long."""
        weight = _CLIP_WEIGHT if self.clip_s else 1.0
        self.clip_s += weight * (took_s - self.clip_s)
        self.clip_bytes += weight * (clip_bytes - self.clip_bytes)

    def total(self, slots: int) -> int:
        """Requests that all may have at once while so many are decoded at a time."""
        waiting = math.floor(QUEUE_S * slots / self.clip_s) if self.clip_s else slots
        return slots + min(max(waiting, 1), self._queue)

    def granted(self, client: bytes, now_s: float, *, slots: int) -> int:
        """Requests that a client may have here at once: at least 1."""
        total = self.total(slots)
        clients_before, total_before = self._level_of
        grew = len(self._clients) > clients_before * _GROWTH or total_before > total * _GROWTH
        if grew or now_s >= self._level_s + _RECKON_S:
            self._reckon(total, now_s)
        known = self._clients.get(client)
        return max(math.ceil(self._level * (known.weight if known is not None else 1.0) - 1e-9), 1)

    def _reckon(self, total: int, now_s: float) -> None:
        """Find the level at which what all want and may have fills the total."""
        period = _period(now_s)
        shares = {run: sum(map(shares_of, principals.values())) for run, principals in self._runs.items()}
        for client, known in list(self._clients.items()):
            known.turn(period)
            if not known.asked and not known.peak and not known.peak_before:
                self.gone(client)
            else:
                run, principal = self._in_run[client]
                clients = self._runs[run][principal]
                known.weight = self._weight(run) * shares_of(clients) / clients / shares[run]
        heaviest = max((known.weight for known in self._clients.values()), default=1.0)
        weights = [(known.demand, known.weight / heaviest) for known in self._clients.values()]
        for known in self._clients.values():
            known.weight /= heaviest
        self._level = _water_level(weights, total)
        self._level_s, self._level_of = now_s, (len(self._clients), total)

    def _leave_run(self, client: bytes) -> None:
        run, principal = self._in_run.pop(client, (None, ""))
        if run is not None:
            self._runs[run][principal] -= 1
            if not self._runs[run][principal]:
                del self._runs[run][principal]
            if not self._runs[run]:
                del self._runs[run]

    def __repr__(self) -> str:
        return f"Credits({len(self._clients)} clients, level {self._level:.2f}, a clip takes {self.clip_s:.4f} s)"


def _period(now_s: float) -> int:
    return int(now_s // LATELY_S)


def _water_level(weights: list[tuple[float, float]], total: int) -> float:
    """The level at which sum(min(demand, level * weight)) is the total; the total itself if all want less."""
    left, weight_left = float(total), sum(weight for _, weight in weights)
    for demand, weight in sorted(weights, key=lambda one: one[0] / one[1]):
        if demand * weight_left >= left * weight:
            return left / weight_left
        left -= demand
        weight_left -= weight
    return float(total)
