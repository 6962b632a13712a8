"""The client's connections to all servers, whatever each speaks: picks the transport by URL. Knows no messages.

They belong to the one thread that made them.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
from collections.abc import Callable
from types import TracebackType

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput, ResourceExhausted
from framefeed.show_value import show_value
from trainer_client.fleet.addresses import scheme_of
from trainer_client.transports.descriptors import no_room, raise_limit
from trainer_client.transports.grpc_transport import GrpcTransport
from trainer_client.transports.shm_transport import ShmTransport
from trainer_client.transports.transport import Signal, Transport, TransportLimits
from trainer_client.transports.zmq_transport import ZmqTransport

TRANSPORTS: dict[str, Callable[[TransportLimits], Transport]] = {
    "tcp": ZmqTransport,
    "shm": ShmTransport,
    "grpc": GrpcTransport,
    "grpcs": GrpcTransport,
}


class Connections:
    """Servers that come and go. A transport is opened when the first of its URLs is; `close()` is idempotent."""

    def __init__(self, limits: TransportLimits, *, wake: socket.socket) -> None:
        """`wake`, which does not block, ends a wait() when something is written to its other end.

        Raises this process's limit of open files to what it may be.
        """
        raise_limit()
        self._limits = limits
        self._wake = wake
        self._poll = select.poll()
        self._poll.register(wake, select.POLLIN)
        self._opened: dict[Callable[[TransportLimits], Transport], Transport] = {}
        self._by_url: dict[str, Transport] = {}

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, url: str) -> None:
        """Begin to connect to a server, and return at once.

        Raises BadInput for an address that cannot be used, ResourceExhausted if there are no descriptors, threads or
        memory for it now.
        """
        if url in self._by_url:
            raise BadInput(f"server address {show_value(url)} is connected already")
        if why := no_room(len(self._by_url)):
            raise ResourceExhausted(f"server {url} cannot be connected to now: {why}")
        try:
            transport = self._transport(TRANSPORTS[scheme_of(url)])
            transport.connect(url)
        except (OSError, RuntimeError) as error:  # no descriptor; no thread
            raise ResourceExhausted(f"server {url} cannot be connected to now: {error}") from None
        self._by_url[url] = transport

    def disconnect(self, url: str) -> None:
        """Let go of a server: no signal names it after this."""
        self._by_url.pop(url).disconnect(url)

    def wait(self, timeout_s: float) -> list[Signal]:
        """What happened at servers since the last call. Blocks for at most `timeout_s` until something did."""
        if signals := self._signals():
            return signals
        ready = {fd for fd, _ in self._poll.poll(max(math.ceil(timeout_s * 1000), 0))}
        if not ready:
            return []
        if self._wake.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
        return self._signals()

    def send(self, url: str, header: bytes) -> bool:
        """As Transport.send."""
        return self._by_url[url].send(url, header)

    def header(self, url: str) -> bytes | None:
        """As Transport.header."""
        return self._by_url[url].header(url)

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int:
        """As Transport.pixels."""
        return self._by_url[url].pixels(url, into)

    def trouble(self, url: str) -> str:
        """As Transport.trouble."""
        return self._by_url[url].trouble(url)

    def close(self) -> None:
        """Close every transport. Idempotent."""
        for transport in self._opened.values():
            transport.close()

    def _transport(self, make: Callable[[TransportLimits], Transport]) -> Transport:
        transport = self._opened.get(make)
        if transport is None:
            transport = self._opened[make] = make(self._limits)
            self._poll.register(transport.fileno(), select.POLLIN)
        return transport

    def _signals(self) -> list[Signal]:
        return [signal for transport in self._opened.values() for signal in transport.signals()]
