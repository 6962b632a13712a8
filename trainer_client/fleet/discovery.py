"""Discovery: looks at the sources of servers again and again, each in a thread of its own, and reports what it saw.

It decides nothing. A source that hangs holds up its own thread only.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from trainer_client.fleet.member_sources import Source
from trainer_client.fleet.membership import Discovered

_log = logging.getLogger(__name__)

_JOIN_S = 1.0


class Discovery:
    """Looks every `every_s` seconds from start() to close(); `on_report` is called by its threads after each look."""

    def __init__(self, sources: Sequence[Source], *, every_s: float, on_report: Callable[[], None]) -> None:
        self._sources = tuple(sources)
        self._every_s, self._on_report = every_s, on_report
        self._discovered: deque[Discovered] = deque()
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(source,), name="framefeed-discovery", daemon=True)
            for source in sources
            if source.changes
        ]

    def start(self) -> None:
        """Look once at what does not change, and begin to watch the rest. Returns at once."""
        for source in self._sources:
            if not source.changes:
                self._discovered.append(Discovered(source=str(source), seen=tuple(source.look())))
        for thread in self._threads:
            thread.start()

    def discovered(self) -> list[Discovered]:
        """What was seen since the last call, in order. Never blocks."""
        return [self._discovered.popleft() for _ in range(len(self._discovered))]

    def close(self) -> None:
        """Stop looking. Idempotent; blocks for at most 1 s a source, one that hangs is left to end with its look."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_JOIN_S)

    def _watch(self, source: Source) -> None:
        trouble = ""
        while not self._over.is_set():
            try:
                seen, why = tuple(source.look()), ""
            except OSError as error:
                seen, why = None, f"cannot be looked at ({error.strerror or error})"
            if why and why != trouble:
                _log.warning("%s %s: the servers known from it stay", source, why)
            trouble = why
            self._discovered.append(Discovered(source=str(source), seen=seen, why=why))
            self._on_report()
            self._over.wait(self._every_s)
