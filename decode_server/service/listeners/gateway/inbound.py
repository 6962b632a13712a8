"""Messages of clients as they come out of the ROUTER, a bounded number of parts a turn. It knows no clients.

Of a message with many parts nothing is kept, and the rest of it is thrown away within as many turns as that takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from decode_server.service.listeners.listener import MAX_FRAMES

MOST_PARTS = 8  # of a message that may be a mistake; more are an attack
_PARTS_A_TURN, _MESSAGES_A_TURN = 4096, 128


@dataclass(frozen=True, slots=True, eq=False)
class Inbound:
    """A message. `source` is its first part, the client's name, which knows where it came from; frames behind the first
    are empty, and more than MAX_FRAMES are not there.
    """

    source: zmq.Frame
    client: bytes
    frames: list[bytes]
    is_flood: bool


class InboundMessages:
    """What clients send to a ROUTER."""

    def __init__(self, router: zmq.Socket[bytes]) -> None:
        self._router = router
        self._discarding = False

    def take(self) -> list[Inbound]:
        """What there is now, at most a turn's worth."""
        taken: list[Inbound] = []
        parts = self._discard(_PARTS_A_TURN)
        while not self._discarding and parts < _PARTS_A_TURN and len(taken) < _MESSAGES_A_TURN:
            try:
                source = self._router.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            frames: list[bytes] = []
            count = 0
            while self._router.rcvmore and not self._discarding:
                frame = self._router.recv(zmq.NOBLOCK)  # messages arrive whole
                count += 1
                if count <= MAX_FRAMES:
                    frames.append(b"" if frames else frame)
                self._discarding = count >= MOST_PARTS
            taken.append(Inbound(source, source.bytes, frames, self._discarding))
            parts += count + 1 + self._discard(_PARTS_A_TURN - parts)
        return taken

    def _discard(self, most: int) -> int:
        """Throw away parts of the message that is a flood; returns how many."""
        count = 0
        while self._discarding and count < most:
            self._discarding = bool(self._router.rcvmore)
            if self._discarding:
                self._router.recv(zmq.NOBLOCK)
                count += 1
        return count
