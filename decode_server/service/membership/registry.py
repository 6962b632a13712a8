"""Where a server says that it lives: its entry in a file, renewed by a thread until it is closed.

It decides nothing about clips, and no hung file system holds up anyone but its own thread. In a registry folder it also
removes what servers that died left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from framefeed.errors import BadInput
from framefeed.new_file import write_whole
from framefeed.server_entry import SUFFIX, Standstill, read_entry

log = logging.getLogger("framefeed.serve")

LEASE_S = 90.0  # NFS clients may not see a change for the 60 s of their attribute caches
_BEATS_A_LEASE = 9
_DEAD_LEASES = 3  # an entry that stood still for so many is removed by whoever sees it
_CLOSE_S = 2.0
_OURS = re.compile(rf".*{re.escape(SUFFIX)}(\.([0-9a-f]{{16}}\.)?part)?")  # entries, and such as are being written
_MOST_NAMES = 1 << 14  # of a folder, that one look is about
_ANY_HOST = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # noqa: S104 - an address beyond, to see which way leads there


class Entries(Protocol):
    """What is written: one entry, or several."""

    def pack(self) -> str:
        """The text of the file."""


class Registration:
    """One file that says who a server is, or several are. Whoever starts it closes it."""

    def __init__(self, path: Path, describe: Callable[[int], Entries], *, sweep: bool, lease_s: float) -> None:
        """`describe(beat)` gives the entry to write, `sweep` rids its folder of dead ones.

        Raises BadInput for a folder that cannot be written.
        """
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise BadInput(f"announce: {path} cannot be written: {path.parent} is no folder that can be written to")
        self._path, self._describe = path, describe
        self._every_s = lease_s / _BEATS_A_LEASE
        self._sweeper = Sweeper(path.parent) if sweep else None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"registration-{path.name}", daemon=True)
        self._trouble = ""

    def start(self) -> None:
        """Write the file and go on renewing it. Returns at once."""
        self._thread.start()

    def end(self) -> None:
        """Have the file removed. Returns at once; idempotent."""
        self._over.set()

    def close(self) -> None:
        """See that the file is removed. Idempotent; blocks for at most 2 s, a file system that hangs keeps the file."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        beat = 0
        while True:
            beat += 1
            self._renew(beat)
            if self._over.wait(self._every_s):
                break
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _renew(self, beat: int) -> None:
        """Write and sweep; a trouble is said once, and tried on."""
        try:
            write_entry(self._path, self._describe(beat))
            if self._sweeper is not None:
                self._sweeper.sweep(time.monotonic())
        except OSError as error:
            if str(error) != self._trouble:
                log.warning("%s cannot be kept up to date, trying on: %s", self._path, error)
            self._trouble = str(error)
        else:
            self._trouble = ""


class Sweeper:
    """Removes the entries of a folder that have stood still for so long that their servers are dead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._still = Standstill()

    def sweep(self, now_s: float) -> None:
        """Look once; an entry goes when it has not moved over several looks. Blocks on the folder, raises OSError."""
        with os.scandir(self._folder) as found:
            ours = (entry.name for entry in found if _OURS.fullmatch(entry.name))
            names = list(itertools.islice(ours, _MOST_NAMES))
        for name in names:
            path = self._folder / name
            # Its server removed it, or another sweeper; or it is not ours to remove.
            with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
                beat, lease_s = _pulse(path)
                stood_s = self._still.saw(name, beat, now_s)
                if stood_s > _DEAD_LEASES * lease_s and _pulse(path)[0] == beat:
                    path.unlink()
                    log.info("removed %s: it has not moved for %.0f s", path, stood_s)
        self._still.keep(names)


def _pulse(path: Path) -> tuple[int, float]:
    """What moves while a server lives, and how long it may stand; for what is no whole entry, when it was written."""
    try:
        entry = read_entry(path)
    except ValueError:
        return path.lstat().st_mtime_ns, LEASE_S
    return entry.beat, entry.lease_s


def write_entry(path: Path, entry: Entries) -> None:
    """Write it so that a reader finds the old entry or the new one, and no half of one. Raises OSError."""
    write_whole(path, entry.pack().encode(), sync=False)


def entry_path(folder: Path, server: str) -> Path:
    """A file for a server in a registry that no other process, not one of the same name either, writes."""
    return folder / f"{re.sub(r'[^A-Za-z0-9.-]', '-', server)}.{secrets.token_hex(4)}{SUFFIX}"


def advertised(url: str, host: str) -> str:
    """A URL that other hosts can use: `host` in the place of its address, by default that of the way out of here where
    it is the wildcard. What only this host reaches stays as it is.
    """
    parts = urlsplit(url)
    address = parts.hostname or ""
    if parts.port is None or address == "::1" or address.startswith("127."):
        return url
    shown = host or (_way_out(address) if address in _ANY_HOST else address)
    return f"{parts.scheme}://{f'[{shown}]' if ':' in shown else shown}:{parts.port}{parts.path}"


def _way_out(wildcard: str) -> str:
    """This machine's address on its default route, its name without one. Sends nothing."""
    family = socket.AF_INET6 if ":" in wildcard else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_ANY_HOST[wildcard], 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
