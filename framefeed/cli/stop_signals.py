"""Stop signals: counts SIGTERM and SIGINT, and ends a wait by a descriptor or an exception. Knows not what stopping is.

The first asks a program to end in good order, the second to end at once.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

_STOPS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A stop was asked for during a wait; raised within `interruptible` only."""


class StopSignals:
    """Installed within a `with` of the main thread; the handlers there were before come back after it.

    `first_only`: they come back with the first signal already, and the second is theirs. Otherwise all are counted.
    """

    def __init__(self, *, first_only: bool = False) -> None:
        self.count = 0
        self.last = ""  # name of the last signal, "" before the first
        self._first_only = first_only
        self._waiting = False
        self._before = [(number, signal.getsignal(number)) for number in _STOPS]
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._wakeup_before = -1

    def fileno(self) -> int:
        """A descriptor that is readable once a signal came; read it off with `clear`. Within the `with` only."""
        if self._ends is None:
            self._ends = reader, writer = socket.socketpair()
            reader.setblocking(False)
            writer.setblocking(False)
            self._wakeup_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        return self._ends[0].fileno()

    def clear(self) -> None:
        """Make the descriptor unreadable until the next signal."""
        if self._ends is not None:
            with contextlib.suppress(BlockingIOError):
                while self._ends[0].recv(64):
                    pass

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it a stop raises Stopped wherever the thread is, so that a wait ends; outside it is counted only."""
        self._waiting = True
        try:
            if self.last:
                raise Stopped(self.last)
            yield
        finally:
            self._waiting = False

    def __enter__(self) -> StopSignals:
        for number in _STOPS:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._ends is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            for end in self._ends:
                end.close()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self._first_only:
            self._restore()
        self.count += 1
        self.last = signal.Signals(number).name
        if self._waiting:
            self._waiting = False
            raise Stopped(self.last)
