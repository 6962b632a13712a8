"""What a server refuses, counted by reason and told in the log. It decides nothing; any thread may call it.

A line a refusal, but not more than the log can bear: a hundred at once, ten a second on, and the next one says how
many had none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from framefeed.errors import WIRE_ERRORS, Permanent

log = logging.getLogger("framefeed.serve")

LINES_AT_ONCE, LINES_A_SECOND = 100, 10
# Of connections: no or a wrong token, a key that is not on the list, a failed handshake, another user of this host, one
# too many, no descriptor left, nonsense, clips held too long, a name of another client, more parts or bytes than any
# message has. Of requests: their code.
CONNECTION_REASONS = (
    "token", "key", "handshake", "user", "crowd", "descriptors", "nonsense", "lease", "identity", "flood",
)  # fmt: skip
REQUEST_REASONS = ("permanent", *(code for code, error in WIRE_ERRORS.items() if issubclass(error, Permanent)))


class Refusals:
    """The counter framefeed_server_refused_total{reason} and its log lines."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counter = Counter(
            "framefeed_server_refused_total", "Connections and requests refused, by reason.", ["reason"],
            registry=registry,
        )  # fmt: skip
        for reason in (*CONNECTION_REASONS, *REQUEST_REASONS):
            self._counter.labels(reason)
        self._clock = clock
        self._lock = threading.Lock()
        self._counted_s = clock()
        self._lines = float(LINES_AT_ONCE)  # that may still be written
        self._left_out = 0

    def refuse(self, reason: str, who: str, why: str, *, times: int = 1) -> None:
        """Count one and say so: who was refused (an address, a key, a client's name) and why, in one line.

        Of several for one reason at once, `times`, it is told of one.
        """
        self._counter.labels(reason).inc(times)
        with self._lock:
            now_s = self._clock()
            self._lines = min(self._lines + (now_s - self._counted_s) * LINES_A_SECOND, LINES_AT_ONCE)
            self._counted_s = now_s
            if self._lines < 1:
                self._left_out += times
                return
            self._lines -= 1
            left_out, self._left_out = self._left_out + times - 1, 0
        more = f" ({left_out} more before it are not listed)" if left_out else ""
        log.warning("refused %s (%s): %s%s", who, reason, " ".join(why.split()), more)
