"""Ends a gateway that holds more memory than its clients' work explains, and for more than a moment.

It knows no transport. gRPC's core keeps what it read of a header block that has no end for tens of seconds, and its
allocator for longer: a new process is there sooner.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from decode_server.service.listeners.gateway.memory_watch import MemoryWatch

log = logging.getLogger("framefeed.gateway")

LOOK_S = 0.25
_FREE_BYTES = 48 << 20  # that need no explanation
_CONNECTION_BYTES, _STREAM_BYTES = 1 << 16, 1 << 18
_COPIES = 2  # of a reply on its way: the message, and gRPC's of it
_TRIM_BYTES, _TRIM_S, _HELD_S = 32 << 20, 2.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a gateway has to do at a time."""

    streams: int
    sending_bytes: int


class MemoryVerdict:
    """Whether memory is to be given back, and whether it was too much for too long. Pure; times are the caller's."""

    def __init__(self) -> None:
        self._over_since_s: float | None = None
        self._trim_s = 0.0

    def trims(self, grown_bytes: int, now_s: float) -> bool:
        """Whether to give back what is free."""
        if grown_bytes <= _TRIM_BYTES or now_s < self._trim_s:
            return False
        self._trim_s = now_s + _TRIM_S
        return True

    def condemns(self, grown_bytes: int, work: Work, connections: int, now_s: float) -> bool:
        """Whether so much more than at the start, for this work and so many connections, has lasted 5 s."""
        explained = connections * _CONNECTION_BYTES + work.streams * _STREAM_BYTES + work.sending_bytes * _COPIES
        if grown_bytes <= _FREE_BYTES + explained:
            self._over_since_s = None
            return False
        if self._over_since_s is None:
            self._over_since_s = now_s
        return now_s >= self._over_since_s + _HELD_S


class MemoryGuard:
    """Looks when it is told to. Made before a sandbox forbids to open what it reads."""

    def __init__(self, watch: MemoryWatch) -> None:
        self._watch, self._verdict = watch, MemoryVerdict()
        self._descriptors = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def look(self, work: Work, *, now_s: float, end: Callable[[str], None]) -> None:
        """Give memory back, or call `end` with why the process has to end."""
        grown_bytes = self._watch.grown_bytes()
        if self._verdict.trims(grown_bytes, now_s):
            self._watch.give_back()
            grown_bytes = self._watch.grown_bytes()
        connections = len(os.listdir(self._descriptors))
        if self._verdict.condemns(grown_bytes, work, connections, now_s):
            end(f"{grown_bytes >> 20} MiB are held for {connections} connections with {work.streams} streams")
