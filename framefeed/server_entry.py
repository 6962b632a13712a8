"""What a server says of itself where trainers look for servers: a JSON file, written again and again while it lives.

Both sides know this and no more of each other. It says nothing of how the files are written or found.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from framefeed.ranges import check_range, check_ranges, check_text
from framefeed.regular_file import STRANGE, read_regular
from framefeed.show_value import one_line

ENTRY_VERSION = 1
SUFFIX = ".server.json"
MAX_ENTRY_BYTES = 1 << 16
_MAX_TEXT, _MAX_LIST = 1024, 256
MAX_LEASE_S = 30 * 86400.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


class ServerEntry(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="framefeed_server", tag=ENTRY_VERSION
):
    """One server. `beat` grows with each writing, at least every `lease_s` seconds: who sees it stand still for longer,
    by a clock of its own, may take the server for dead (clocks of different hosts are never compared). `endpoints` are
    URLs, all of this one server; `host` is what host_id() gave it. `state` is starting or ready, `sockets` the CPU
    sockets it decodes on, `threads` how many clips at a time, `fingerprint` and `dataset` what decides their bytes; a
    server whose version knew no data sets has "".
    """

    server: str
    endpoints: tuple[str, ...]
    host: str
    state: str
    beat: int
    lease_s: float
    sockets: tuple[int, ...]
    threads: int
    fingerprint: str
    metrics_url: str
    pid: int
    dataset: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.lease_s <= MAX_LEASE_S:
            raise ValueError(f"lease_s is {self.lease_s}, wanted more than 0 and at most {MAX_LEASE_S:.0f} seconds")
        for name in ("server", "host", "state", "fingerprint", "metrics_url", "dataset"):
            check_text(name, getattr(self, name), most=_MAX_TEXT)
        check_range("the number of endpoints", len(self.endpoints), 0, _MAX_LIST)
        for url in self.endpoints:
            check_text("an endpoint", url, most=_MAX_TEXT)
        if not all(text.isprintable() for text in (self.server, self.state, self.fingerprint, *self.endpoints)):
            raise ValueError("a name or endpoint in it is not printable")
        check_range("the number of sockets", len(self.sockets), 0, _MAX_LIST)
        check_ranges("sockets", self.sockets, 0, 1 << 16)
        for name, most in (("beat", 1 << 62), ("threads", 1 << 20), ("pid", 1 << 32)):
            check_range(name, getattr(self, name), 0, most)

    def pack(self) -> str:
        """The entry as JSON."""
        return msgspec.json.encode(self).decode() + "\n"


class _Versioned(Struct):
    framefeed_server: Literal[1]


_VERSIONED, _ENTRY = msgspec.json.Decoder(_Versioned), msgspec.json.Decoder(ServerEntry)


def unpack_entry(text: str) -> ServerEntry:
    """The entry of a file. Raises ValueError for anything else, half a file among it."""
    try:
        _VERSIONED.decode(text)  # which an entry may leave out as far as msgspec is concerned
        return _ENTRY.decode(text)
    except RecursionError:
        raise ValueError("it is nested without end") from None
    except msgspec.DecodeError as error:
        raise ValueError(one_line(f"it is no server entry of version {ENTRY_VERSION}: {error}")) from None


def read_entry(path: Path) -> ServerEntry:
    """The entry in a file, which is no link. Raises ValueError if there is none in it or it is no file, OSError if it
    cannot be read.
    """
    try:
        return unpack_entry(read_regular(path, limit_bytes=MAX_ENTRY_BYTES, links=False).decode())
    except OSError as error:
        if error.errno in STRANGE:
            raise ValueError(str(error.strerror)) from None
        raise


def host_id() -> str:
    """What two processes share exactly if they reach one another over loopback: the kernel's boot and network."""
    try:
        return f"{_BOOT_ID.read_text().strip()}/{os.readlink(_NETWORK)}"
    except OSError:
        return ""


class Standstill:
    """How long each named number has stood still, by the reader's clock. Pure; what is first seen has just moved."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[int, float]] = {}

    def saw(self, name: str, beat: int, now_s: float) -> float:
        """Seconds since a number other than this one was seen under the name."""
        before, since_s = self._moved.get(name, (beat, now_s))
        if beat != before:
            since_s = now_s
        self._moved[name] = (beat, since_s)
        return now_s - since_s

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        self._moved = {name: moved for name, moved in self._moved.items() if name in names}
