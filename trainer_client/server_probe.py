"""What `framefeed doctor` is told of servers that run: each is reached, asked who it is and for clips, and timed.

It measures over the transports that training uses; what it means is decided by a pure function.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from framefeed.cli.doctor.finding import Asked, Finding, good
from framefeed.cli.http_page import get_answer
from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput, FramefeedError, ServerLost
from framefeed.manifest import check_indexed, read_manifest
from framefeed.name_lookup import hosts_in, places_of
from framefeed.page_place import page_of
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.server_entry import SUFFIX, host_id, read_entry
from framefeed.wire import ClipReply, DecodeCall, DescribeCall, ErrorReply, Reply, ServerReply, pack_call, unpack_reply
from trainer_client.fleet.addresses import FORMS, LOCAL, REGISTRY, name_and_address, scheme_of
from trainer_client.fleet.addresses import check_servers as check_addresses
from trainer_client.fleet.discovery import sources_of
from trainer_client.server_findings import ServerFacts, check_servers
from trainer_client.transports.connection import Connections
from trainer_client.transports.credentials import Credentials
from trainer_client.transports.transport import Kind, TransportLimits

_AT_ONCE = 16
_LARGE_PX = 1024
_LARGE_TRIES = 3
_LEAST_S = 1e-4


def probe(asked: Asked) -> list[Finding]:
    """Nothing without servers. Blocks for a few times the limit for each 16 of them. Raises BadInput for addresses,
    credentials or a root that cannot be used.
    """
    if not asked.servers:
        return []
    check_addresses(asked.servers)
    if LOCAL in asked.servers:
        raise BadInput(f"--servers {LOCAL} is a server that a trainer starts itself, wanted addresses of ones that run")
    manifest = None
    if asked.root is not None:
        check_indexed(asked.root)
        manifest = read_manifest(asked.root)
    request = None if manifest is None else _request(next(iter(manifest.videos)))
    urls = _urls(asked)
    clocks = _clock_pages(asked.servers)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="doctor") as pool:
        facts = list(pool.map(lambda url: _measure(url, request, asked, clocks.get(url, "")), urls))
    found = check_servers(facts, dataset=manifest.identity if manifest else "", clips_s=asked.clips_s)
    untried = "none was asked for: the root, as given to serve, says of what"
    return found if request else [*found, good("clips", untried)]


def _urls(asked: Asked) -> list[str]:
    """The address of each server. Raises FramefeedError where a source cannot be looked at."""
    urls: dict[str, None] = {}
    for source in sources_of(asked.servers, partial(_addresses, limit_s=asked.limit_s)):
        try:
            urls |= {candidate.urls[0]: None for candidate in source.look()}
        except OSError as error:
            raise FramefeedError(f"--servers {source}: {error}") from None
    return list(urls)


def _addresses(host: str, port: int, *, limit_s: float) -> list[str]:
    """The addresses of a name, IPv6 ones in brackets. Raises OSError where they are not known within the limit."""
    return hosts_in(places_of(host, port, limit_s=limit_s))


def _check_name(url: str, limit_s: float) -> None:
    """Raises ServerLost where the host's name is not looked up within the limit: a transport would wait for it."""
    if "HOST" not in FORMS[scheme_of(url)]:
        return
    where = urlsplit(f"//{name_and_address(url)[1]}")
    try:
        places_of(where.hostname or "", where.port or 0, limit_s=limit_s)
    except OSError as error:
        raise ServerLost(f"its address cannot be had: {error}") from None


def _clock_pages(servers: tuple[str, ...]) -> dict[str, str]:
    """The metrics page of each endpoint that a registry names: only there a server says where it is."""
    pages: dict[str, str] = {}
    for folder in (Path(url.removeprefix(REGISTRY)) for url in servers if url.startswith(REGISTRY)):
        for path in folder.glob(f"*{SUFFIX}"):
            try:
                entry = read_entry(path)
                page_of(entry, here=host_id())
            except (OSError, ValueError):  # it is none, or its page is not to be reached from here
                continue
            pages |= dict.fromkeys(entry.endpoints, entry.metrics_url)
    return pages


def _request(video: str) -> ClipRequest:
    return ClipRequest(
        video=video,
        start_s=0.0,
        end_s=1.0,
        sampling=Segments(frames=4),
        crop=RandomResizedCrop(),
        width_px=224,
        height_px=224,
    )


def _measure(url: str, request: ClipRequest | None, asked: Asked, page: str) -> ServerFacts:
    large = None if request is None else replace(request, width_px=_LARGE_PX, height_px=_LARGE_PX)
    clock_s = _clock(page, asked.limit_s) if page else None
    try:
        _check_name(url, asked.limit_s)
        with _Talk(url, asked) as talk:
            who = talk.describe()
            if request is None or large is None:
                return ServerFacts(url=url, who=who, clock_s=clock_s)
            try:
                clip_s, sha256, _ = talk.clip(request)
            except FramefeedError as error:
                return ServerFacts(url=url, who=who, clip_trouble=str(error), clock_s=clock_s)
            speed = _speed(talk, large)
    except FramefeedError as error:
        if isinstance(error, BadInput):
            raise
        return ServerFacts(url=url, trouble=str(error), clock_s=clock_s)
    return ServerFacts(url=url, who=who, clip_s=clip_s, clip_sha256=sha256, network_bytes_s=speed, clock_s=clock_s)


def _speed(talk: _Talk, large: ClipRequest) -> float | None:
    """Bytes a second of a large clip, without the time that its server says it took to make it; the best of some. None
    where it gives none so large.
    """
    speeds = []
    for _ in range(_LARGE_TRIES):
        try:
            took_s, _, reply = talk.clip(large)
        except FramefeedError:
            break
        speeds.append(large.clip_bytes / max(took_s - sum(reply.info.stage_s.values()), _LEAST_S))
    return max(speeds, default=None)


def _clock(page: str, limit_s: float) -> float | None:
    """How far the clock of a page's server is ahead, to a second; None if it does not say."""
    try:
        date = get_answer(page, limit_s=limit_s, most_bytes=1).date
        return parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
    except (FramefeedError, ValueError):
        return None


class _Talk:
    """One connection to one server; every answer is waited for no longer than the limit."""

    def __init__(self, url: str, asked: Asked) -> None:
        self._url, self._limit_s, self._attempt = url, asked.limit_s, 0
        credentials = Credentials(**asked.credentials)
        most_bytes = 4 * _LARGE_PX * _LARGE_PX * 3
        self._ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._theirs = theirs
        limits = TransportLimits(clip_bytes=most_bytes, secrets=credentials.watch())
        self._connections = Connections(limits, wake=theirs)
        self._connected = False

    def __enter__(self) -> _Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()
        self._ours.close()
        self._theirs.close()

    def describe(self) -> ServerReply:
        """Connect, and ask who it is. Raises ServerLost if there is no answer, with what is known of why."""
        self._connections.connect(self._url)
        self._wait(lambda: self._connected, "no connection")
        self._attempt += 1
        reply = self._answer(pack_call(DescribeCall(attempt=self._attempt)), None)
        if not isinstance(reply, ServerReply):
            raise ServerLost(f"says {reply.code}: {reply.message}" if isinstance(reply, ErrorReply) else "says no name")
        return reply

    def clip(self, request: ClipRequest) -> tuple[float, str, ClipReply]:
        """(seconds that it took, the hash of its pixels, what came with them). Raises what the server says."""
        self._attempt += 1
        pixels = np.empty(request.clip_bytes, np.uint8)
        call = DecodeCall(attempt=self._attempt, deadline_s=self._limit_s, request=request)
        began_s = time.monotonic()
        reply = self._answer(pack_call(call), pixels)
        took_s = time.monotonic() - began_s
        if isinstance(reply, ErrorReply):
            raise reply.error()
        if not isinstance(reply, ClipReply):
            raise ServerLost("answers what it was not asked")
        return took_s, hashlib.sha256(pixels.tobytes()).hexdigest(), reply

    def _answer(self, call: bytes, into: npt.NDArray[np.uint8] | None) -> Reply:
        found: list[Reply] = []
        until_s = time.monotonic() + self._limit_s
        self._wait(lambda: self._connections.send(self._url, call), "its connection takes nothing")
        while not found:
            if time.monotonic() > until_s:
                raise ServerLost(f"does not answer within {self._limit_s:g} s")
            if any(signal.kind is Kind.MESSAGES for signal in self._connections.wait(until_s - time.monotonic())):
                found = self._read(into)
        return found[0]

    def _read(self, into: npt.NDArray[np.uint8] | None) -> list[Reply]:
        """The answer to the last call, if it is among what came."""
        while (header := self._connections.header(self._url)) is not None:
            reply = unpack_reply(header)
            self._connections.pixels(self._url, into if reply.attempt == self._attempt else None)
            if reply.attempt == self._attempt:
                return [reply]
        return []

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        until_s = time.monotonic() + self._limit_s
        while not done():
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                why = self._connections.trouble(self._url)
                raise ServerLost(f"{what} within {self._limit_s:g} s" + (f": {why}" if why else ""))
            signals = self._connections.wait(min(left_s, 0.1))
            self._connected = self._connected or any(signal.kind is Kind.CONNECTED for signal in signals)
