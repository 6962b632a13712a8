"""Tells the box of a front again and again when the front's loop last turned, from a thread beside the loop.

It knows neither; whoever hears nothing new for long may take the front for hung.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

_EVERY_S = 1.0


class FrontBeats:
    """Begins at once and ends at `close`, which is idempotent and blocks for a second at most."""

    def __init__(self, tell: Callable[[float], None], turned_s: Callable[[], float]) -> None:
        """`turned_s` is when the loop last turned, by the monotonic clock, and `tell` may drop what it is told."""
        self._tell, self._turned_s = tell, turned_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="front-beats", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Tell no more."""
        self._ended.set()
        self._thread.join(_EVERY_S)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._tell(self._turned_s())

    def __repr__(self) -> str:
        return f"FrontBeats({'ended' if self._ended.is_set() else 'goes on'})"
