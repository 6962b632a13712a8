"""Stop signals: counts SIGTERM and SIGINT and makes a descriptor readable. It does not know what stopping means."""

from __future__ import annotations

import contextlib
import signal
import socket
from types import FrameType, TracebackType

_STOPS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Installed within a `with` of the main thread; the handlers there were before come back after it."""

    def __init__(self) -> None:
        self.count = 0
        self.last = ""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """A descriptor that is readable once a signal came; read it off with `clear`."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Make the descriptor unreadable until the next signal."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(64):
                pass

    def __enter__(self) -> StopSignals:
        self._before = [(number, signal.signal(number, self._count)) for number in _STOPS]
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before:
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def _count(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.last = signal.Signals(number).name
