"""Where servers are found: a list, a DNS name, a folder of entries. Each can look; none decides what it means.

Looking blocks on a resolver or a file system for as long as those do, so it has threads of its own: those of discovery.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from framefeed.errors import BadInput
from framefeed.server_entry import SUFFIX, ServerEntry, host_id, read_entry
from trainer_client.fleet.addresses import DNS, REGISTRY, check_server, scheme_of
from trainer_client.fleet.membership import Candidate

_log = logging.getLogger(__name__)

_BEST_FIRST = ("shm", "tcp", "grpcs", "grpc")
_THIS_HOST_ONLY = frozenset({"shm"})

Resolve = Callable[[str, int], list[str]]


class Source(Protocol):
    """A place to look for servers; `str` names it."""

    changes: bool
    """Whether a second look can show anything else."""

    def look(self) -> list[Candidate]:
        """All servers there are now. Blocks. Raises OSError when it cannot be told."""


class StaticServers:
    """The addresses that the user gave."""

    changes = False

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(urls)

    def look(self) -> list[Candidate]:
        """The same each time; does not block."""
        return [Candidate(name=url, urls=(url,)) for url in self._urls]

    def __str__(self) -> str:
        return ", ".join(self._urls)


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a name, IPv6 ones in brackets. Blocks on the resolver; raises OSError when there are none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # what no name can be
        raise OSError(f"{host!r} is no name ({error})") from None
    shown = dict.fromkeys(str(address[0]) for *_, address in found)
    return [f"[{address}]" if ":" in address else address for address in shown]


class DnsServers:
    """dns+tcp://HOST:PORT, or another transport's scheme behind dns+: every address of the name is a server."""

    changes = True

    def __init__(self, url: str, resolve: Resolve = addresses_of) -> None:
        """`url` is a checked one."""
        self._url, self._resolve = url, resolve
        parts = urlsplit(url.removeprefix(DNS))
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "", parts.port or 0

    def look(self) -> list[Candidate]:
        """Resolves the name."""
        urls = (f"{self._scheme}://{address}:{self._port}" for address in self._resolve(self._host, self._port))
        return [Candidate(name=url, urls=(url,)) for url in urls]

    def __str__(self) -> str:
        return self._url


class RegistryServers:
    """registry:///FOLDER: every entry in it is a server, at its best endpoint that can be reached from here."""

    changes = True

    def __init__(self, url: str, host: str | None = None) -> None:
        """`url` is a checked one; `host` is whose host_id() decides what only this host reaches."""
        self._url, self._host = url, host_id() if host is None else host
        self._folder = Path(url.removeprefix(REGISTRY))
        self._strange: set[str] = set()

    def look(self) -> list[Candidate]:
        """Reads the folder. What is no whole entry is left out, and said once."""
        found = []
        for name in sorted(os.listdir(self._folder)):
            if name.endswith(SUFFIX) and (entry := self._read(name)) is not None:
                if urls := usable_urls(entry, self._host):
                    found.append(Candidate(name=name, urls=urls, beat=entry.beat, lease_s=entry.lease_s))
                else:
                    self._say_once(name, f"names no endpoint that this host can use: {', '.join(entry.endpoints)}")
        return found

    def _read(self, name: str) -> ServerEntry | None:
        try:
            return read_entry(self._folder / name)
        except (ValueError, FileNotFoundError) as error:  # half of one, or it went between the listing and now
            if isinstance(error, ValueError):
                self._say_once(name, f"is no server entry ({error})")
            return None

    def _say_once(self, name: str, what: str) -> None:
        if name not in self._strange:
            self._strange.add(name)
            _log.warning("%s: %s %s", self._url, name, what)

    def __str__(self) -> str:
        return self._url


def usable_urls(entry: ServerEntry, host: str) -> tuple[str, ...]:
    """The endpoints of an entry that can be reached from a host, best first: shared memory before the network."""
    here = bool(host) and entry.host == host
    usable = []
    for url in entry.endpoints:
        try:
            check_server(url)
        except BadInput:
            continue
        if here or not (scheme_of(url) in _THIS_HOST_ONLY or _is_loopback(url)):
            usable.append(url)
    return tuple(sorted(usable, key=lambda url: _rank(scheme_of(url))))


def _rank(scheme: str) -> int:
    return _BEST_FIRST.index(scheme) if scheme in _BEST_FIRST else len(_BEST_FIRST)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def sources_of(servers: Sequence[str]) -> list[Source]:
    """The sources that checked addresses name."""
    static = [url for url in servers if not url.startswith((DNS, REGISTRY))]
    sources: list[Source] = [StaticServers(static)] if static else []
    sources += [DnsServers(url) for url in servers if url.startswith(DNS)]
    sources += [RegistryServers(url) for url in servers if url.startswith(REGISTRY)]
    return sources
