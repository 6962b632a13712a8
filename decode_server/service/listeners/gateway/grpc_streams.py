"""Replies from the front's thread to the calls that an event loop serves, and calls the other way. Knows no transport.

Each stream has a bound on what waits for it, and a clip's pixels stay in the buffer pool until the loop takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections import deque
from dataclasses import dataclass

from decode_server.service.listeners.listener import ReaderFull, ReaderGone

CALLS_PER_STREAM = 256  # unanswered; the next is not handed over before one is answered
_REPLIES_PER_STREAM = 16  # that wait for a stream before it is called slow


@dataclass(slots=True, eq=False)
class QueuedReply:
    """A reply on its way; `done` when its pixels are no longer needed. As a Delivery, see listener.py."""

    header: bytes
    pixels: memoryview | None
    done: bool = False

    def deliver(self) -> None:
        """Let go of the pixels."""
        self.pixels, self.done = None, True


class Stream:
    """One call of a client. `put` and `cut` belong to the front's thread, all else to the loop."""

    def __init__(self, name: bytes, loop: asyncio.AbstractEventLoop, *, principal: str) -> None:
        self.name = name
        self.principal = principal
        self.credits = asyncio.Semaphore(CALLS_PER_STREAM)
        self.told = asyncio.Semaphore(CALLS_PER_STREAM)  # less the calls without a reply that the front has not taken
        self._loop = loop
        self._lock = threading.Lock()
        self._queued_replies: deque[QueuedReply] = deque()
        self._more = asyncio.Event()
        self._cut = asyncio.Event()
        self._ended = False

    def put(self, header: bytes, pixels: memoryview | None) -> QueuedReply:
        """Queue a reply. Raises ReaderFull or ReaderGone, having queued nothing."""
        queued_reply = QueuedReply(header, pixels)
        with self._lock:
            if self._ended:
                raise ReaderGone
            if len(self._queued_replies) >= _REPLIES_PER_STREAM:
                raise ReaderFull
            if not self._queued_replies:  # otherwise the loop has still to look, or was told already
                self._loop.call_soon_threadsafe(self._more.set)
            self._queued_replies.append(queued_reply)
        return queued_reply

    async def take(self) -> QueuedReply:
        """The next reply; waits for one for as long as there is none."""
        while True:
            self._more.clear()  # a put() after the look below has its set() still before it in the loop
            with self._lock:
                if self._queued_replies:
                    return self._queued_replies.popleft()
            await self._more.wait()

    @property
    def empty(self) -> bool:
        """Whether no reply waits."""
        return not self._queued_replies

    def cut(self) -> None:
        """From the front's thread: what waits is let go of now, and the loop is to end the call."""
        self.end()
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._cut.set)

    async def was_cut(self) -> None:
        """Waits until it is cut."""
        await self._cut.wait()

    def heard(self) -> None:
        """The front took a call that has no reply."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody tells it anything
            self._loop.call_soon_threadsafe(self.told.release)

    def end(self) -> None:
        """Nobody reads any more: what waits is let go of, and put() raises. Idempotent."""
        with self._lock:
            self._ended = True
            while self._queued_replies:
                self._queued_replies.popleft().deliver()


class Streams:
    """All streams of a listener, and the calls that came over them."""

    def __init__(self) -> None:
        self._streams: dict[bytes, Stream] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._calls: deque[tuple[Stream, bytes, bool]] = deque()  # whose, header, whether it has a reply
        self._rung = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # The loop's side.

    def open(self, principal: str) -> Stream:
        """A new stream of who is called so, with a name that none had before."""
        stream = Stream(next(self._numbers).to_bytes(8), asyncio.get_running_loop(), principal=principal)
        self._streams[stream.name] = stream
        return stream

    def ask(self, stream: Stream, header: bytes) -> None:
        """Hand a call to the front."""
        self._hand_over(stream, header, replied=True)

    async def tell(self, stream: Stream, header: bytes) -> None:
        """Hand a call to the front that has no reply; waits while it has many of them still to take."""
        await stream.told.acquire()
        self._hand_over(stream, header, replied=False)

    def __len__(self) -> int:
        return len(self._streams)

    def end(self, stream: Stream) -> None:
        """The stream is over."""
        del self._streams[stream.name]
        stream.end()

    @property
    def idle(self) -> bool:
        """Whether no reply waits for any stream."""
        return all(stream.empty for stream in list(self._streams.values()))

    # The front's side.

    def fileno(self) -> int:
        """Readable when a call was handed over since `receive` had none."""
        return self._rung

    @property
    def pending(self) -> bool:
        """Whether a call waits."""
        return bool(self._calls)

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """The next call as (stream, [header]); None if there is none."""
        with self._lock:
            if not self._calls:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._rung)
                return None
            stream, header, replied = self._calls.popleft()
        if not replied:
            stream.heard()
        return stream.name, [header]

    def send(self, name: bytes, header: bytes, pixels: memoryview | None) -> QueuedReply | None:
        """As Listener.send."""
        stream = self._streams.get(name)
        if stream is None:
            raise ReaderGone
        queued_reply = stream.put(header, pixels)
        return None if pixels is None else queued_reply

    def principal(self, name: bytes) -> str:
        """As Listener.principal."""
        stream = self._streams.get(name)
        return "" if stream is None else stream.principal

    def cut(self, name: bytes) -> None:
        """As Listener.cut."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.cut()

    def _hand_over(self, stream: Stream, header: bytes, *, replied: bool) -> None:
        with self._lock:
            if not self._calls:  # otherwise the front has still to look, or was told already
                os.eventfd_write(self._rung, 1)
            self._calls.append((stream, header, replied))

    def close(self) -> None:
        """Once the loop has ended. Idempotent."""
        if self._rung >= 0:
            os.close(self._rung)
            self._rung = -1
