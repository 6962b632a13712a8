"""Replies on their way from the buffer pool to clients, in order for each. It knows no front and no connections.

A reply that ZeroMQ does not take yet waits here: the front gives no client more than it can have unread, so that is
bounded. ZeroMQ tells nobody when it has sent something; it is asked, ever more rarely while nothing moves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import zmq

from decode_server.service.listeners.gateway.gateway_messages import Reply

_LOOK_S, _LOOK_MAX_S = 0.002, 0.05


@dataclass(slots=True, eq=False)
class _Queue:
    waiting: deque[Reply] = field(default_factory=deque)
    in_transit: deque[tuple[int, zmq.MessageTracker]] = field(default_factory=deque)


class Deliveries:
    """Sends from `pool`, which stays as it is until a reply's number was returned by `tend`."""

    def __init__(self, router: zmq.Socket[bytes], pool: memoryview) -> None:
        self._router = router
        self._pool = pool
        self._queues: dict[bytes, _Queue] = {}
        self._done: list[int] = []
        self._look_s = _LOOK_S

    @property
    def busy(self) -> bool:
        """Whether something is not sent yet."""
        return bool(self._queues)

    @property
    def look_s(self) -> float:
        """How soon to call `tend` again."""
        return 0.0 if self._done else self._look_s

    def send(self, reply: Reply) -> None:
        """Send a reply now, or when its client has read enough of those before it."""
        self._look_s = _LOOK_S
        queue = self._queues.get(reply.client)
        if queue is not None and queue.waiting:
            queue.waiting.append(reply)
        elif not self._try(reply):
            self._queues.setdefault(reply.client, _Queue()).waiting.append(reply)

    def tend(self) -> list[int]:
        """Send what waits; returns the numbers of replies that were sent, or that have no reader any more."""
        for client, queue in list(self._queues.items()):
            while queue.in_transit and queue.in_transit[0][1].done:
                self._done.append(queue.in_transit.popleft()[0])
            while queue.waiting and self._try(queue.waiting[0]):
                queue.waiting.popleft()
            if not queue.waiting and not queue.in_transit:
                del self._queues[client]
        done, self._done = self._done, []
        self._look_s = _LOOK_S if done else min(2 * self._look_s, _LOOK_MAX_S)
        return done

    def _try(self, reply: Reply) -> bool:
        """Whether it was sent, or never can be; False if ZeroMQ holds all that it may for the client."""
        try:
            self._router.send(reply.client, zmq.SNDMORE | zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._done.append(reply.number)
            return True
        if not reply.length_bytes:
            self._router.send(reply.header)
            self._done.append(reply.number)
            return True
        self._router.send(reply.header, zmq.SNDMORE)
        pixels = self._pool[reply.offset : reply.offset + reply.length_bytes]
        tracker = self._router.send(pixels, copy=False, track=True)
        assert tracker is not None
        queue = self._queues.get(reply.client)
        if queue is None:
            queue = self._queues[reply.client] = _Queue()
        queue.in_transit.append((reply.number, tracker))
        return True
