"""ZAP: the question that ZeroMQ asks for each client under CURVE, and its answer. It decides nothing.

Source: rfc.zeromq.org/spec/27. One that is asked stays open until somebody answers it or its connection ends.
"""

from __future__ import annotations

import itertools

import zmq
from zmq.utils import z85

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION, _MECHANISM, _FRAMES = b"1.0", b"CURVE", 9
_KEY_BYTES = 32


class Zap:
    """Where the questions come in. Opened before the socket whose clients it is asked about is bound."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], *, most: int) -> None:
        """At most so many questions stay open; the oldest are then answered with no."""
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_ENDPOINT)
        self._most = most
        self._open: dict[int, tuple[list[bytes], str]] = {}
        self._numbers = itertools.count(1)

    def ask(self) -> tuple[int, str] | None:
        """The next question, as its number and the client's public key in Z85; None if there is none now."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            asked = frames[:4]  # the session, nothing, the version, its number
            if len(frames) == _FRAMES and frames[7] == _MECHANISM and len(frames[8]) == _KEY_BYTES:
                break
            self._reply(asked, b"", allowed=False)
        if len(self._open) >= self._most:
            self.answer(next(iter(self._open)), allowed=False)
        number, key = next(self._numbers), z85.encode(frames[8]).decode()
        self._open[number] = asked, key
        return number, key

    def answer(self, number: int, *, allowed: bool) -> None:
        """Let the client in or not; a number that is not open any more is none."""
        asked, key = self._open.pop(number, (None, ""))
        if asked is not None:
            self._reply(asked, key.encode(), allowed=allowed)

    def close(self) -> None:
        """Answer all that is open with no, for a context does not end before."""
        for number in list(self._open):
            self.answer(number, allowed=False)
        self.socket.close()

    def _reply(self, asked: list[bytes], key: bytes, *, allowed: bool) -> None:
        status = (b"200", b"OK") if allowed else (b"400", b"No access")
        self.socket.send_multipart([*asked, *status, key if allowed else b"", b""], zmq.NOBLOCK)
