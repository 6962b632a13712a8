"""Messages of clients as they come out of the ROUTER, a bounded number of parts a turn. It knows no clients.

Of a message with many parts nothing is kept, and the rest of it is thrown away within as many turns as that takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq

from decode_server.service.listeners.listener import MAX_FRAMES

MOST_PARTS = 8  # of a message that may be a mistake; more are an attack
_PARTS_A_TURN, _MESSAGES_A_TURN = 4096, 128
_NOBLOCK = int(zmq.NOBLOCK)


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
        self._drained = True
        self.discarded_parts = 0  # since all that there was had been taken

    @property
    def drained(self) -> bool:
        """Whether all whole messages were taken at the last turn, or a flood is thrown away that others wait for."""
        return self._drained or self.discarded_parts > 0

    def take(self) -> list[Inbound]:
        """What there is now, at most a turn's worth."""
        self._drained = False
        taken: list[Inbound] = []
        parts = self._discard(_PARTS_A_TURN)
        while not self._discarding and parts < _PARTS_A_TURN and len(taken) < _MESSAGES_A_TURN:
            try:
                source = self._router.recv(_NOBLOCK, copy=False)
            except zmq.Again:
                self._drained, self.discarded_parts = True, 0
                break
            frames: list[bytes] = []
            count, more = 0, source.more
            while more and count < MOST_PARTS:
                frame = self._router.recv(_NOBLOCK, copy=False)  # messages arrive whole
                count, more = count + 1, frame.more
                if count <= MAX_FRAMES:
                    frames.append(b"" if frames else frame.bytes)
            self._discarding = more
            taken.append(Inbound(source, source.bytes, frames, count >= MOST_PARTS))
            parts += count + 1 + self._discard(_PARTS_A_TURN - parts)
        return taken

    def _discard(self, most: int) -> int:
        """Throw away parts of the message that is a flood; returns how many."""
        count = 0
        while self._discarding and count < most:
            self._discarding = self._router.recv(_NOBLOCK, copy=False).more
            count += 1
        self.discarded_parts += count
        return count
