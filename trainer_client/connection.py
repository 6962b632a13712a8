"""The client's ZeroMQ sockets: one DEALER a server, used by the one thread that made them; knows no clips or retries.

The one file of the client that knows zmq. A server whose host dies without a word is noticed by heartbeats; a lost
connection is made again for as long as the wire is open, and nothing is queued for a server that is not connected.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

import numpy as np
import numpy.typing as npt
import zmq
from zmq.utils.monitor import recv_monitor_message

from framefeed.errors import BadInput
from framefeed.wire import MAX_HEADER_BYTES

_HEARTBEAT_MS = 1000
_HEARTBEAT_LOST_MS = 5000  # longer than a server may be kept from the CPU by a busy box
_HANDSHAKE_MS = 5000
_RECONNECT_MS, _RECONNECT_MAX_MS = 50, 1000
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


class Kind(Enum):
    """What a signal says."""

    MESSAGES = "messages"  # some lie ready
    CONNECTED = "connected"
    LOST = "lost"  # the connection is gone, with all that was asked over it


@dataclass(frozen=True, slots=True)
class Signal:
    """Something happened at a server's connection."""

    url: str
    kind: Kind


class ZmqWire:
    """The connections to all servers. Every method belongs to the thread that built it; `close()` is idempotent."""

    def __init__(self, urls: Sequence[str], *, wake: socket.socket, clip_bytes: int) -> None:
        """Begins to connect and returns at once. `wake` ends a wait() when something is written to its other end.

        No message part larger than `clip_bytes`, or than a header may be, is accepted from the network. Raises BadInput
        for an address that ZeroMQ refuses.
        """
        self._wake = wake
        self._context = zmq.Context(io_threads=min(len(urls), 4))
        self._poller = zmq.Poller()
        self._poller.register(wake, zmq.POLLIN)
        self._dealers: dict[str, zmq.Socket[bytes]] = {}
        self._monitors: dict[str, zmq.Socket[bytes]] = {}
        try:
            for url in urls:
                self._connect(url, max_part_bytes=max(clip_bytes, MAX_HEADER_BYTES))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ZmqWire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, url: str, header: bytes) -> bool:
        """Hand a message over to the connection; False if there is none or it is full. Never blocks."""
        try:
            self._dealers[url].send(header, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def wait(self, timeout_s: float) -> list[Signal]:
        """What happened, oldest kind first: messages, then connections. Blocks for at most `timeout_s`."""
        ready = {found for found, _ in self._poller.poll(max(math.ceil(timeout_s * 1000), 0))}
        if self._wake.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
        signals = [Signal(url, Kind.MESSAGES) for url, dealer in self._dealers.items() if dealer in ready]
        for url, monitor in self._monitors.items():
            if monitor in ready:
                signals += self._events(url, monitor)
        return signals

    def header(self, url: str) -> bytes | None:
        """The first part of the next message; None if none lies ready. Never blocks."""
        try:
            return self._dealers[url].recv(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int:
        """The rest of the message whose header was just read: its second part goes into the array, without a copy
        between; further ones are dropped. Returns the bytes of all of it, 0 if there is none. Never blocks: a message
        arrives whole or not at all.
        """
        dealer, received_bytes = self._dealers[url], 0
        while dealer.rcvmore:
            received_bytes += dealer.recv_into(bytearray() if into is None else into.data, flags=zmq.NOBLOCK)
            into = None
        return received_bytes

    def close(self) -> None:
        """Close every socket; what was not sent is dropped. Idempotent."""
        for url, dealer in self._dealers.items():
            if not dealer.closed:
                self._poller.unregister(dealer)
                self._poller.unregister(self._monitors[url])
                dealer.disable_monitor()
                dealer.close(0)
        self._context.destroy(0)

    def _connect(self, url: str, *, max_part_bytes: int) -> None:
        dealer = self._context.socket(zmq.DEALER)
        self._dealers[url] = dealer
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.IPV6, 1),
            (zmq.MAXMSGSIZE, max_part_bytes),
            (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_LOST_MS),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
        ):
            dealer.setsockopt(option, value)
        self._monitors[url] = dealer.get_monitor_socket(_EVENTS)
        self._poller.register(dealer, zmq.POLLIN)
        self._poller.register(self._monitors[url], zmq.POLLIN)
        try:
            dealer.connect(url)
        except zmq.ZMQError as error:
            raise BadInput(f"server address {url!r} cannot be used: {error.strerror}") from None

    def _events(self, url: str, monitor: zmq.Socket[bytes]) -> list[Signal]:
        signals = []
        while monitor.poll(0):
            event = recv_monitor_message(monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                signals.append(Signal(url, Kind.CONNECTED))
            elif event == zmq.EVENT_DISCONNECTED:
                signals.append(Signal(url, Kind.LOST))
        return signals
