"""Which connections a gateway keeps: how many in all, and how many of an address. Pure; it knows no sockets.

A connection has proved itself once a whole message came over it; with CURVE only clients with a key on the list can do
that. Whoever floods a gateway with others finds its own oldest ones cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from decode_server.service.fair_share import within_share

UNPROVED_OF_ADDRESS = 256  # an honest client proves itself within a round trip or two
UNHEARD_BYTES = 1 << 18  # that may come over a connection without the end of a message


@dataclass(slots=True, eq=False)
class Connection:
    """One that stands; `client` is its name once it has proved itself."""

    fd: int
    peer: tuple[str, int]  # address, port
    client: bytes = b""
    messages: int = 0  # that came over it
    is_cut: bool = False  # it ends soon
    _measured: tuple[int, int] = (0, 0)  # messages, and the bytes that had come by then

    def unheard_bytes(self, received_bytes: int) -> int:
        """How many of the bytes that came over it, counted from its beginning, are no whole message yet, at least."""
        messages, bytes_then = self._measured
        if messages != self.messages:
            self._measured, bytes_then = (self.messages, received_bytes), received_bytes
        return received_bytes - bytes_then


@dataclass(slots=True, eq=False)
class _Address:
    unproved: dict[int, Connection] = field(default_factory=dict)  # by descriptor, the oldest first
    count: int = 0


class ConnectionTable:
    """All connections of a gateway: `most`, and one more for as long as it takes to cut one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._by_fd: dict[int, Connection] = {}
        self._by_client: dict[bytes, Connection] = {}
        self._addresses: dict[str, _Address] = {}
        self._unproved: dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self._by_fd)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_fd.values())

    def made(self, fd: int, peer: tuple[str, int]) -> tuple[Connection, str] | None:
        """A connection was made; returns the one to cut for it, which may be itself, and why."""
        connection = self._by_fd[fd] = self._unproved[fd] = Connection(fd, peer)
        address = self._addresses.setdefault(peer[0], _Address())
        address.unproved[fd] = connection
        address.count += 1
        free = self.most - len(self._by_fd) + 1
        if len(address.unproved) > UNPROVED_OF_ADDRESS:
            why = f"{UNPROVED_OF_ADDRESS} newer connections of its address have said nothing either"
            return self._condemn(address.unproved), why
        if not within_share(held=address.count - 1, more=1, free=free):
            why = f"its address has {address.count - 1} connections, {max(free, 0)} of {self.most} are left"
            return self._condemn(address.unproved), why
        return (self._condemn(self._unproved), f"there are {self.most} connections") if free < 1 else None

    def proved(self, fd: int, client: bytes) -> bytes | None:
        """A first message came from a client; None if its connection ended already, else who was thought to have it."""
        connection = self._by_fd.get(fd)
        if connection is None:
            return None
        before, connection.client = connection.client, client
        self._by_client.pop(before, None)
        self._by_client[client] = connection
        self._forget_unproved(connection)
        return before

    def at(self, fd: int) -> Connection | None:
        """The connection with this descriptor."""
        return self._by_fd.get(fd)

    def of(self, client: bytes) -> Connection | None:
        """The connection of a client."""
        return self._by_client.get(client)

    def ended(self, fd: int) -> Connection | None:
        """A connection ended; returns it, or None if it is not known."""
        connection = self._by_fd.pop(fd, None)
        if connection is None:
            return None
        self._forget_unproved(connection)
        self._by_client.pop(connection.client, None)
        address = self._addresses[connection.peer[0]]
        address.count -= 1
        if not address.count:
            del self._addresses[connection.peer[0]]
        return connection

    def _condemn(self, among: dict[int, Connection]) -> Connection:
        """The oldest of them, which from now on is nobody that others can be kept out for."""
        oldest = next(iter(among.values()))
        self._forget_unproved(oldest)
        return oldest

    def _forget_unproved(self, connection: Connection) -> None:
        self._unproved.pop(connection.fd, None)
        self._addresses[connection.peer[0]].unproved.pop(connection.fd, None)
