"""Files that are read again when they change: keys, tokens, certificates, lists. Knows neither their use nor contents.

It looks when it is asked, at most once a second, in a thread of its own: storage that hangs holds nobody up. What
cannot be used is said once, and what was read before stays in use.
"""

from __future__ import annotations

import contextlib
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
FIRST_S = 5.0  # for the first, without which there is nothing to use
_PATIENCE_S = 0.1  # for a later one, so that a change on storage that answers is used at once


class Reread(Generic[T]):
    """What some files say, as of at most a second ago: call it. Any thread may."""

    def __init__(
        self, read: Callable[[], T], files: Sequence[Path], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads them once. Raises BadInput as `read` does, or if that takes more than FIRST_S."""
        self._read, self._files, self._clock = read, tuple(files), clock
        self._lock = threading.Lock()
        self._state: list[tuple[int, ...]] = []
        self._trouble: tuple[list[tuple[int, ...]], str] = [], ""  # that was said
        self._looked_s = clock()
        self._value: T
        self._look: threading.Thread | None = None  # the one under way
        self._hangs = False  # and that was said
        failed: list[Exception] = []
        first = self._start(self._read_first, failed)
        first.join(FIRST_S)
        if first.is_alive():
            raise BadInput(f"{self._names()} cannot be read: nothing came for {FIRST_S:g} s")
        if failed:
            raise failed[0]

    def __call__(self) -> T:
        """The newest that could be used. Blocks for a tenth of a second, and that once while storage hangs."""
        with self._lock:
            now_s = self._clock()
            if self._look is not None and self._look.is_alive():
                if not self._hangs and now_s >= self._looked_s + FIRST_S:
                    self._hangs = True
                    _log.warning("%s cannot be read: it hangs; what was read before stays in use", self._names())
            elif self._files and now_s >= self._looked_s + LOOK_S:
                self._looked_s, self._hangs = now_s, False
                with contextlib.suppress(RuntimeError):  # no thread can be had now: at the next look
                    self._look = self._start(self._refresh)
                    self._look.join(_PATIENCE_S)
            return self._value

    def _start(self, look: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=look, args=arguments, name="framefeed-reread", daemon=True)
        thread.start()
        return thread

    def _read_first(self, failed: list[Exception]) -> None:
        try:
            self._state = self._look_at_files()
            self._value = self._read()
        except Exception as error:  # whatever it is, the constructor's caller gets it
            failed.append(error)

    def _refresh(self) -> None:
        state = self._look_at_files()
        if state == self._state:
            return
        try:
            self._value = self._read()
        except BadInput as error:  # tried again at each look: it may be for want of a descriptor
            if (state, str(error)) != self._trouble:
                _log.warning("%s; what was read before stays in use", error)
            self._trouble = state, str(error)
        else:
            self._state = state
            _log.info("%s changed and was read again", self._names())

    def _names(self) -> str:
        return ", ".join(map(str, self._files)) or "credentials"

    def _look_at_files(self) -> list[tuple[int, ...]]:
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
