"""A FrontSocket on an event loop: what a gateway says goes out together, once a turn. It knows no message."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from decode_server.service.listeners.gateway.front_socket import FrontSocket
from decode_server.service.listeners.gateway.gateway_messages import FromFront, FromGateway


class FrontChannel:
    """Made within a running loop; `take` is called with each message of the front."""

    def __init__(self, channel: socket.socket, take: Callable[[FromFront], None]) -> None:
        self._front, self._take = FrontSocket(channel), take
        self._loop = asyncio.get_running_loop()
        self._due = self._writes = False
        self._room = asyncio.Event()
        self._room.set()
        self._loop.add_reader(self._front.fileno(), self._read)

    def say(self, message: FromGateway) -> None:
        """Tell the front something, at the end of this turn."""
        self._front.say(message)
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
        self._front.flush()
        self._wait_to_write(self._front.is_full)

    def _wait_to_write(self, wanted: bool) -> None:
        if wanted == self._writes:
            return
        self._writes = wanted
        if wanted:
            self._room.clear()
            self._loop.add_writer(self._front.fileno(), self.flush)
        else:
            self._room.set()
            self._loop.remove_writer(self._front.fileno())

    def _read(self) -> None:
        for message in self._front.receive():
            self._take(message)
