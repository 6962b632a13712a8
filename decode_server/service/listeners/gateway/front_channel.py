"""A gateway's socket to the front, on an event loop: what it says goes out together, once a turn. It knows no message.

The process ends when the front has: nobody else has the answers.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from decode_server.service.listeners.gateway.gateway_messages import (
    MAX_DATAGRAM_BYTES,
    FromFront,
    FromGateway,
    pack_datagrams,
    unpack_from_front,
)

_DATAGRAMS_A_TURN = 64


class FrontChannel:
    """Made within a running loop; `take` is called with each message of the front."""

    def __init__(self, channel: socket.socket, take: Callable[[FromFront], None]) -> None:
        channel.setblocking(False)
        self._channel, self._take = channel, take
        self._loop = asyncio.get_running_loop()
        self._said: list[FromGateway] = []
        self._unsent: deque[bytes] = deque()
        self._due = self._writes = False
        self._room = asyncio.Event()
        self._room.set()
        self._datagram = bytearray(MAX_DATAGRAM_BYTES)
        self._loop.add_reader(channel.fileno(), self._read)

    def say(self, message: FromGateway) -> None:
        """Tell the front something, at the end of this turn."""
        self._said.append(message)
        if not self._due:
            self._due = True
            self._loop.call_soon(self.flush)

    async def room(self) -> None:
        """Wait while the front does not take what was said."""
        while not self._room.is_set():
            await self._room.wait()

    def flush(self) -> None:
        """Hand over what was said, as far as the front takes it now."""
        self._due = False
        if self._said:
            self._unsent += pack_datagrams(self._said)
            self._said = []
        while self._unsent:
            try:
                self._channel.send(self._unsent[0])
            except BlockingIOError:
                self._wait_to_write(True)
                return
            except OSError:
                os._exit(0)
            self._unsent.popleft()
        self._wait_to_write(False)

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted == self._writes:
            return
        self._writes = wanted
        if wanted:
            self._room.clear()
            self._loop.add_writer(self._channel.fileno(), self.flush)
        else:
            self._room.set()
            self._loop.remove_writer(self._channel.fileno())

    def _read(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                length = self._channel.recv_into(self._datagram)
            except BlockingIOError:
                return
            except OSError:
                length = 0
            if not length:
                os._exit(0)
            for message in unpack_from_front(memoryview(self._datagram)[:length]):
                self._take(message)
