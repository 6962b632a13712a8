"""The front's side of a gateway: its clients, what they may have unread, and who they are. It knows no transport.

A process of its own, the gateway, speaks with clients and sends their pixels from the buffer pool; this file speaks
with it, in small messages. When it ends, so do its clients' connections; they connect to the next one and ask again.
"""

from __future__ import annotations

import os
import resource
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.listeners.gateway.gateway_messages import (
    Arrived,
    ClientCall,
    Connections,
    Cut,
    Delivered,
    FromFront,
    FromGateway,
    Left,
    Refused,
    Reply,
    Up,
)
from decode_server.service.listeners.gateway.gateway_process import (
    GatewayDied,
    GatewayEvents,
    GatewayOptions,
    GatewayProcess,
)
from decode_server.service.listeners.listener import Delivery, ReaderFull, ReaderGone
from decode_server.service.refusals import CONNECTION_REASONS, Refusals
from framefeed.errors import BadInput

UNREAD_REPLIES = 16  # that the gateway has for a client before it counts as slow
_GENERATION_BYTES = 4
_DESCRIPTORS_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayKind:
    """Which process serves a URL: its module, the socket that holds its port, whether it inherits that, and what each
    is told first, given the descriptor of the buffer pool and this process's number.
    """

    url: str
    module: str
    port: socket.socket
    inherits_port: bool
    first_words: Callable[[int, int], Sequence[FromFront]]
    clients_limit: int


@dataclass(slots=True, eq=False)
class _Client:
    principal: str
    unread: int = 0


@dataclass(slots=True, eq=False)
class _Sent:
    """A reply that the gateway has. As a Delivery, see listener.py."""

    reader: _Client
    done: bool = False


class GatewayListener:
    """See Listener. The port is its own to close."""

    def __init__(
        self, kind: GatewayKind, buffer_pool: BufferPool, *, refusals: Refusals, events: GatewayEvents | None
    ) -> None:
        """Raises BadInput if no process can be started."""
        self.url, self._port, self.clients_limit = kind.url, kind.port, kind.clients_limit
        self._buffer_pool, self._refusals = buffer_pool, refusals
        self._buffer_pool_fd = buffer_pool_fd = buffer_pool.open_to_read()
        self._clients: dict[bytes, _Client] = {}
        self._sent: dict[int, _Sent] = {}
        self._numbers = 0
        self._calls: deque[tuple[bytes, list[bytes]]] = deque()
        self._generation = 1
        self._prefix = self._generation.to_bytes(_GENERATION_BYTES)
        self._connections = 0
        self.is_up = False  # whether the process that is there now has said that it serves
        port_fds = (kind.port.fileno(),) if kind.inherits_port else ()
        try:
            self._gateway = GatewayProcess(
                GatewayOptions(
                    url=kind.url,
                    module=kind.module,
                    pass_fds=(*port_fds, buffer_pool_fd),
                    first_words=lambda: kind.first_words(buffer_pool_fd, os.getpid()),
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
        """The process that speaks with clients; 0 while there is none."""
        return self._gateway.pid

    @property
    def gateways_ended_cpu_s(self) -> float:
        """CPU time of the processes that did so before this one."""
        return self._gateway.ended_cpu_s

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """See Listener. Raises FramefeedError if no gateway can be started any more."""
        while not self._calls:
            if not self.hear():
                return None
        return self._calls.popleft()

    def hear(self) -> bool:
        """Take in what the gateway says next, or that it died; whether it was anything. Raises as `receive`."""
        try:
            said = self._gateway.receive()
        except GatewayDied:
            self._start_over()
            return True
        for message in said:
            self._hear(message)
        return bool(said)

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
        """See Listener: what the gateway said of it."""
        reader = self._clients.get(client)
        return "" if reader is None else reader.principal

    def cut(self, client: bytes) -> None:
        """See Listener."""
        reader = self._clients.get(client)
        if reader is not None:
            held = f"cut off: it took none of {reader.unread} replies for too long"
            self._refusals.refuse("lease", f"client {reader.principal} at {self.url}", held)
            self._say_cut(client)

    def close(self, *, linger_s: float) -> None:
        """See Listener; blocks 2 s longer at most."""
        self._gateway.close(linger_s=linger_s)
        self._all_done()
        self._close_descriptors()

    def _may_ask(self, principal: str) -> bool:
        """Whether a call of a client that is called so is taken; if not, its connection is cut."""
        del principal
        return True

    def _hear(self, message: FromGateway) -> None:
        match message:
            case ClientCall(client, frames):
                self._called(self._prefix + client, frames)
            case Delivered(numbers):
                for number in numbers:
                    self._delivered(number)
            case Arrived(client, principal):
                self._clients[self._prefix + client] = _Client(principal or "unknown")
            case Left(client):
                self._clients.pop(self._prefix + client, None)
            case Refused(reason, times, who, why):
                known = reason if reason in CONNECTION_REASONS else "nonsense"
                self._refusals.refuse(known, who, why, times=times)
            case Connections(count):
                self._connections = count
            case Up():
                self.is_up = True

    def _say_cut(self, client: bytes) -> None:
        self._gateway.say(Cut(client[_GENERATION_BYTES:]))

    def _delivered(self, number: int) -> None:
        sent = self._sent.pop(number, None)
        if sent is not None:
            sent.done = True
            sent.reader.unread -= 1

    def _called(self, client: bytes, frames: list[bytes]) -> None:
        reader = self._clients.get(client)
        if reader is None:
            return  # no gateway says that
        if self._may_ask(reader.principal):
            self._calls.append((client, frames))
        else:
            self._say_cut(client)

    def _start_over(self) -> None:
        """After a gateway's death: its connections are cut, and it reads nothing of the buffer pool any more."""
        self._all_done()
        self._clients.clear()
        self._connections, self.is_up = 0, False
        self._generation += 1
        self._prefix = self._generation.to_bytes(_GENERATION_BYTES)

    def _all_done(self) -> None:
        for sent in self._sent.values():
            sent.done = True
        self._sent.clear()

    def _close_descriptors(self) -> None:
        self._port.close()
        if self._buffer_pool_fd >= 0:
            os.close(self._buffer_pool_fd)
            self._buffer_pool_fd = -1


def connections_limit(wanted: int) -> int:
    """As many as are wanted and as descriptors allow."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if limit == resource.RLIM_INFINITY else max(min(wanted, limit - _DESCRIPTORS_KEPT), 1)
