"""The ROUTER socket of a gateway, and whose connection a message came over. It does not know what the frames say.

Two things of ZeroMQ are made safe here. It names clients by counting up from a number of the C library's `rand`, which
is the same at every start unless somebody seeds that; and it lets a client choose the name that it will itself give to
a later one, by which it aborts then (libzmq 4.3.5, router.cpp, add_out_pipe). So `rand` is seeded, and whoever comes
under a name that ZeroMQ has not given is refused. There is no handover: nobody can take the name of one that is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from typing import cast

import zmq

from decode_server.service.listeners.gateway.zmq_connections import Connection
from framefeed.wire import MAX_HEADER_BYTES
from framefeed.zmtp import largest_frame_bytes

REPLIES_PER_CLIENT = 16  # that ZeroMQ holds for a client before it calls it slow
_CALLS_PER_CLIENT = 256
_HEARTBEAT_MS, _SILENCE_MS = 10_000, 60_000  # a peer silent for that long is cut off, and what it held is freed
_HANDSHAKE_MS = 5000
_GIVEN = struct.Struct(">BI")  # a name that ZeroMQ gives: a zero and a number
_BASE = "inproc://base"
_BYTES_RECEIVED = struct.Struct("@128xQ")  # of struct tcp_info, tcpi_bytes_received
Zmq = zmq.Socket[bytes]

_libc = ctypes.CDLL(None)


def open_router(context: zmq.Context[Zmq], *, curve_secret: str) -> Zmq:
    """A ROUTER that is not bound yet."""
    seed_names()
    router = context.socket(zmq.ROUTER)
    largest_bytes = largest_frame_bytes(2 * MAX_HEADER_BYTES, curve=bool(curve_secret))
    for option, value in (
        (zmq.ROUTER_MANDATORY, 1),
        (zmq.SNDHWM, REPLIES_PER_CLIENT),
        (zmq.RCVHWM, _CALLS_PER_CLIENT),
        (zmq.MAXMSGSIZE, largest_bytes),  # beyond it the connection is cut before memory is taken
        (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS),
        (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
        (zmq.LINGER, 0),
    ):
        router.setsockopt(option, value)
    if curve_secret:
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, curve_secret.encode())
    return router


def seed_names() -> None:
    """Let the names of a ROUTER that is made next begin where nobody can guess."""
    _libc.srand(ctypes.c_uint(int.from_bytes(os.urandom(4))))


class Names:
    """Which names ZeroMQ has given to clients: those from its first on, one a connection."""

    def __init__(self, context: zmq.Context[Zmq], router: Zmq) -> None:
        """Learns the first name by being the first client. Before the router is bound."""
        router.bind(_BASE)
        with context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(_BASE)
            dealer.send(b"")
            first, _ = router.recv_multipart(zmq.NOBLOCK)
        router.unbind(_BASE)
        self._first: int = _GIVEN.unpack(first)[1]
        self._given = 1

    def made(self) -> None:
        """A connection was made, and will get a name."""
        self._given += 1

    def has_given(self, client: bytes) -> bool:
        """Whether it is one of them, and not one that a client has chosen."""
        if len(client) != _GIVEN.size or client[0]:
            return False
        number: int = _GIVEN.unpack(client)[1]
        return (number - self._first) % (1 << 32) <= self._given


def zmq_fd(of: Zmq) -> int:
    """The descriptor that is readable when something happened at a socket since it was last asked of."""
    return cast(int, of.getsockopt(zmq.FD))


def has_message(of: Zmq) -> bool:
    """Whether a message lies ready. Takes in what happened at the socket."""
    return bool(cast(int, of.getsockopt(zmq.EVENTS)) & zmq.POLLIN)


def source_of(part: zmq.Frame) -> int | None:
    """The descriptor of the connection that a message came over; it may have ended, and be another's by now.

    None of a message that says not where it came from, as those of ZMTP 1.0 and 2.0.
    """
    try:
        return int(part.get(zmq.SRCFD))
    except zmq.ZMQError:
        return None


def peer_of(fd: int) -> tuple[str, int] | None:
    """The address and port at the other end of a connection; None if it has ended."""
    try:
        with _borrowed(fd) as connection:
            address, port = connection.getpeername()[:2]
            return address, port
    except OSError:
        return None


def received_bytes(connection: Connection) -> int:
    """How many bytes have come over a connection so far; 0 if it ended."""
    try:
        with _borrowed(connection.fd) as one:
            found = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
            return int(_BYTES_RECEIVED.unpack(found)[0])
    except (OSError, struct.error):
        return 0


def cut(connection: Connection) -> None:
    """End a connection, unless it ended and its descriptor is another's."""
    with contextlib.suppress(OSError), _borrowed(connection.fd) as one:
        if one.getpeername()[:2] == connection.peer:
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket of ZeroMQ's, which stays ZeroMQ's to close."""
    borrowed = socket.socket(fileno=fd)
    try:
        yield borrowed
    finally:
        borrowed.detach()
