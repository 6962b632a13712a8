"""The client's own connections, used message by message: what a feed would do, in the hands of a test."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np

from framefeed.request import ClipRequest
from framefeed.wire import Call, ClipReply, DecodeCall, Reply, pack_call, unpack_reply
from tests.integration.serving import PATIENCE_S
from trainer_client.transports.connection import Connections
from trainer_client.transports.credentials import Secrets
from trainer_client.transports.transport import Kind, TransportLimits

MAX_CLIP_BYTES = 4 << 20


class Talker:
    """One client of one server, connected within its `with`."""

    def __init__(
        self,
        url: str,
        *,
        secrets: Secrets | Callable[[], Secrets] = Secrets(),  # noqa: B008 - it is frozen
        clip_bytes: int = MAX_CLIP_BYTES,
    ) -> None:
        self.url = url
        shown = (lambda: secrets) if isinstance(secrets, Secrets) else secrets
        limits = TransportLimits(clip_bytes=clip_bytes, secrets=shown)
        self.wake, self._waker = socket.socketpair()
        self.wake.setblocking(False)
        self.wire = Connections(limits, wake=self.wake)
        self.seen: list[Kind] = []
        self._clip_bytes: dict[int, int] = {}
        self._pixels = np.zeros(clip_bytes, np.uint8)

    def __enter__(self) -> Talker:
        self.wire.connect(self.url)
        self.await_kind(Kind.CONNECTED)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wire.close()
        self.wake.close()
        self._waker.close()

    def await_kind(self, kind: Kind) -> None:
        """Wait for the next signal of a kind."""
        until_s = time.monotonic() + PATIENCE_S
        while kind not in self.seen:
            assert time.monotonic() < until_s, f"not within {PATIENCE_S:g} s: {kind}"
            self.turn(0.1)
        del self.seen[: self.seen.index(kind) + 1]

    def turn(self, timeout_s: float = 0.0) -> None:
        """Let the connections do what they do at each turn of a feed, and keep what they tell."""
        self.seen += [signal.kind for signal in self.wire.wait(timeout_s) if signal.kind is not Kind.MESSAGES]

    def send(self, call: Call) -> None:
        """Send a call; wait while the connection is full."""
        self.send_raw(pack_call(call))

    def send_raw(self, header: bytes) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while not self.wire.send(self.url, header):
            assert time.monotonic() < until_s, f"not within {PATIENCE_S:g} s: room for a message"
            self.turn(0.01)

    def ask(self, wanted: ClipRequest, *, attempt: int = 1, deadline_s: float = 60.0) -> None:
        self._clip_bytes[attempt] = wanted.clip_bytes
        self.send(DecodeCall(attempt=attempt, deadline_s=deadline_s, request=wanted))

    def receive(self) -> tuple[Reply, bytes]:
        """The next reply and its pixels."""
        until_s = time.monotonic() + PATIENCE_S
        while (header := self.wire.header(self.url)) is None:
            assert time.monotonic() < until_s, f"no reply within {PATIENCE_S:g} s"
            self.turn(0.1)
        reply = unpack_reply(header)
        into = self._pixels[: self._clip_bytes[reply.attempt]] if isinstance(reply, ClipReply) else None
        received = self.wire.pixels(self.url, into)
        return reply, self._pixels[:received].tobytes()

    def decode(self, wanted: ClipRequest, *, attempt: int = 1) -> tuple[Reply, bytes]:
        self.ask(wanted, attempt=attempt)
        return self.receive()
