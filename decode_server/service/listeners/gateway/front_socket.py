"""A gateway's end of the socket to the front: messages in and out, never blocking. It knows not what they say.

The process ends when the front has: nobody else has the answers.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator

from decode_server.service.listeners.gateway.gateway_messages import (
    MAX_DATAGRAM_BYTES,
    FromFront,
    FromGateway,
    pack_datagrams,
    unpack_from_front,
)

_DATAGRAMS_A_TURN = 64


class FrontSocket:
    """Over the socket of begin_gateway, once what the front says first was read."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._said: list[FromGateway] = []
        self._unsent: deque[bytes] = deque()
        self._datagram = bytearray(MAX_DATAGRAM_BYTES)

    def fileno(self) -> int:
        """Readable when the front says something, writable when it takes more."""
        return self._channel.fileno()

    @property
    def is_full(self) -> bool:
        """Whether the front did not take all that was said by the last flush."""
        return bool(self._unsent)

    def say(self, *messages: FromGateway) -> None:
        """Tell the front something, at the next flush."""
        self._said += messages

    def flush(self) -> None:
        """Hand over what was said, as far as the front takes it now."""
        if self._said:
            self._unsent += pack_datagrams(self._said)
            self._said = []
        while self._unsent:
            try:
                self._channel.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                os._exit(0)
            self._unsent.popleft()

    def receive(self) -> Iterator[FromFront]:
        """What the front said, a turn's worth at most."""
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                length = self._channel.recv_into(self._datagram)
            except BlockingIOError:
                return
            except OSError:
                length = 0
            if not length:
                os._exit(0)
            yield from unpack_from_front(memoryview(self._datagram)[:length])
