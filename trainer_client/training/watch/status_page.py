"""The trainer's status page: what is at `/` of its metrics port, and the thread that looks at the run for it.

All of it comes from this port: it works without a network beyond it. It knows pages, not what makes them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from framefeed.cli.top.pages import Pages
from framefeed.page_server import Page
from trainer_client.training.watch.status_ring import StatusRing

log = logging.getLogger(__name__)

EVERY_S = 5.0
_PAGE_S = 2.0  # that another rank's page may take
_CLOSE_S = 5.0
_FOLDER = Path(__file__).parent / "page"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_JSON = "application/json"


class StatusPage:
    """Looks at metrics pages every 5 s, from construction to `close`, in a thread of its own."""

    def __init__(self, urls: Sequence[str], *, registry: Path | None = None) -> None:
        """`urls` are metrics pages, of this rank and others; those of servers in a registry are looked at as well."""
        self._files = {f"/{path.name}": path for path in _FOLDER.iterdir() if path.suffix in _KINDS}
        self._files["/"] = self._files["/index.html"]
        self._ring = StatusRing(every_s=EVERY_S)
        self._pages = Pages(urls, registry=registry, limit_s=_PAGE_S)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="status-page", daemon=True)
        self._thread.start()

    def get(self, path: str) -> Page | None:
        """The page of a path; None if that is none of its."""
        if path == "/status.json":
            return 200, _JSON, self._ring.answer
        file = self._files.get(path)
        return None if file is None else (200, _KINDS[file.suffix], file.read_bytes())

    def close(self) -> None:
        """Look no more. Blocks for as long as a look takes, at most 5 s."""
        self._over.set()
        self._thread.join(_CLOSE_S)
        self._pages.close()

    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            try:
                self._ring.add(self._pages.look())
            except Exception as error:  # a page for people ends no run
                log.warning("status page: %s: %s", type(error).__name__, error)
