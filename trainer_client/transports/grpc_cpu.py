"""The CPU that gRPC's threads use in this process: those of its core and of its Python side. Knows no connections.

gRPC starts threads of its own and shares them among all its channels, so this is one number for a process.
"""

from __future__ import annotations

import contextlib
import threading
import time

from trainer_client.transports.thread_cpu import thread_cpu_s, threads_named

_LOOK_S = 0.5  # what lies in /proc is read at most that often
_CORE = "event_engine"  # how the threads of gRPC's core call themselves
_PYTHON = ("(_run)", "framefeed-grpc")  # grpc's spin and request threads; the links' own


class GrpcCpu:
    """A running sum. One thread asks."""

    def __init__(self) -> None:
        self._spent_s: dict[int, float] = {}
        self._looked_s = 0.0

    def spent_s(self) -> float:
        """CPU seconds so far of all such threads, those that have ended since included; half a second old at most."""
        now_s = time.monotonic()
        if now_s >= self._looked_s + _LOOK_S:
            self._looked_s = now_s
            for thread_id in _threads():
                with contextlib.suppress(OSError):  # it has ended
                    self._spent_s[thread_id] = thread_cpu_s(thread_id)
        return sum(self._spent_s.values())


def _threads() -> list[int]:
    named = [t.native_id for t in threading.enumerate() if any(word in t.name for word in _PYTHON)]
    return [thread_id for thread_id in named if thread_id is not None] + threads_named(_CORE)
