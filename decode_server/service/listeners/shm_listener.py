"""The listener for shm://: headers over a Unix socket, pixels that clients read straight from the buffer pool.

It does not know what the headers say. A client that ends, however it does, is seen by its socket, and what it
was leased is free again; one that says what no client says is cut off.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.listeners.listener import Delivery, ReaderFull, ReaderGone
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput
from framefeed.shm import (
    HELLO,
    MAX_DATAGRAM_BYTES,
    Lease,
    is_trusted,
    pack_reply,
    socket_address,
    unpack_from_client,
)

_MAX_CLIENTS = 256
_BACKLOG = 64


@dataclass(slots=True, eq=False)
class _Leased:
    done: bool = False


@dataclass(slots=True, eq=False)
class _Client:
    name: bytes
    socket: socket.socket
    leased: dict[int, _Leased] = field(default_factory=dict)
    leases: int = 0


class ShmListener:
    """See Listener. Raises BadInput if it cannot listen there."""

    def __init__(self, endpoint: Endpoint, buffer_pool: BufferPool, *, refusals: Refusals) -> None:
        self.url = endpoint.url
        self._refusals = refusals
        self._buffer_pool = buffer_pool
        self._buffer_pool_fd = buffer_pool.open_to_read()
        self._names = itertools.count(1)
        self._clients: dict[bytes, _Client] = {}
        self._by_fd: dict[int, _Client] = {}
        self._readable: deque[_Client] = deque()
        self._epoll = select.epoll()
        self._path = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self._bind(socket_address(endpoint.url))
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self.close(linger_s=0)
            why = "is in use; choose another with --bind" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise BadInput(f"bind: {endpoint.url} {why}") from None
        self._epoll.register(self._socket, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable while a client has something to say, or one comes or goes."""
        return self._epoll.fileno()

    @property
    def pending(self) -> bool:
        """Never: the descriptor shows all."""
        return False

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """The next call, clients in turn; takes in what was given back, and who came and went."""
        while self._readable or self._look():
            client = self._readable[0]
            try:
                datagram = client.socket.recv(MAX_DATAGRAM_BYTES + 1)
            except BlockingIOError:
                self._readable.popleft()
                continue
            except OSError:
                datagram = b""
            if not datagram:
                self._lose(client)
                continue
            header = self._read(client, datagram)
            if header is not None:
                self._readable.rotate(-1)
                return client.name, [header]
        return None

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> Delivery | None:
        """Send the header and lease the pixels, which lie in the buffer pool. Raises ReaderFull or ReaderGone."""
        reader = self._clients.get(client)
        if reader is None:
            raise ReaderGone
        lease = None
        if pixels is not None:
            lease = Lease(reader.leases + 1, self._buffer_pool.offset_of(pixels), pixels.nbytes)
        try:
            reader.socket.send(pack_reply(header, lease))
        except BlockingIOError:
            raise ReaderFull from None
        except OSError:
            self._lose(reader)
            raise ReaderGone from None
        if lease is None:
            return None
        reader.leases = lease.number
        leased = reader.leased[lease.number] = _Leased()
        return leased

    def close(self, *, linger_s: float) -> None:  # noqa: ARG002
        """See Listener; it never lingers, since what was sent can be read and what was leased stays mapped."""
        for client in list(self._clients.values()):
            self._lose(client)
        self._socket.close()
        self._epoll.close()
        if self._buffer_pool_fd >= 0:
            os.close(self._buffer_pool_fd)
            self._buffer_pool_fd = -1
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._path = ""

    def _bind(self, address: str) -> None:
        """Bind, in place of a socket file that a killed server left. Raises OSError."""
        if address.startswith("\0"):
            self._socket.bind(address)
            return
        with _locked_folder(address):  # so that of two servers that start at once, one is in time
            if _is_left_over(address):
                os.unlink(address)
            self._socket.bind(address)
            self._path = address
            os.chmod(address, stat.S_IRUSR | stat.S_IWUSR)

    def _look(self) -> bool:
        """Whether any client has something to say; takes in those that connect."""
        for fd, _ in self._epoll.poll(0):
            if fd == self._socket.fileno():
                self._welcome()
            else:
                self._readable.append(self._by_fd[fd])
        return bool(self._readable)

    def _welcome(self) -> None:
        """Take in all that connect."""
        with contextlib.suppress(OSError):  # there is no more, or no descriptor for it
            while True:
                self._take_in(self._socket.accept()[0])

    def _take_in(self, peer: socket.socket) -> None:
        """Greet a client, or refuse it."""
        peer.setblocking(False)
        client = _Client(next(self._names).to_bytes(8, "little"), peer)
        refused = None
        if not is_trusted(peer):
            refused = "user", "it runs as another user of this host"
        elif len(self._clients) >= _MAX_CLIENTS:
            refused = "crowd", f"there are {_MAX_CLIENTS} clients"
        try:
            if refused is None:
                socket.send_fds(peer, [HELLO], [self._buffer_pool_fd])
        except OSError as error:
            refused = "handshake", str(error)
        if refused is not None:
            self._refusals.refuse(refused[0], f"a client at {self.url}", refused[1])
            peer.close()
            return
        self._clients[client.name] = self._by_fd[peer.fileno()] = client
        self._epoll.register(peer, select.EPOLLIN)

    def _read(self, client: _Client, datagram: bytes) -> bytes | None:
        """The header of a call; None if leases were given back, or if the client is cut off."""
        try:
            said = unpack_from_client(datagram)
            if isinstance(said, bytes):
                return said
            for number in said:
                client.leased.pop(number).done = True
        except (ValueError, KeyError) as error:
            self._refusals.refuse("nonsense", f"a client at {self.url}", f"cut off: {error!r}")
            self._lose(client)
        return None

    def _lose(self, client: _Client) -> None:
        del self._clients[client.name], self._by_fd[client.socket.fileno()]
        with contextlib.suppress(ValueError):
            self._readable.remove(client)
        self._epoll.unregister(client.socket)  # closing does not do it while a forked process has a copy
        client.socket.close()
        for leased in client.leased.values():
            leased.done = True


@contextlib.contextmanager
def _locked_folder(path: str) -> Iterator[None]:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _is_left_over(path: str) -> bool:
    """Whether a socket lies at the path and nobody listens there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED
