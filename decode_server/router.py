"""The ROUTER socket: whole messages in, replies out, nothing lost in silence. The one file here that knows ZeroMQ.

It does not know what the frames say. ROUTER_MANDATORY makes a slow or vanished reader an error instead of a loss.
"""

from __future__ import annotations

import errno
import math
from typing import Protocol

import zmq

from decode_server.endpoint import Endpoint
from framefeed.errors import BadInput
from framefeed.wire import MAX_HEADER_BYTES

MAX_FRAMES = 2  # of a message that are kept, beside the identity: one more than a good one has
_REPLIES_PER_READER = 16  # that ZeroMQ holds for a client before it calls it slow
_CALLS_PER_CLIENT = 256
_HEARTBEAT_MS, _SILENCE_MS = 10_000, 60_000  # a peer silent for that long is cut off, and what it held is freed


class ReaderFull(Exception):
    """The client reads more slowly than it is sent to; the same reply may be sent later."""


class ReaderGone(Exception):
    """The client is not connected."""


class Delivery(Protocol):
    """A message on its way: until it is `done`, its pixels belong to the transport."""

    @property
    def done(self) -> bool:
        """Whether the transport has let go of the pixels."""


class Router:
    """A bound ROUTER socket. It belongs to the thread that uses it. Raises BadInput if it cannot be bound."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._poller = zmq.Poller()
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.ROUTER_HANDOVER, 1),  # a client that comes back under its name replaces its dead connection
            (zmq.SNDHWM, _REPLIES_PER_READER),
            (zmq.RCVHWM, _CALLS_PER_CLIENT),
            (zmq.MAXMSGSIZE, 2 * MAX_HEADER_BYTES),  # beyond it the connection is cut before memory is taken
            (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS),
            (zmq.IPV6, int(endpoint.ipv6)),
            (zmq.LINGER, 0),
        ):
            self._socket.setsockopt(option, value)
        try:
            self._socket.bind(endpoint.url)
        except zmq.ZMQError as error:
            self.close(linger_s=0)
            raise BadInput(_explain(endpoint.url, error)) from None
        self.url = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._poller.register(self._socket, zmq.POLLIN)

    def watch(self, fd: int) -> None:
        """Let `wait` return when this descriptor is readable too."""
        self._poller.register(fd, zmq.POLLIN)

    def wait(self, timeout_s: float) -> None:
        """Block until a message or a watched descriptor can be read, at most `timeout_s`."""
        self._poller.poll(math.ceil(max(timeout_s, 0.0) * 1000))

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """The next message as (client, first MAX_FRAMES frames), or None if there is none now."""
        try:
            client = self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        frames: list[bytes] = []
        while self._socket.getsockopt(zmq.RCVMORE):
            frame = self._socket.recv()
            if len(frames) < MAX_FRAMES:
                frames.append(frame)
        return client, frames

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> Delivery | None:
        """Hand a reply to ZeroMQ without copying its pixels. Raises ReaderFull or ReaderGone, having sent nothing."""
        try:
            self._socket.send(client, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.Again:
            raise ReaderFull from None
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                raise ReaderGone from None
            raise
        if pixels is None:
            self._socket.send(header)
            return None
        self._socket.send(header, zmq.SNDMORE)
        return self._socket.send(pixels, copy=False, track=True)

    def close(self, *, linger_s: float) -> None:
        """Close the socket; blocks up to `linger_s` for replies still under way. Idempotent."""
        self._socket.close(linger=int(linger_s * 1000))
        self._context.term()


def _explain(url: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"bind: {url} is in use; choose another with --bind"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"bind: {url} is no address of this machine"
    return f"bind: {url}: {error.strerror}"
