"""Files that are read again when they change: keys, tokens, certificates, lists. Knows neither their use nor contents.

It looks when it is asked, at most once a second, so nobody waits for it and no thread watches. What cannot be used is
said once, and what was read before stays in use.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from framefeed.errors import BadInput

T = TypeVar("T")

_log = logging.getLogger(__name__)

LOOK_S = 1.0  # between two looks at the files


class Reread(Generic[T]):
    """What some files say, as of at most a second ago: call it. Any thread may."""

    def __init__(
        self, read: Callable[[], T], files: Sequence[Path], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads them once. Raises BadInput as `read` does."""
        self._read, self._files, self._clock = read, tuple(files), clock
        self._lock = threading.Lock()
        self._state = self._look()
        self._value = read()
        self._looked_s = clock()

    def __call__(self) -> T:
        """The newest that could be used. Blocks for a stat of each file, once a second, and a read after a change."""
        with self._lock:
            now_s = self._clock()
            if self._files and now_s >= self._looked_s + LOOK_S:
                self._looked_s = now_s
                self._refresh()
            return self._value

    def _refresh(self) -> None:
        state = self._look()
        if state == self._state:
            return
        self._state = state
        try:
            self._value = self._read()
        except BadInput as error:
            _log.warning("%s; what was read before stays in use", error)
        else:
            _log.info("%s changed and was read again", ", ".join(map(str, self._files)))

    def _look(self) -> list[tuple[int, ...]]:
        """What tells a file from what it was; nothing for one that is not there."""
        states: list[tuple[int, ...]] = []
        for path in self._files:
            try:
                found = os.stat(path)
            except OSError:
                states.append(())
            else:
                states.append((found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode))
        return states
