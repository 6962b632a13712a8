"""What was read ahead and waits for a decode thread of this worker: first in, first out, bounded by tasks and bytes.

It knows no clips and reads nothing. Who finds no bytes left hands over what it has not read, and the decode thread
reads it; so nobody waits for bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

AHEAD_BYTES = 64 << 20
"""Of packets that are read ahead in one worker, from before they are read until they are decoded."""

T = TypeVar("T")


class HandOver(Generic[T]):
    """Between the threads that read and those that decode. Thread-safe."""

    def __init__(self, *, tasks: int, limit_bytes: int = AHEAD_BYTES) -> None:
        """`tasks` may wait before nobody should read further ones."""
        self._tasks, self._left_bytes = tasks, limit_bytes
        self._waiting: deque[T] = deque()
        self._lock = threading.Lock()
        self._room, self._more = threading.Condition(self._lock), threading.Condition(self._lock)

    def wait_for_room(self) -> None:
        """Block until fewer than `tasks` wait."""
        with self._lock:
            while len(self._waiting) >= self._tasks:
                self._room.wait()

    def reserve(self, most_bytes: int) -> int:
        """As many of these bytes as are left: they may be read ahead, until they are given back."""
        with self._lock:
            reserved = min(most_bytes, self._left_bytes)
            self._left_bytes -= reserved
        return reserved

    def give_back(self, reserved_bytes: int) -> None:
        """What was reserved is in memory no more."""
        with self._lock:
            self._left_bytes += reserved_bytes

    def put(self, task: T) -> None:
        """Hand a task over; never blocks, so up to one more a reader may wait than there should."""
        with self._lock:
            self._waiting.append(task)
            self._more.notify()

    def take(self) -> T:
        """The next task. Blocks while there is none."""
        with self._lock:
            while not self._waiting:
                self._more.wait()
            task = self._waiting.popleft()
            self._room.notify()
        return task

    def __repr__(self) -> str:
        return f"HandOver({len(self._waiting)} of {self._tasks} tasks wait, {self._left_bytes} bytes left)"
