"""How far a long verb is: a bar on a terminal, elsewhere a line every half minute, for logs. It knows no work."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from framefeed.show_value import show_bytes

LINE_EVERY_S = 30.0


class WorkProgress:
    """Tells on `console`, if there is one, how many of `total` inputs are done and how much of `total_bytes`, where
    that is known, is read. `with` shows the span.
    """

    def __init__(
        self,
        what: str,
        *,
        total: int,
        total_bytes: int = 0,
        console: Console | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._total_bytes = what, total, total_bytes
        self._console, self._clock = console, clock
        self._done = self._bytes = 0
        self._began_s = self._line_s = clock()
        terminal = console is not None and console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not terminal, transient=True)
        self._task = self._bar.add_task(self._text(), total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def one_done(self) -> None:
        """One more input is done."""
        self._done += 1
        self.read(self._bytes)

    def read(self, done_bytes: int) -> None:
        """So many bytes of all are read; called as often as one likes."""
        self._bytes = done_bytes
        self._bar.update(self._task, completed=self._share(), description=self._text())
        now_s = self._clock()
        if self._console is not None and not self._console.is_terminal and now_s - self._line_s >= LINE_EVERY_S:
            self._line_s = now_s
            self._console.print(f"{self._text()}{self._left(now_s)}", highlight=False, soft_wrap=True)

    def _share(self) -> float:
        done, total = (self._bytes, self._total_bytes) if self._total_bytes else (self._done, self._total)
        return min(done / max(total, 1), 1.0)

    def _text(self) -> str:
        read = f", {show_bytes(self._bytes)} of {show_bytes(self._total_bytes)}" if self._total_bytes else ""
        return f"{self._what} {self._done} of {self._total} files{read}"

    def _left(self, now_s: float) -> str:
        share = self._share()
        return f", about {(now_s - self._began_s) * (1 - share) / share / 60:.0f} min left" if share > 0 else ""
