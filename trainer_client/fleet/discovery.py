"""Discovery of servers: where they are found, the threads that look, and the feed's connections told of it.

Sources can look: a list, a DNS name, a folder of entries. Looking blocks on a resolver or a file system for as long as
those do, so each source has a thread of its own, and one that hangs holds up no other. Of all ranks of a node one looks
at a source and tells the others. Who is a server is decided in membership.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from framefeed.errors import BadInput, ResourceExhausted
from framefeed.folder_guard import warn_if_exposed
from framefeed.name_lookup import ask_system, hosts_in
from framefeed.server_entry import SUFFIX, ServerEntry, host_id, read_entry
from framefeed.show_value import one_line
from trainer_client.fleet.addresses import DNS, REGISTRY, check_server, is_loopback, named, scheme_of
from trainer_client.fleet.connection_turns import ConnectionTurns
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.membership import Candidate, Discovered, Membership
from trainer_client.fleet.node_share import NodeShare
from trainer_client.fleet.protection import Protection
from trainer_client.fleet.server import State
from trainer_client.measures.stats import Ledger

_log = logging.getLogger(__name__)

_BEST_FIRST = ("shm", "tcp", "grpcs", "grpc")
_THIS_HOST_ONLY = frozenset({"shm"})
_MOST_ENTRIES = 1 << 12  # of a registry that are looked at
_MOST_SAID = 100  # strange or refused entries that are named
_MOST_TOLD_BYTES = 1 << 26
_JOIN_S = 1.0
_TOLD_VERSION = 1  # of what one rank tells another
_TURN_S = 0.5  # time alone may make a member leave
_NO_ROOM_S = 10.0  # for a single connection: then it does not pass

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
    return hosts_in(ask_system(host, port))


class DnsServers:
    """dns+tcp://HOST:PORT, or another transport's scheme behind dns+: every address of the name is a server.

    A grpcs:// one has to show a certificate for the name.
    """

    changes = True

    def __init__(self, url: str, resolve: Resolve = addresses_of) -> None:
        """`url` is a checked one."""
        self._url, self._resolve = url, resolve
        parts = urlsplit(url.removeprefix(DNS))
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "", parts.port or 0

    def look(self) -> list[Candidate]:
        """Resolves the name."""
        addresses = self._resolve(self._host, self._port)
        urls = (named(f"{self._scheme}://{address}:{self._port}", self._host) for address in addresses)
        return [Candidate(name=url, urls=(url,)) for url in urls]

    def __str__(self) -> str:
        return self._url


class RegistryServers:
    """registry:///FOLDER: every entry in it is a server, at its best endpoint that can be reached from here.

    An entry is replaced by renaming a new file, never written in place, so that one whose file is the same (inode, time
    and length) is not read again.
    """

    changes = True

    def __init__(self, url: str, host: str | None = None, read: Callable[[Path], ServerEntry] = read_entry) -> None:
        """`url` is a checked one; `host` is whose host_id() decides what only this host reaches."""
        self._url, self._host, self._read_entry = url, host_id() if host is None else host, read
        self._folder = Path(url.removeprefix(REGISTRY))
        self._strange: set[str] = set()
        self._looked = False
        self._read: dict[str, tuple[tuple[int, int, int], Candidate | None]] = {}  # by name; of which file

    def look(self) -> list[Candidate]:
        """Reads the folder, and the files in it that are new. What is no whole entry is left out, and said once."""
        if not self._looked:
            self._looked = True
            warn_if_exposed(self._folder, what="registry", log=_log)
        with os.scandir(self._folder) as entries:
            ours = (entry.name for entry in entries if entry.name.endswith(SUFFIX))
            names = sorted(itertools.islice(ours, _MOST_ENTRIES))
        found = [self._candidate(name) for name in names]
        self._read = {name: self._read[name] for name in names if name in self._read}
        return [candidate for candidate in found if candidate is not None]

    def _candidate(self, name: str) -> Candidate | None:
        path = self._folder / name
        try:
            status = os.lstat(path)
            file = (status.st_ino, status.st_mtime_ns, status.st_size)
            before = self._read.get(name)
            if before is None or before[0] != file:
                before = self._read[name] = (file, self._read_candidate(path))
            return before[1]
        except FileNotFoundError:  # it went between the listing and now
            self._read.pop(name, None)
            return None

    def _read_candidate(self, path: Path) -> Candidate | None:
        try:
            entry = self._read_entry(path)
        except ValueError as error:  # half of one
            self._say_once(path.name, f"is no server entry ({error})")
            return None
        if urls := usable_urls(entry, self._host):
            return Candidate(name=path.name, urls=urls, beat=entry.beat, lease_s=entry.lease_s)
        shown = one_line(", ".join(entry.endpoints), chars=200)
        self._say_once(path.name, f"names no endpoint that this host can use: {shown}")
        return None

    def _say_once(self, name: str, what: str) -> None:
        if name not in self._strange and len(self._strange) < _MOST_SAID:
            self._strange.add(name)
            _log.warning("%s: %s %s", self._url, one_line(name), what)

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
        if here or not (scheme_of(url) in _THIS_HOST_ONLY or is_loopback(url)):
            usable.append(url)
    return tuple(sorted(usable, key=lambda url: _rank(scheme_of(url))))


def _rank(scheme: str) -> int:
    return _BEST_FIRST.index(scheme) if scheme in _BEST_FIRST else len(_BEST_FIRST)


def sources_of(servers: Sequence[str], resolve: Resolve = addresses_of) -> list[Source]:
    """The sources that checked addresses name; names are looked up by `resolve`."""
    static = [url for url in servers if not url.startswith((DNS, REGISTRY))]
    sources: list[Source] = [StaticServers(static)] if static else []
    sources += [DnsServers(url, resolve) for url in servers if url.startswith(DNS)]
    sources += [RegistryServers(url) for url in servers if url.startswith(REGISTRY)]
    return sources


class Discovery:
    """Looks about every `every_s` seconds from start() to close(); its threads call `on_report` after each look.

    Of the processes on this node that look at a source as often, one looks and tells the others, unless not `share`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        every_s: float,
        on_report: Callable[[], None],
        protection: Protection | None = None,
        share: bool = True,
    ) -> None:
        """`protection` is asked about what changing sources name; what does not change is what the user gave."""
        self._sources = tuple(sources)
        self.protection = protection or Protection()
        self._every_s, self._on_report, self._share = every_s, on_report, share
        self._discovered: deque[Discovered] = deque()
        self._watches: list[tuple[NodeShare, threading.Thread]] = []

    def start(self) -> None:
        """Look once at what does not change, and begin to watch the rest. Returns at once."""
        for source in self._sources:
            if not source.changes:
                self._discovered.append(_look(source))
                continue
            name = f"{_TOLD_VERSION} {source}" if self._share else os.urandom(16).hex()
            share = NodeShare(name, lambda source=source: _told(_look(source)), every_s=self._every_s)  # type: ignore[misc]
            thread = threading.Thread(
                target=self._watch, args=(str(source), share), name="framefeed-discovery", daemon=True
            )
            self._watches.append((share, thread))
            thread.start()

    def discovered(self) -> list[Discovered]:
        """What was seen since the last call, in order. Never blocks."""
        return [self._discovered.popleft() for _ in range(len(self._discovered))]

    def close(self) -> None:
        """Stop looking. Idempotent; blocks for at most 1 s a source, one that hangs is left to end with its look."""
        for share, _ in self._watches:
            share.end()
        for share, thread in self._watches:
            thread.join(_JOIN_S)
            share.close()  # one that hangs must not keep others from looking

    def _watch(self, source: str, share: NodeShare) -> None:
        trouble = ""
        with share:
            while (told := share.next()) is not None:
                discovered = self.protection.allowed(_discovered(source, told))  # others look with other credentials
                if discovered.why and discovered.why != trouble:
                    _log.warning("%s %s: the servers known from it stay", source, discovered.why)
                trouble = discovered.why
                self._discovered.append(discovered)
                self._on_report()


def _look(source: Source) -> Discovered:
    try:
        return Discovered(source=str(source), seen=tuple(source.look()))
    except OSError as error:
        return Discovered(source=str(source), seen=None, why=f"cannot be looked at ({error.strerror or error})")


def _told(discovered: Discovered) -> bytes:
    """What was seen, for other ranks of this node: a message of a few bytes a server."""
    seen = discovered.seen
    rows = None if seen is None else [(one.name, one.urls, one.beat, one.lease_s) for one in seen]
    return zlib.compress(json.dumps([discovered.why, rows]).encode(), 1)


def _discovered(source: str, told: bytes) -> Discovered:
    try:
        why, rows = json.loads(zlib.decompressobj().decompress(told, _MOST_TOLD_BYTES))
        seen = None if rows is None else tuple(_candidate(*row) for row in rows)
        return Discovered(source=source, seen=seen, why=str(why))
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        return Discovered(source=source, seen=None, why=f"was told of in no known words ({error})")


def _candidate(name: str, urls: list[str], beat: int, lease_s: float) -> Candidate:
    return Candidate(name=name, urls=tuple(urls), beat=beat, lease_s=lease_s)


class Connects(Protocol):
    """What is needed of the feed's connections."""

    def connect(self, url: str) -> None: ...

    def disconnect(self, url: str) -> None: ...

    def trouble(self, url: str) -> str: ...


class Members:
    """Whose servers a feed uses. Whoever starts it closes it. Everything else belongs to the feed's thread."""

    def __init__(self, discovery: Discovery, *, fleet: Fleet, dispatch: Dispatch, ledger: Ledger | None = None) -> None:
        """Entries that are refused are counted in the ledger's `shunned`."""
        self._shunned = Counter[str]() if ledger is None else ledger.shunned
        self._refused: set[tuple[str, str]] = set()
        self._discovery, self._fleet, self._dispatch = discovery, fleet, dispatch
        self._membership, self._turns = Membership(), ConnectionTurns()
        self._due_s = -math.inf
        self._unusable: dict[str, BadInput] = {}
        self._no_room: ResourceExhausted | None = None

    def start(self) -> None:
        """Begin to look for servers."""
        self._discovery.start()

    def close(self) -> None:
        """Stop looking, as Discovery does. Idempotent."""
        self._discovery.close()

    def tend(self, wire: Connects, *, lock: AbstractContextManager[object], now_s: float) -> None:
        """Connect to servers that joined and let go of those that left, when there is news and now and then.

        Fleet and dispatch are only touched under the lock. An address that cannot be used is said once; raises BadInput
        when there are only such. Where there are not descriptors for all servers, those that are not there take turns;
        raises ResourceExhausted when there was none for a single one for 10 s.
        """
        discovered = self._discovery.discovered()
        if not discovered and now_s < self._due_s:
            return
        self._due_s = now_s + _TURN_S
        for look in discovered:
            self._refuse(look)
            self._membership.saw(look, now_s)
        with lock:
            held, there = list(self._fleet.servers), self._there()
        self._connect(wire, held, there=there, now_s=now_s)  # first let go of the forgotten: one may join again
        with lock:
            change = self._membership.decide(
                now_s, connected=self._there(), waiting=self._turns.waiting, siblings=self._siblings()
            )
            for url in change.joined:
                self._dispatch.joined(url, now_s=now_s)
            for url in change.left:
                self._dispatch.left(url, now_s=now_s)
            held, there = list(self._fleet.servers), self._there()
        for line in self._membership.tidings():
            _log.warning("%s", line)
        self._connect(wire, held, there=there, now_s=now_s)
        with lock:
            for url, server in self._fleet.servers.items():
                if server.state is State.OFFLINE and url in self._turns.connected:
                    server.trouble = wire.trouble(url) or server.trouble

    def _refuse(self, look: Discovered) -> None:
        """Name and count each entry that is not to be used once."""
        for name, why in look.refused:
            if (look.source, name) in self._refused or len(self._refused) >= _MOST_ENTRIES:
                continue
            self._refused.add((look.source, name))
            self._shunned["unprotected"] += 1
            if len(self._refused) <= _MOST_SAID:
                _log.error("%s: server %s is refused: %s", look.source, one_line(name), why)

    def _there(self) -> list[str]:
        """Whose connections stand."""
        return [url for url, server in self._fleet.servers.items() if server.state is not State.OFFLINE]

    def _siblings(self) -> dict[str, tuple[str, ...]]:
        """What each server names that is there and that the credentials protect: its siblings differ by the port."""
        named = {url: server.siblings for url, server in self._fleet.servers.items() if server.siblings}
        refused = {url: why for url in named if (why := self._discovery.protection.why_not(url))}
        self._refuse(Discovered(source="other fronts of its box", seen=(), refused=tuple(refused.items())))
        return {url: siblings for url, siblings in named.items() if url not in refused}

    def _connect(self, wire: Connects, held: Sequence[str], *, there: Collection[str], now_s: float) -> None:
        """Have connections to these and no others, as far as that can be."""
        self._unusable = {url: error for url, error in self._unusable.items() if url in held}
        wanted = {url: None for url in held if url not in self._unusable}.keys()
        change = self._turns.decide(wanted, there=there, now_s=now_s)
        for url in change.left:
            if url not in wanted:
                _log.info("server %s left", url)
            wire.disconnect(url)
        for url in change.joined:
            try:
                wire.connect(url)
            except BadInput as error:
                _log.error("server %s is not used: %s", url, error)
                self._unusable[url] = error
                continue
            except ResourceExhausted as error:
                self._turns.refused(now_s)
                self._say(error)
                break
            if not self._turns.had_turns(url):
                _log.info("server %s joins", url)
            self._turns.made(url, now_s)
        if not self._turns.waiting:
            self._no_room = None
        self._check_any(now_s)

    def _say(self, error: ResourceExhausted) -> None:
        """Once for as long as there are servers without a connection."""
        if self._no_room is None:
            have, others = len(self._turns.connected), len(self._turns.waiting)
            _log.warning("%s; %d servers have a connection, %d take turns with those not there", error, have, others)
        self._no_room = error

    def _check_any(self, now_s: float) -> None:
        if self._no_room is not None and self._turns.none_for_s(now_s) > _NO_ROOM_S:
            raise ResourceExhausted(f"no server has been connected to for {_NO_ROOM_S:g} s: {self._no_room}")
        if self._unusable and not self._turns.connected and self._unusable.keys() >= set(self._turns.waiting):
            raise next(iter(self._unusable.values()))

    def __str__(self) -> str:
        """Where servers come from, and what is wrong there."""
        return f"{self._membership}; {self._no_room}" if self._no_room else str(self._membership)
