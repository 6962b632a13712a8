"""Stop signals of a training run: the first asks it to end in good order, the second ends it at once.

It does not know what ending takes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

_STOPS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A stop was asked for while the run waited; raised within `interruptible` only."""


class StopSignals:
    """Installed within a `with` of the main thread. After the first signal the handlers from before act again."""

    def __init__(self) -> None:
        self.name = ""
        self._waiting = False
        self._before = [(number, signal.getsignal(number)) for number in _STOPS]

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it a stop raises Stopped wherever the thread is, so that a wait ends; outside it sets `name` only."""
        self._waiting = True
        try:
            if self.name:
                raise Stopped(self.name)
            yield
        finally:
            self._waiting = False

    def __enter__(self) -> StopSignals:
        for number, _ in self._before:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._restore()
        self.name = signal.Signals(number).name
        if self._waiting:
            self._waiting = False
            raise Stopped(self.name)
