"""The outbox: replies on their way to their readers, kept while a reader is slow, never longer than they are of use.

It owns the buffers of finished clips until the transport lets go of them; it knows neither workers nor admission.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.listeners.listener import Delivery, ReaderFull, ReaderGone
from decode_server.service.range_allocator import Buffer

MAX_UNREAD = 1024  # replies kept for one client; more are dropped and counted
MAX_UNREAD_BYTES = 4 << 20  # of the replies kept for all clients of one principal, beside their pixels
KEPT_REPLY_BYTES = 1024  # what keeping one takes beside its header
_RETRY_S, _RETRY_MAX_S = 0.001, 0.05


class Pixels(Struct, frozen=True, kw_only=True, eq=False):
    """The buffer of a clip, its length, and until when its client wants it."""

    buffer: Buffer
    clip_bytes: int
    due_s: float


class Outgoing(Struct, frozen=True, kw_only=True, eq=False):
    """One reply; `late` makes the header that replaces a clip which its reader did not take in time. `principal` is
    whose connection its client is.
    """

    client: bytes
    outcome: str
    header: bytes
    principal: str = ""
    pixels: Pixels | None = None
    late: Callable[[], Outgoing] | None = None

    @property
    def kept_bytes(self) -> int:
        """Memory that it takes while it is kept, its pixels apart: they lie in the buffer pool."""
        return len(self.header) + KEPT_REPLY_BYTES


class ReplyCounter(Protocol):
    """Who counts the replies."""

    def replied(self, outcome: str, sent_bytes: int) -> None:
        """A reply was handed to the transport."""

    def dropped(self, reason: str) -> None:
        """A reply has no reader any more."""

    def wasted(self, reason: str) -> None:
        """A clip was decoded in vain."""


class Sends(Protocol):
    """The transport's part that the outbox uses."""

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> Delivery | None:
        """Send or raise ReaderFull or ReaderGone."""

    def cut(self, client: bytes) -> None:
        """End a client's connection."""


@dataclass(slots=True)
class _Reader:
    unread: deque[Outgoing]
    retry_s: float
    delay_s: float = _RETRY_S


@dataclass(slots=True)
class _InTransit:
    """The clips of one client that the transport still reads, and when the last one of them was delivered or begun."""

    progress_s: float
    clips: deque[tuple[Delivery, Buffer]] = field(default_factory=deque)


class Outbox:
    """Replies in the order they were put, for each client. `tend` retries, expires and frees.

    A client of whose clips none was delivered for `lease_s`, as a process that was stopped, is cut off.
    """

    def __init__(self, transport: Sends, buffer_pool: BufferPool, counter: ReplyCounter, *, lease_s: float) -> None:
        self.waiting = 0  # replies that the transport has not taken
        self.in_transit = 0  # clips that the transport still reads from the buffer pool
        self._transport = transport
        self._buffer_pool = buffer_pool
        self._counter = counter
        self._slow: dict[bytes, _Reader] = {}
        self._unread_bytes: Counter[str] = Counter()  # by principal
        self._in_transit: dict[bytes, _InTransit] = {}
        self._lease_s = lease_s
        self._lease_ends_s = math.inf  # a lower bound: exact after each look
        self._gone: set[bytes] = set()

    def blocks(self, client: bytes) -> bool:
        """Whether a client has replies to read before it gets more."""
        return client in self._slow

    def put(self, reply: Outgoing, *, now_s: float) -> None:
        """Send a reply, or keep it behind the others that its client has not read."""
        self.waiting += 1
        reader = self._slow.get(reply.client)
        if reader is None:
            if self._try(reply, now_s):
                return
            reader = _Reader(deque(), now_s + _RETRY_S)
        full = self._unread_bytes[reply.principal] + reply.kept_bytes > MAX_UNREAD_BYTES
        if full or len(reader.unread) >= MAX_UNREAD:
            self._drop(reply, "unread")
            return
        self._slow[reply.client] = reader
        reader.unread.append(reply)
        self._unread_bytes[reply.principal] += reply.kept_bytes

    @property
    def unread_bytes(self) -> int:
        """Memory that replies take which their readers do not take, pixels apart."""
        return self._unread_bytes.total()

    def tend(self, now_s: float) -> set[bytes]:
        """Retry slow readers, replace what came too late, free what was delivered; returns clients found gone."""
        self._collect(now_s)
        if now_s >= self._lease_ends_s:
            self._end_leases(now_s)
        for client, reader in list(self._slow.items()):
            if now_s >= reader.retry_s:
                self._retry(client, reader, now_s)
        gone, self._gone = self._gone, set()
        return gone

    def next_timer_s(self) -> float:
        """When to call `tend` next for the sake of a slow reader, or of one that reads no more."""
        if not self._slow:
            return self._lease_ends_s
        return min(reader.retry_s for reader in self._slow.values())

    def _end_leases(self, now_s: float) -> None:
        for client, in_transit in list(self._in_transit.items()):
            if now_s >= in_transit.progress_s + self._lease_s:
                in_transit.progress_s = now_s  # a transport that leaves it at that is told again then
                self._transport.cut(client)
        self._collect(now_s)
        begun_s = min((in_transit.progress_s for in_transit in self._in_transit.values()), default=math.inf)
        self._lease_ends_s = begun_s + self._lease_s

    def _collect(self, now_s: float) -> None:
        """Free the buffers of clips that were delivered: a client's are, in the order in which they were sent."""
        for client, in_transit in list(self._in_transit.items()):
            while in_transit.clips and in_transit.clips[0][0].done:
                _, buffer = in_transit.clips.popleft()
                self._buffer_pool.ranges.free(buffer)
                self.in_transit -= 1
                in_transit.progress_s = now_s
            if not in_transit.clips:
                del self._in_transit[client]

    def _retry(self, client: bytes, reader: _Reader, now_s: float) -> None:
        self._expire(reader, now_s)
        before = len(reader.unread)
        while reader.unread and self._try(reader.unread[0], now_s):
            self._let_go(reader.unread.popleft())
        if not reader.unread:
            del self._slow[client]
            return
        reader.delay_s = _RETRY_S if len(reader.unread) < before else min(2 * reader.delay_s, _RETRY_MAX_S)
        reader.retry_s = now_s + reader.delay_s

    def _expire(self, reader: _Reader, now_s: float) -> None:
        for i, reply in enumerate(reader.unread):
            if reply.pixels is not None and reply.late is not None and now_s >= reply.pixels.due_s:
                self._buffer_pool.ranges.free(reply.pixels.buffer)
                self._counter.wasted("late")
                self._let_go(reply)
                reader.unread[i] = reply.late()
                self._unread_bytes[reply.principal] += reader.unread[i].kept_bytes

    def _let_go(self, reply: Outgoing) -> None:
        """It is kept no more."""
        self._unread_bytes[reply.principal] -= reply.kept_bytes
        if not self._unread_bytes[reply.principal]:
            del self._unread_bytes[reply.principal]

    def _try(self, reply: Outgoing, now_s: float) -> bool:
        """Send it if its reader can take it; False leaves it waiting."""
        pixels = reply.pixels
        view = None if pixels is None else self._buffer_pool.view(pixels.buffer, pixels.clip_bytes)
        try:
            delivery = self._transport.send(reply.client, reply.header, view)
        except ReaderFull:
            return False
        except ReaderGone:
            self._gone.add(reply.client)
            self._drop(reply, "client_gone")
            return True
        self.waiting -= 1
        self._counter.replied(reply.outcome, len(reply.header) + (pixels.clip_bytes if pixels else 0))
        if pixels is not None:
            assert delivery is not None, "outbox: pixels were sent without a way to know when they are delivered"
            in_transit = self._in_transit.get(reply.client)
            if in_transit is None:
                in_transit = self._in_transit[reply.client] = _InTransit(now_s)
            self._lease_ends_s = min(self._lease_ends_s, in_transit.progress_s + self._lease_s)
            self.in_transit += 1
            in_transit.clips.append((delivery, pixels.buffer))
        return True

    def _drop(self, reply: Outgoing, reason: str) -> None:
        self.waiting -= 1
        self._counter.dropped(reason)
        if reply.pixels is not None:
            self._counter.wasted("client_gone")
            self._buffer_pool.ranges.free(reply.pixels.buffer)

    def __repr__(self) -> str:
        return f"Outbox({self.waiting} waiting for {len(self._slow)} readers, {self.in_transit} in transit)"
