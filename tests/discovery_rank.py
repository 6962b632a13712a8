"""A rank of a node that only looks for servers, in a process of its own: prints who leads, each look and what it shows.

`python -m tests.discovery_rank FOLDER EVERY_S` runs until it is killed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from framefeed.server_entry import ServerEntry, read_entry
from trainer_client.fleet.discovery import Discovery, RegistryServers, Source
from trainer_client.fleet.membership import Candidate


def say(*words: str) -> None:
    """Print a line whole: two threads do."""
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


class Watched:
    """A registry whose looks are printed."""

    changes = True

    def __init__(self, folder: str) -> None:
        self._source: Source = RegistryServers(f"registry://{folder}", read=self._read)

    def look(self) -> list[Candidate]:
        """The registry's."""
        say("look")
        return self._source.look()

    def _read(self, path: Path) -> ServerEntry:
        say("read", path.name)
        return read_entry(path)

    def __str__(self) -> str:
        return str(self._source)


if __name__ == "__main__":
    news = threading.Event()
    discovery = Discovery([Watched(sys.argv[1])], every_s=float(sys.argv[2]), on_report=news.set)
    discovery.start()
    while news.wait(600):
        news.clear()
        for discovered in discovery.discovered():
            say("saw", *sorted(one.name for one in discovered.seen or ()))
