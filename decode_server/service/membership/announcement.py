"""What a server says of itself once it is ready: a line on stdout, and its entry in the files that others look at.

It knows the server's parts by name only, and no clients.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decode_server.service.lifecycle import Lifecycle
from decode_server.service.membership.registry import Registration, advertised, entry_path
from decode_server.service.workers.topology import WorkerSlot
from framefeed.errors import BadInput
from framefeed.server_entry import ServerEntry, host_id

log = logging.getLogger("framefeed.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where to write the entry: one file for whoever started the server, a folder that trainers share, or both.

    `advertise` is the host that the URLs in it name, "" for what is bound or leads here; an entry that was not renewed
    for `lease_s` may be taken for that of a dead server.
    """

    file: Path | None
    folder: Path | None
    advertise: str
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who announces itself: name, root, URLs as bound, slots of its workers, decoding threads of each, its life, and
    what gives the workers' fingerprint and the data set's identity once they are up.
    """

    server: str
    root: Path
    urls: Sequence[str]
    worker_slots: Sequence[WorkerSlot]
    threads: int
    lifecycle: Lifecycle
    fingerprint: Callable[[], str]
    dataset: Callable[[], str]


class Announcement:
    """`publish` when ready, `withdraw` when draining, `close` at the end. `metrics_url` is set before the first."""

    def __init__(self, who: Identity, places: Places) -> None:
        """Raises BadInput where a file cannot be written."""
        self.metrics_url = ""
        self._who = who
        self._urls = tuple(advertised(url, places.advertise) for url in who.urls)
        self._advertise, self._lease_s = places.advertise, places.lease_s
        self._host = host_id()
        self._unused: Path | None = None  # a folder that this server made, and has put nothing into
        paths = [] if places.file is None else [(places.file, False)]
        if places.folder is not None:
            self._unused = places.folder if _make(places.folder) else None
            paths.append((entry_path(places.folder, who.server), True))
        self._registrations = [
            Registration(path, self.entry, sweep=sweep, lease_s=places.lease_s) for path, sweep in paths
        ]

    def publish(self, videos: int) -> None:
        """Print the line, then have the entries written. Returns at once; a stdout that does not take the line is said
        in the log, and the server serves all the same.
        """
        try:
            print(self._line(videos), flush=True)
        except OSError as error:
            log.warning("stdout did not take the line that says where this server is (%s)", error.strerror)
        self._unused = None
        for registration in self._registrations:
            registration.start()

    def _line(self, videos: int) -> str:
        who = self._who
        sockets = ", ".join(str(id) for id in self._sockets)
        return (
            f"serving {videos} videos of {who.root} on {', '.join(who.urls)}, metrics {self.metrics_url}, "
            f"workers {len(who.worker_slots)} (threads {who.threads}, CPU sockets {sockets}), "
            f"data set {who.dataset() or 'unknown'}"
        )

    def withdraw(self) -> None:
        """The server takes no more requests: have the entries removed. Returns at once; idempotent."""
        for registration in self._registrations:
            registration.end()

    def close(self) -> None:
        """See that the entries are removed, for at most 2 s each; a server that was refused leaves no folder that it
        made. Idempotent.
        """
        self.withdraw()
        for registration in self._registrations:
            registration.close()
        if self._unused is not None:
            with contextlib.suppress(OSError):  # another server has put its entry there
                self._unused.rmdir()
            self._unused = None

    @property
    def server(self) -> str:
        """The name of who announces itself."""
        return self._who.server

    @property
    def _sockets(self) -> tuple[int, ...]:
        return tuple(sorted({slot.socket for slot in self._who.worker_slots}))

    def entry(self, beat: int) -> ServerEntry:
        """What the server says of itself now."""
        who = self._who
        return ServerEntry(
            server=who.server,
            endpoints=self._urls,
            host=self._host,
            state=who.lifecycle.state.value,
            beat=beat,
            lease_s=self._lease_s,
            sockets=self._sockets,
            threads=len(who.worker_slots) * who.threads,
            fingerprint=who.fingerprint(),
            dataset=who.dataset(),
            metrics_url=advertised(self.metrics_url, self._advertise),
            pid=os.getpid(),
        )


def _make(folder: Path) -> bool:
    """Make the folder if only it is missing: a mount that is not there is not made up for. Whether it was."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir()
    except OSError as error:
        if folder.is_dir():  # another server was quicker
            return False
        raise BadInput(f"--registry: {folder} cannot be made ({error.strerror})") from None
    return True
