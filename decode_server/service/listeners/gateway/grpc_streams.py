"""Streams of gRPC's gateway: replies of the front to those that read them, in order for each. Knows no transport.

The front gives a stream no more than it can have unread, so what waits is bounded; a clip's pixels stay in the buffer
pool until its stream takes them. All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

from decode_server.service.listeners.gateway.gateway_messages import Reply

CALLS_PER_STREAM = 256  # unanswered; the next is not handed over before one is answered


class Stream:
    """One call of a client."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.credits = asyncio.Semaphore(CALLS_PER_STREAM)
        self.used = False  # whether a message came over it
        self.sending = 0  # replies that were taken and not written yet
        self._replies: deque[Reply] = deque()
        self._more = asyncio.Event()
        self._cut = asyncio.Event()

    def put(self, reply: Reply) -> None:
        """Queue a reply."""
        self._replies.append(reply)
        self._more.set()

    async def take(self) -> Reply:
        """The next reply; waits for one for as long as there is none."""
        while not self._replies:
            self._more.clear()
            await self._more.wait()
        return self._replies.popleft()

    @property
    def idle(self) -> bool:
        """Whether no reply waits or is being written."""
        return not self._replies and not self.sending

    def cut(self) -> None:
        """The call is to end."""
        self._cut.set()

    async def was_cut(self) -> None:
        """Waits until it is cut."""
        await self._cut.wait()

    def left(self) -> list[int]:
        """The numbers of replies that nobody took."""
        return [reply.number for reply in self._replies]


class Streams:
    """All that stand."""

    def __init__(self) -> None:
        self._streams: dict[bytes, Stream] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def idle(self) -> bool:
        """Whether no reply waits or is being written, for any stream."""
        return all(stream.idle for stream in self._streams.values())

    def open(self) -> Stream:
        """A new stream, with a name that none had before."""
        stream = Stream(next(self._numbers).to_bytes(8))
        self._streams[stream.name] = stream
        return stream

    def end(self, stream: Stream) -> list[int]:
        """The stream is over; returns the numbers of replies that nobody took."""
        del self._streams[stream.name]
        return stream.left()

    def send(self, reply: Reply) -> bool:
        """Queue a reply for its stream; False if that is over."""
        stream = self._streams.get(reply.client)
        if stream is None:
            return False
        stream.put(reply)
        return True

    def cut(self, name: bytes) -> None:
        """End a stream, if it stands."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.cut()
