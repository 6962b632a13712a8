"""What a server needs of a transport, and several transports as one. It knows no transport and no message.

Whole messages in, replies out, nothing lost in silence: a slow or vanished reader is an error, never a loss.
"""

from __future__ import annotations

import math
import select
from collections import deque
from collections.abc import Sequence
from typing import Protocol

MAX_FRAMES = 2  # of a message that are kept: one more than a good one has


class ReaderFull(Exception):
    """The client reads more slowly than it is sent to; the same reply may be sent later."""


class ReaderGone(Exception):
    """The client is not connected."""


class Delivery(Protocol):
    """A message on its way: until it is `done`, its pixels belong to the transport."""

    @property
    def done(self) -> bool:
        """Whether the transport has let go of the pixels."""


class Listener(Protocol):
    """One address that clients connect to. Every method belongs to the front's thread, and none but close blocks."""

    @property
    def url(self) -> str:
        """Where it listens, as a client writes it."""

    def fileno(self) -> int:
        """A descriptor that is readable, at the latest, when `receive` has something again after it had nothing."""

    @property
    def pending(self) -> bool:
        """Whether `receive` may have something that the descriptor does not show; asked before each wait."""

    @property
    def clients(self) -> int | None:
        """Connections or streams that stand, and None if the transport does not tell."""

    @property
    def clients_limit(self) -> int | None:
        """How many there may be at once; None if only descriptors bound them."""

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """The next message as (client, first MAX_FRAMES frames), or None if there is none now.

        A client's bytes name one connection, for as long as that stands and for ever after.
        """

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> Delivery | None:
        """Hand a reply over without copying its pixels; a Delivery if and only if there are pixels.

        Raises ReaderFull or ReaderGone, having sent nothing.
        """

    def flush(self) -> None:
        """Hand on what `send` and `cut` have gathered, as far as that is possible now; called before each wait."""

    def principal(self, client: bytes) -> str:
        """Who a client is, as far as the transport can tell: what budgets are made on. Many connections may have one.

        A key, a certificate's name, a process, or else the address that it comes from; "" for one that is gone.
        """

    def cut(self, client: bytes) -> None:
        """End the connection of a client that takes nothing of what it was sent, so that its Deliveries become done;
        one that is gone is none. A transport that ends silent connections by itself may leave it at that.
        """

    def close(self, *, linger_s: float) -> None:
        """Stop listening; blocks up to `linger_s` for replies still under way. Idempotent."""


class Listeners:
    """All addresses of one server. What it calls a client begins with the number of the listener that has it."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._ready: deque[int] = deque()
        self._poll, self._watched = select.poll(), select.poll()
        self._readable: frozenset[int] = frozenset()
        self._by_fd = {listener.fileno(): number for number, listener in enumerate(self._listeners)}
        for fd in self._by_fd:
            self._poll.register(fd, select.POLLIN)

    def clients(self) -> list[tuple[str, int, int]]:
        """(address, connections, how many there may be) of each listener that tells."""
        told = [(one.url, one.clients, one.clients_limit) for one in self._listeners]
        return [(url, there, most) for url, there, most in told if there is not None and most is not None]

    def watch(self, fd: int) -> None:
        """Let `wait` return when this descriptor is readable too."""
        for poll in (self._poll, self._watched):
            poll.register(fd, select.POLLIN)

    def wait(self, timeout_s: float, *, gather_s: float = 0.0) -> None:
        """Block until a message or a watched descriptor can be read, at most `timeout_s`.

        Messages alone do not end the first `gather_s` of it: they gather and are then received together.
        """
        for listener in self._listeners:
            listener.flush()
        gather_s = min(gather_s, timeout_s)
        if gather_s > 0:
            timeout_s = 0.0 if self._watched.poll(_ms(gather_s)) else timeout_s - gather_s
        pending = {number for number, listener in enumerate(self._listeners) if listener.pending}
        self._readable = frozenset(fd for fd, _ in self._poll.poll(0 if pending else _ms(timeout_s)))
        self._ready = deque(pending.union(self._by_fd[fd] for fd in self._readable if fd in self._by_fd))

    def has_woken(self, fd: int) -> bool:
        """Whether a watched descriptor was readable when the last wait ended."""
        return fd in self._readable

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """The next message of those that `wait` found, the listeners in turn; None if there is none now."""
        while self._ready:
            number = self._ready[0]
            message = self._listeners[number].receive()
            if message is None:
                self._ready.popleft()
                continue
            self._ready.rotate(-1)
            client, frames = message
            return bytes((number,)) + client, frames
        return None

    def number(self, client: bytes) -> int:
        """Which of the listeners has the client, in the order in which they were given."""
        return client[0]

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> Delivery | None:
        """As Listener.send, through the listener that has the client."""
        return self._listeners[client[0]].send(client[1:], header, pixels)

    def principal(self, client: bytes) -> str:
        """As Listener.principal, by the listener that has the client."""
        return self._listeners[client[0]].principal(client[1:])

    def cut(self, client: bytes) -> None:
        """As Listener.cut, by the listener that has the client."""
        self._listeners[client[0]].cut(client[1:])

    def close(self, *, linger_s: float) -> None:
        """Close all, one after the other. Idempotent."""
        for listener in self._listeners:
            listener.close(linger_s=linger_s)


def _ms(duration_s: float) -> int:
    return math.ceil(max(duration_s, 0.0) * 1000)
