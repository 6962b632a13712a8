"""What both ends of shm:// say over their Unix socket, and how it is spelled; knows no calls, replies or buffers.

A connection is a SOCK_SEQPACKET, so a datagram is whole or not there. The server first sends HELLO with the descriptor
of its buffer pool, to be read from only. A reply with pixels leases a buffer of it, until the client gives it back.
What a connection was leased comes back when it ends, however it ends, also when the server cuts it off. The server
first changes the connection's lease word then, so that a client which looks at it after it has copied pixels knows
whether they were its own to the end (a sequence lock, with the server as the one writer).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from framefeed.show_value import show_value
from framefeed.wire import MAX_HEADER_BYTES

HELLO = b"framefeed shm 2"
_NAMES = "\0framefeed-shm-"  # of abstract sockets, which have no file and go with their process
_LEASE = struct.Struct("<QQQ")
_WORD = struct.Struct("<QQ")
HELLO_BYTES = len(HELLO) + _WORD.size
_CALL, _BACK = b"C", b"B"
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid
MAX_DATAGRAM_BYTES = MAX_HEADER_BYTES + _LEASE.size
MAX_BACK = 1024  # leases that one datagram gives back


@dataclass(frozen=True, slots=True)
class Lease:
    """A buffer of the pool that a client may read until it gives the lease back; `number`s of a connection grow."""

    number: int
    offset: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class LeaseWord:
    """Leases stand as long as the eight bytes at this offset of the buffer pool are this number, in native order."""

    offset: int
    number: int


def pack_hello(word: LeaseWord) -> bytes:
    """Server to client, first, with the descriptor of the buffer pool."""
    return HELLO + _WORD.pack(word.offset, word.number)


def unpack_hello(datagram: bytes) -> LeaseWord:
    """What a greeting says. Raises ValueError if it is none of this version."""
    if len(datagram) != HELLO_BYTES or not datagram.startswith(HELLO):
        raise ValueError(f"a greeting of {len(datagram)} bytes, wanted {HELLO_BYTES} that begin with {HELLO!r}")
    return LeaseWord(*_WORD.unpack_from(datagram, len(HELLO)))


def socket_address(url: str) -> str:
    """Where the socket of shm://@NAME or shm:///PATH is."""
    name = url.removeprefix("shm://")
    return _NAMES + name[1:] if name.startswith("@") else name


def is_trusted(peer: socket.socket) -> bool:
    """Whether the process at the other end runs as this one's user, or as root (SO_PEERCRED)."""
    return process_of(peer)[1] in (0, os.geteuid())


def process_of(peer: socket.socket) -> tuple[int, int]:
    """(process id, user id) of who made the other end (SO_PEERCRED)."""
    pid, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid


def pack_call(header: bytes) -> bytes:
    """Client to server: a call."""
    return _CALL + header


def pack_back(numbers: Sequence[int]) -> bytes:
    """Client to server: leases that are given back, at most MAX_BACK."""
    return _BACK + struct.pack(f"<{len(numbers)}Q", *numbers)


def unpack_from_client(datagram: bytes) -> bytes | tuple[int, ...]:
    """The header of a call, or the numbers of leases that are given back. Raises ValueError for anything else."""
    kind, body = datagram[:1], datagram[1:]
    if kind == _CALL and len(body) <= MAX_HEADER_BYTES:
        return body
    if kind == _BACK and body and not len(body) % 8 and len(body) <= 8 * MAX_BACK:
        return struct.unpack(f"<{len(body) // 8}Q", body)
    raise ValueError(f"a datagram of {len(datagram)} bytes begins with {show_value(kind)}, wanted a call or leases")


def pack_reply(header: bytes, lease: Lease | None) -> bytes:
    """Server to client: a reply, and where its pixels are."""
    return (_LEASE.pack(lease.number, lease.offset, lease.length_bytes) if lease else bytes(_LEASE.size)) + header


def unpack_reply(datagram: bytes) -> tuple[bytes, Lease | None]:
    """The header of a reply and what is leased with it. Raises ValueError if it is no reply."""
    if not _LEASE.size <= len(datagram) <= MAX_DATAGRAM_BYTES:
        raise ValueError(f"a reply has {len(datagram)} bytes, wanted {_LEASE.size} to {MAX_DATAGRAM_BYTES}")
    lease = Lease(*_LEASE.unpack_from(datagram))
    return datagram[_LEASE.size :], lease if lease.number else None
