"""tcp:// by ZeroMQ: one DEALER a server. The one file of the client that knows zmq.

A server whose host dies without a word is noticed by heartbeats.
"""

from __future__ import annotations

import select
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import zmq
from zmq.utils.monitor import recv_monitor_message

from framefeed.errors import BadInput
from framefeed.wire import MAX_HEADER_BYTES
from trainer_client.transports.transport import (
    HEARTBEAT_LOST_MS,
    HEARTBEAT_MS,
    RETRY_MAX_S,
    RETRY_S,
    Kind,
    Signal,
    TransportLimits,
)

_HANDSHAKE_MS = 5000
_IO_THREADS = 4  # connections are spread over them: servers that are received from at once
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


@dataclass(slots=True, eq=False)
class _Link:
    """The sockets of one server and their descriptors."""

    url: str
    dealer: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    fds: tuple[int, int]


class ZmqTransport:
    """See Transport. A descriptor of ZeroMQ shows changes only, so a socket that was used is looked at again."""

    def __init__(self, limits: TransportLimits) -> None:
        self._secrets = limits.secrets
        self._max_part_bytes = max(limits.clip_bytes, MAX_HEADER_BYTES)
        self._context = zmq.Context(io_threads=_IO_THREADS)
        self._epoll = select.epoll()
        self._links: dict[str, _Link] = {}
        self._by_fd: dict[int, _Link] = {}
        self._used: set[str] = set()  # since signals() looked: what their descriptors showed may be swallowed

    def connect(self, url: str) -> None:
        """No message part larger than a clip, or than a header may be, is accepted from the network."""
        dealer = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.IPV6, 1),
            (zmq.MAXMSGSIZE, self._max_part_bytes),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_LOST_MS),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.RECONNECT_IVL, int(RETRY_S * 1000)),
            (zmq.RECONNECT_IVL_MAX, int(RETRY_MAX_S * 1000)),
        ):
            dealer.setsockopt(option, value)
        if url.startswith("tcp://"):
            self._lock(dealer)
        monitor = dealer.get_monitor_socket(_EVENTS)
        link = _Link(url, dealer, monitor, (_fd(dealer), _fd(monitor)))
        self._links[url] = link
        for fd in link.fds:
            self._by_fd[fd] = link
            self._epoll.register(fd, select.EPOLLIN)
        self._used.add(url)
        try:
            dealer.connect(url)
        except zmq.ZMQError as error:
            self.disconnect(url)
            raise BadInput(f"server address {url!r} cannot be used: {error.strerror}") from None

    def disconnect(self, url: str) -> None:
        """See Transport."""
        link = self._links.pop(url)
        self._used.discard(url)
        for fd in link.fds:
            self._epoll.unregister(fd)
            del self._by_fd[fd]
        link.dealer.disable_monitor()
        link.monitor.close(0)
        link.dealer.close(0)

    def fileno(self) -> int:
        """See Transport."""
        return self._epoll.fileno()

    def signals(self) -> list[Signal]:
        """See Transport."""
        looked = self._used.union(self._by_fd[fd].url for fd, _ in self._epoll.poll(0))
        self._used.clear()
        messages, changes = [], []
        for url in looked:
            link = self._links[url]
            if _readable(link.dealer):
                messages.append(Signal(url, Kind.MESSAGES))
                self._used.add(url)
            changes += self._changes(link)
        return messages + changes

    def send(self, url: str, header: bytes) -> bool:
        """See Transport."""
        self._used.add(url)
        try:
            self._links[url].dealer.send(header, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def header(self, url: str) -> bytes | None:
        """See Transport."""
        self._used.add(url)
        try:
            return self._links[url].dealer.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int:
        """See Transport: ZeroMQ's own memory is copied into the array; further parts are dropped."""
        dealer, received_bytes = self._links[url].dealer, 0
        while dealer.rcvmore:
            received_bytes += dealer.recv_into(bytearray() if into is None else into.data, flags=zmq.NOBLOCK)
            into = None
        return received_bytes

    def close(self) -> None:
        """See Transport."""
        for url in list(self._links):
            self.disconnect(url)
        self._context.destroy(0)
        self._epoll.close()

    def _lock(self, dealer: zmq.Socket[bytes]) -> None:
        """Speak CURVE only, if there are keys for it."""
        ours, theirs = self._secrets.curve_key, self._secrets.curve_server
        if ours is not None and theirs is not None:
            dealer.setsockopt(zmq.CURVE_SECRETKEY, ours)
            dealer.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(ours))
            dealer.setsockopt(zmq.CURVE_SERVERKEY, theirs)

    def _changes(self, link: _Link) -> list[Signal]:
        signals = []
        while _readable(link.monitor):
            event = recv_monitor_message(link.monitor)["event"]
            kind = Kind.CONNECTED if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else Kind.LOST
            signals.append(Signal(link.url, kind))
        return signals


def _fd(socket: zmq.Socket[bytes]) -> int:
    return cast(int, socket.getsockopt(zmq.FD))


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(cast(int, socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
