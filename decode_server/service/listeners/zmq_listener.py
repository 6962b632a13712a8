"""The listener for tcp://: its clients, what they may have unread, and who they are. ZeroMQ itself runs elsewhere.

A process of its own, the gateway, speaks with clients and sends their pixels straight from the buffer pool; this file
speaks with it, in small messages. When it ends, so do its clients' connections; they connect to the next one and ask
again.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections import deque
from dataclasses import dataclass

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.listeners.gateway.gateway_messages import (
    Arrived,
    AskKey,
    ClientCall,
    Connections,
    Cut,
    Delivered,
    FromGateway,
    KeyVerdict,
    Left,
    Refused,
    Reply,
)
from decode_server.service.listeners.gateway.gateway_process import (
    GatewayDied,
    GatewayEvents,
    GatewayOptions,
    GatewayProcess,
)
from decode_server.service.listeners.listener import Delivery, ReaderFull, ReaderGone
from decode_server.service.listeners.security import Curve
from decode_server.service.refusals import CONNECTION_REASONS, Refusals
from framefeed.errors import BadInput

IO_THREADS, CONNECTIONS = 2, 4096
UNREAD_REPLIES = 16  # that the gateway has for a client before it counts as slow
_BACKLOG = 1024
_GENERATION_BYTES = 4
_MEMORY_BYTES, _CURVE_MEMORY_BYTES = 1 << 30, 4 << 30  # of a gateway's own; CURVE enciphers copies of what it sends
_DESCRIPTORS_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ZmqLimits:
    """Threads that send, receive and encipher, over which connections are spread; and how many connections."""

    io_threads: int = IO_THREADS
    connections: int = CONNECTIONS


@dataclass(slots=True, eq=False)
class _Client:
    principal: str
    unread: int = 0


@dataclass(slots=True, eq=False)
class _Sent:
    """A reply that the gateway has. As a Delivery, see listener.py."""

    reader: _Client
    done: bool = False


class ZmqListener:
    """See Listener. Raises BadInput if the address cannot be had.

    With `curve` only clients that have one of its keys can connect, and ask for as long as it is on the list.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        buffer_pool: BufferPool,
        *,
        refusals: Refusals,
        curve: Curve | None = None,
        limits: ZmqLimits | None = None,
        events: GatewayEvents | None = None,
    ) -> None:
        limits = limits or ZmqLimits()
        self._socket = _listen(endpoint)
        self.url = f"{endpoint.url.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        self._buffer_pool, self._refusals, self._curve = buffer_pool, refusals, curve
        self._buffer_pool_fd = buffer_pool.open_to_read()
        self._clients: dict[bytes, _Client] = {}
        self._sent: dict[int, _Sent] = {}
        self._numbers = 0
        self._calls: deque[tuple[bytes, list[bytes]]] = deque()
        self._generation = 1
        self._prefix = self._generation.to_bytes(_GENERATION_BYTES)
        self._connections = 0
        self.clients_limit = _connections(limits.connections)
        try:
            self._gateway = GatewayProcess(
                GatewayOptions(
                    url=self.url,
                    listening_fd=self._socket.fileno(),
                    buffer_pool_fd=self._buffer_pool_fd,
                    curve_secret="" if curve is None else curve.secret.decode(),
                    io_threads=limits.io_threads,
                    connections=self.clients_limit,
                    memory_bytes=_MEMORY_BYTES if curve is None else _CURVE_MEMORY_BYTES,
                    events=events or GatewayEvents(),
                )
            )
        except OSError as error:
            self._close_descriptors()
            raise BadInput(f"bind: {self.url}: no process can be started for it ({error})") from None

    def fileno(self) -> int:
        """See Listener: readable when the gateway says something, or died."""
        return self._gateway.fileno()

    @property
    def pending(self) -> bool:
        """Whether a call waits here, or a gateway is to be started."""
        return bool(self._calls) or self._gateway.due

    @property
    def clients(self) -> int:
        """See Listener."""
        return self._connections

    @property
    def gateway_pid(self) -> int:
        """The process that runs ZeroMQ; 0 while there is none."""
        return self._gateway.pid

    @property
    def gateways_ended_cpu_s(self) -> float:
        """CPU time of the processes that ran it before this one."""
        return self._gateway.ended_cpu_s

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """See Listener. Raises FramefeedError if no gateway can be started any more."""
        while not self._calls:
            try:
                said = self._gateway.receive()
            except GatewayDied:
                self._start_over()
                continue
            if not said:
                return None
            for message in said:
                self._hear(message)
        return self._calls.popleft()

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> Delivery | None:
        """Hand a reply, and where its pixels lie, to the gateway at the next flush. Raises ReaderFull or ReaderGone."""
        reader = self._clients.get(client)
        if reader is None:
            raise ReaderGone
        if reader.unread >= UNREAD_REPLIES or self._gateway.full:
            raise ReaderFull
        self._numbers += 1
        reader.unread += 1
        sent = self._sent[self._numbers] = _Sent(reader)
        offset, length_bytes = (0, 0) if pixels is None else (self._buffer_pool.offset_of(pixels), pixels.nbytes)
        self._gateway.say(Reply(self._numbers, client[_GENERATION_BYTES:], header, offset, length_bytes))
        return None if pixels is None else sent

    def flush(self) -> None:
        """See Listener."""
        self._gateway.flush()

    def principal(self, client: bytes) -> str:
        """See Listener: a client's CURVE key, or else its address."""
        reader = self._clients.get(client)
        return "" if reader is None else reader.principal

    def cut(self, client: bytes) -> None:
        """See Listener."""
        reader = self._clients.get(client)
        if reader is not None:
            held = f"cut off: it took none of {reader.unread} replies for too long"
            self._refusals.refuse("lease", f"client {reader.principal} at {self.url}", held)
            self._gateway.say(Cut(client[_GENERATION_BYTES:]))

    def close(self, *, linger_s: float) -> None:
        """See Listener; blocks 2 s longer at most."""
        self._gateway.close(linger_s=linger_s)
        self._all_done()
        self._close_descriptors()

    def _hear(self, message: FromGateway) -> None:
        match message:
            case ClientCall(client, frames):
                self._called(self._prefix + client, frames)
            case Delivered(numbers):
                for number in numbers:
                    self._delivered(number)
            case Arrived(client, principal):
                self._clients[self._prefix + client] = _Client(principal)
            case Left(client):
                self._clients.pop(self._prefix + client, None)
            case AskKey(number, key):
                self._gateway.say(KeyVerdict(number, self._is_allowed(key, "it is not on the list of --curve-allow")))
            case Refused(reason, times, who, why):
                known = reason if reason in CONNECTION_REASONS else "nonsense"
                self._refusals.refuse(known, who, why, times=times)
            case Connections(count):
                self._connections = count

    def _delivered(self, number: int) -> None:
        sent = self._sent.pop(number, None)
        if sent is not None:
            sent.done = True
            sent.reader.unread -= 1

    def _called(self, client: bytes, frames: list[bytes]) -> None:
        """A call, unless the key that it came under is not on the list any more: ZeroMQ asks at handshakes only."""
        reader = self._clients.get(client)
        if reader is None:
            return  # no gateway says that
        if self._is_allowed(reader.principal, "it is no longer on the list of --curve-allow"):
            self._calls.append((client, frames))
        else:
            self._gateway.say(Cut(client[_GENERATION_BYTES:]))

    def _is_allowed(self, key: str, why_not: str) -> bool:
        if self._curve is None or key.encode() in self._curve.allowed():
            return True
        self._refusals.refuse("key", f"client key {key}", why_not)
        return False

    def _start_over(self) -> None:
        """After a gateway's death: its connections are cut, and it reads nothing of the buffer pool any more."""
        self._all_done()
        self._clients.clear()
        self._connections = 0
        self._generation += 1
        self._prefix = self._generation.to_bytes(_GENERATION_BYTES)

    def _all_done(self) -> None:
        for sent in self._sent.values():
            sent.done = True
        self._sent.clear()

    def _close_descriptors(self) -> None:
        self._socket.close()
        if self._buffer_pool_fd >= 0:
            os.close(self._buffer_pool_fd)
            self._buffer_pool_fd = -1


def _listen(endpoint: Endpoint) -> socket.socket:
    """A bound socket that does not block. Raises BadInput."""
    host, _, port = endpoint.url.removeprefix("tcp://").rpartition(":")
    family = socket.AF_INET6 if endpoint.ipv6 else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.ipv6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host.strip("[]"), int(port)))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise BadInput(_explain(endpoint.url, error)) from None
    return listening


def _explain(url: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"bind: {url} is in use; choose another with --bind"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"bind: {url} is no address of this machine"
    return f"bind: {url}: {error.strerror}"


def _connections(wanted: int) -> int:
    """As many as are wanted and as descriptors allow."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if limit == resource.RLIM_INFINITY else max(min(wanted, limit - _DESCRIPTORS_KEPT), 1)
