"""Finds and spells the messages in one direction of a ZeroMQ connection (ZMTP 3.1); it knows no sockets.

Source: rfc.zeromq.org/spec/37. A greeting of 64 bytes, then frames: flags (1 more follow, 2 long, 4 command), a length
of one or eight bytes, the body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_GREETING_BYTES = 64
_MORE, _LONG, _COMMAND = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes as they came. `header` is where the first frame of a message has its body; None for what is no message."""

    data: bytes
    header: slice | None


class Messages:
    """Cuts a stream into commands and whole messages; what is incomplete waits for the rest.

    The greeting passes as it comes: each side sends its second half only after the other's first.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._greeting_bytes = _GREETING_BYTES

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that are complete with these bytes."""
        self._rest += data
        if self._greeting_bytes:
            greeting = self._take(self._greeting_bytes)
            self._greeting_bytes -= len(greeting)
            yield Piece(greeting, None)
        while not self._greeting_bytes and (found := self._first()) is not None:
            end, header = found
            yield Piece(self._take(end), header)

    def _take(self, length: int) -> bytes:
        taken, self._rest = self._rest[:length], self._rest[length:]
        return taken

    def _first(self) -> tuple[int, slice | None] | None:
        """Where the first message or command ends, and where its header lies; None if it is not all there."""
        at, header = 0, None
        while len(self._rest) >= at + 9 or (len(self._rest) >= at + 2 and not self._rest[at] & _LONG):
            flags = self._rest[at]
            body = at + (9 if flags & _LONG else 2)
            end = body + int.from_bytes(self._rest[at + 1 : body])
            if end > len(self._rest):
                return None
            if header is None and not flags & _COMMAND:
                header = slice(body, end)
            if not flags & _MORE:
                return end, header
            at = end
        return None


def greeting(mechanism: bytes = b"NULL") -> bytes:
    """The first 64 bytes that a client of ZMTP 3.1 sends."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)


def ready(identity: bytes = b"") -> bytes:
    """The command by which a DEALER without encryption ends its handshake, under a name of its own choice."""
    return _frame(b"\x05READY" + _property(b"Socket-Type", b"DEALER") + _property(b"Identity", identity), _COMMAND)


def part(body: bytes, *, more: bool) -> bytes:
    """A part of a message."""
    return _frame(body, _MORE if more else 0)


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4) + value


def _frame(body: bytes, flags: int) -> bytes:
    if len(body) > 255:
        return bytes((flags | _LONG,)) + len(body).to_bytes(8) + body
    return bytes((flags, len(body))) + body
