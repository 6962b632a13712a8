"""Notices that a root was indexed again under its server: looks at the index files every two seconds, by a thread.

A storage that hangs holds up that thread and nobody else. It decides nothing about clips: the front reads `outdated`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from decode_server.clips.index_files import IndexFiles, look
from framefeed.errors import BadInput

log = logging.getLogger("framefeed.serve")

LOOK_S = 2.0
_PATIENT_LOOKS = 3  # files that are missing or do not fit for a moment are being replaced: no event, and no line
_CLOSE_S = 1.0


class IndexWatch:
    """Looks from construction to `close`. `outdated` says why the root is not what the server serves, "" while it is;
    once it is not, it stays so. What else is wrong with the files is told in the log, once.
    """

    def __init__(self, folder: Path, served: Callable[[], str | None], *, every_s: float = LOOK_S) -> None:
        """`served` gives the identity of the data set that is served, None before it is known."""
        self.outdated = ""
        self._folder, self._served, self._every_s = folder, served, every_s
        self._opened: IndexFiles | None = None
        self._troubled_looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more. Idempotent; blocks for at most 1 s, a look that hangs ends with the process."""
        self._over.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self.outdated:
            self._look()
            if self._over.wait(self._every_s):
                return

    def _look(self) -> None:
        try:
            now = look(self._folder)
        except (OSError, BadInput) as error:
            self._meet(str(error))
            return
        self._opened = self._opened or now
        identity = self._served()
        if identity is not None and (why := self._opened.replaced_by(now, identity=identity)):
            self.outdated = f"{self._folder} {why}"
            log.error("%s; draining: restart this server to serve what is there now", self.outdated)
            return
        trouble = self._opened.half_replaced_by(now)
        self._opened = self._opened if trouble else now
        self._meet(trouble)

    def _meet(self, trouble: str) -> None:
        """Tell of a trouble that lasts, and of its end."""
        if not trouble:
            if self._troubled_looks >= _PATIENT_LOOKS:
                log.info("index in %s: as it was opened again", self._folder)
            self._troubled_looks = 0
            return
        self._troubled_looks += 1
        if self._troubled_looks == _PATIENT_LOOKS:
            log.error(
                "index in %s: %s; clips that need it are sent to other servers: index the root again",
                self._folder, trouble,
            )  # fmt: skip
