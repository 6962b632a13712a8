"""What a server refuses, counted by reason and told in the log. It decides nothing; any thread may call it.

A line a refusal, but not more than the log can bear: a hundred at once, ten a second on, of one principal twenty and
two, and the next one says how many had none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from framefeed.errors import WIRE_ERRORS, Permanent
from framefeed.show_value import one_line

log = logging.getLogger("framefeed.serve")

LINES_AT_ONCE, LINES_A_SECOND = 100, 10
LINES_OF_ONE_AT_ONCE, LINES_OF_ONE_A_SECOND = 20, 2
PRINCIPALS = 256  # whose lines are counted apart; of who was refused longest ago nothing is known any more
# Of connections: no or a wrong token, a key that is not on the list, a failed handshake, another user of this host, one
# too many, no descriptor left, nonsense, clips held too long, a name of another client, more parts or bytes than any
# message has, a bug here that a message found; of the HTTP port, one without a page in its time. Of requests: their
# code; and those that lost their place in the queue to another principal's.
CONNECTION_REASONS = (
    "token", "key", "handshake", "user", "crowd", "descriptors", "nonsense", "lease", "identity", "flood", "internal",
    "http",
)  # fmt: skip
QUEUE_REASON = "queue_share"
REQUEST_REASONS = ("permanent", *(code for code, error in WIRE_ERRORS.items() if issubclass(error, Permanent)))


class _LineBudget:
    """A token bucket."""

    def __init__(self, at_once: int, a_second: float, now_s: float) -> None:
        self._at_once, self._a_second = at_once, a_second
        self._left, self._counted_s = float(at_once), now_s

    def has_one(self, now_s: float) -> bool:
        self._left = min(self._left + (now_s - self._counted_s) * self._a_second, self._at_once)
        self._counted_s = now_s
        return self._left >= 1

    def take(self) -> None:
        self._left -= 1


class Refusals:
    """The counter framefeed_server_refused_total{reason} and its log lines."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counter = Counter(
            "framefeed_server_refused_total", "Connections and requests refused, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        for reason in (*CONNECTION_REASONS, *REQUEST_REASONS, QUEUE_REASON):
            self._counter.labels(reason)
        self._clock = clock
        self._lock = threading.Lock()
        self._lines = _LineBudget(LINES_AT_ONCE, LINES_A_SECOND, clock())
        self._lines_of: OrderedDict[str, _LineBudget] = OrderedDict()
        self._left_out = 0

    def refuse(self, reason: str, who: str, why: str, *, times: int = 1, principal: str = "") -> None:
        """Count one and say so: who was refused (an address, a key, a client's name) and why, in one line.

        Of several for one reason at once, `times`, it is told of one. `principal` is whom its line is charged to, so
        that the others' are still written.
        """
        self._counter.labels(reason).inc(times)
        with self._lock:
            if not self._may_say(principal, self._clock()):
                self._left_out += times
                return
            left_out, self._left_out = self._left_out + times - 1, 0
        more = f" ({left_out} more before it are not listed)" if left_out else ""
        log.warning("refused %s (%s): %s%s", one_line(who), reason, one_line(" ".join(why.split())), more)

    def _may_say(self, principal: str, now_s: float) -> bool:
        budgets = [self._lines]
        if principal:
            own = self._lines_of.pop(principal, None)
            own = own or _LineBudget(LINES_OF_ONE_AT_ONCE, LINES_OF_ONE_A_SECOND, now_s)
            self._lines_of[principal] = own
            if len(self._lines_of) > PRINCIPALS:
                self._lines_of.popitem(last=False)
            budgets.append(own)
        if not min(budget.has_one(now_s) for budget in budgets):
            return False
        for budget in budgets:
            budget.take()
        return True
