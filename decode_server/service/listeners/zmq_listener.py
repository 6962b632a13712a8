"""The ROUTER socket: the listener for tcp://, and the one file here that knows ZeroMQ.

It does not know what the frames say. ROUTER_MANDATORY makes a slow or vanished reader an error instead of a loss.
"""

from __future__ import annotations

import contextlib
import errno
from collections import OrderedDict
from typing import cast

import zmq

from decode_server.service.listeners.curve import ZapHandler
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.listeners.listener import MAX_FRAMES, Delivery, ReaderFull, ReaderGone
from decode_server.service.listeners.security import Curve
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput, FramefeedError
from framefeed.wire import MAX_HEADER_BYTES
from framefeed.zmtp import largest_frame_bytes

_REPLIES_PER_READER = 16  # that ZeroMQ holds for a client before it calls it slow
_CALLS_PER_CLIENT = 256
_PRINCIPALS = 1 << 16  # of clients, remembered
IO_THREADS = 2
_HEARTBEAT_MS, _SILENCE_MS = 10_000, 60_000  # a peer silent for that long is cut off, and what it held is freed


class Router:
    """A bound ROUTER socket. It belongs to the thread that uses it. Raises BadInput if it cannot be bound."""

    def __init__(
        self, endpoint: Endpoint, *, refusals: Refusals, curve: Curve | None = None, io_threads: int = IO_THREADS
    ) -> None:
        """With `curve` only clients that have one of its keys can connect, and ask for as long as it is on the list.

        Connections are spread over `io_threads`, which send, receive and encipher.
        """
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=io_threads)
        self._curve = curve
        self._principals: OrderedDict[bytes, str] = OrderedDict()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.ROUTER_HANDOVER, 1),  # a client that comes back under its name replaces its dead connection
            (zmq.SNDHWM, _REPLIES_PER_READER),
            (zmq.RCVHWM, _CALLS_PER_CLIENT),
            (
                zmq.MAXMSGSIZE,
                largest_frame_bytes(2 * MAX_HEADER_BYTES, curve=curve is not None),
            ),  # beyond it the connection is cut before memory is taken
            (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS),
            (zmq.IPV6, int(endpoint.ipv6)),
            (zmq.LINGER, 0),
        ):
            self._socket.setsockopt(option, value)
        self._zap = ZapHandler(self._context, self._socket, refusals)
        if curve is not None:
            self._zap.lock(self._socket, curve)
        self._zap.open()
        try:
            self._socket.bind(endpoint.url)
        except zmq.ZMQError as error:
            self.close(linger_s=0)
            raise BadInput(_explain(endpoint.url, error)) from None
        self.url = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def fileno(self) -> int:
        """ZeroMQ's own descriptor: it shows changes only, so `pending` must be asked before it is waited for."""
        return cast(int, self._socket.getsockopt(zmq.FD))

    @property
    def pending(self) -> bool:
        """Whether a message lies ready, or the ZAP handler's thread has ended, which `receive` raises."""
        return not self._zap.alive or bool(cast(int, self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    @property
    def clients(self) -> None:
        """See Listener."""

    @property
    def clients_limit(self) -> None:
        """See Listener."""

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """See Listener. Raises FramefeedError if the ZAP handler's thread has ended."""
        if not self._zap.alive:
            raise FramefeedError(f"{self.url}: the thread that lets clients in has ended")
        while True:
            try:
                part = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            client = part.bytes
            self._note(client, part)
            frames = self._frames()
            if frames is not None:
                return client, frames

    def principal(self, client: bytes) -> str:
        """See Listener: the CURVE key, or the address."""
        return self._principals.get(client, "")

    def _note(self, client: bytes, part: zmq.Frame) -> None:
        """Remember whose a client is; those that asked longest ago are forgotten."""
        if client not in self._principals:
            with contextlib.suppress(zmq.ZMQError):  # ZeroMQ does not know it
                self._principals[client] = str(part["Peer-Address" if self._curve is None else "User-Id"])
            if len(self._principals) > _PRINCIPALS:
                self._principals.popitem(last=False)

    def _frames(self) -> list[bytes] | None:
        """The rest of a message, or None if its sender may not ask any more."""
        frames: list[bytes] = []
        may_ask = True
        while self._socket.getsockopt(zmq.RCVMORE):
            if self._curve is None:
                frame = self._socket.recv()
            else:
                part = self._socket.recv(copy=False)
                may_ask, frame = may_ask and self._zap.may_ask(part), part.bytes
            if len(frames) < MAX_FRAMES:
                frames.append(frame)
        return frames if may_ask else None

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

    def cut(self, client: bytes) -> None:
        """See Listener: a peer that does not answer heartbeats is cut off by ZeroMQ; there is no other way to do it."""

    def close(self, *, linger_s: float) -> None:
        """Close the socket; blocks up to `linger_s` for replies still under way. Idempotent."""
        self._socket.close(linger=int(linger_s * 1000))
        self._context.term()
        self._zap.join()


def _explain(url: str, error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"bind: {url} is in use; choose another with --bind"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"bind: {url} is no address of this machine"
    return f"bind: {url}: {error.strerror}"
