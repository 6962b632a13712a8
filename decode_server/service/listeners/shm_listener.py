"""The listener for shm://: headers over a Unix socket, pixels that clients read straight from the buffer pool.

It does not know what the headers say. A client that ends, however it does, is seen by its socket, and what it
was leased is free again; one that says what no client says is cut off. A client that is cut off may still be reading:
its lease word is changed first, by which it knows that what it read may be another's.
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

from decode_server.service.buffer_pool import LEASE_WORDS, BufferPool
from decode_server.service.descriptor_reserve import PASSING, DescriptorReserve
from decode_server.service.listeners.endpoint import Endpoint
from decode_server.service.listeners.listener import Delivery, ReaderFull, ReaderGone
from decode_server.service.refusals import Refusals
from framefeed.errors import BadInput
from framefeed.shm import (
    MAX_DATAGRAM_BYTES,
    Lease,
    LeaseWord,
    is_trusted,
    pack_hello,
    pack_reply,
    process_of,
    socket_address,
    unpack_from_client,
)

_BACKLOG = 512
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


@dataclass(slots=True, eq=False)
class _Leased:
    done: bool = False


@dataclass(slots=True, eq=False)
class _Client:
    name: bytes
    socket: socket.socket
    word: LeaseWord
    principal: str
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
        self._reserve = DescriptorReserve(1)  # to refuse who finds none left
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

    @property
    def clients(self) -> int:
        """See Listener."""
        return len(self._clients)

    @property
    def clients_limit(self) -> int:
        """See Listener."""
        return LEASE_WORDS

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

    def flush(self) -> None:
        """See Listener: nothing is gathered."""

    def principal(self, client: bytes) -> str:
        """See Listener: the user and the process, as uid:pid."""
        reader = self._clients.get(client)
        return "" if reader is None else reader.principal

    def cut(self, client: bytes) -> None:
        """See Listener."""
        reader = self._clients.get(client)
        if reader is not None and not reader.leased:
            self._lose(reader)
        elif reader is not None:
            held = f"cut off: it held {len(reader.leased)} clips and gave none back for too long"
            self._refusals.refuse("lease", f"client {client.hex()} at {self.url}", held)
            self._lose(reader)

    def close(self, *, linger_s: float) -> None:  # noqa: ARG002
        """See Listener; it never lingers, since what was sent can be read and what was leased stays as it is."""
        for client in list(self._clients.values()):
            self._let_go(client)
        self._socket.close()
        self._epoll.close()
        if self._buffer_pool_fd >= 0:
            os.close(self._buffer_pool_fd)
            self._reserve.close()
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
        self._reserve.refill()
        for fd, _ in self._epoll.poll(0):
            if fd == self._socket.fileno():
                self._welcome()
            else:
                self._readable.append(self._by_fd[fd])
        return bool(self._readable)

    def _welcome(self) -> None:
        """Take in all that connect."""
        while True:
            try:
                peer = self._socket.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    return  # one that connected is gone already; the others are seen at the next look
                if not self._turn_away():
                    return
            else:
                self._take_in(peer)

    def _turn_away(self) -> bool:
        """Refuse the next that connects, for no descriptor is left: one that waited would be seen again and again.

        False if none connects: the kernel says that there is no descriptor before it looks.
        """
        try:
            with self._reserve.lent():
                self._socket.accept()[0].close()
        except OSError:
            return False
        why = "this process has no descriptor left; raise its limit (ulimit -n)"
        self._refusals.refuse("descriptors", f"a client at {self.url}", why)
        return True

    def _take_in(self, peer: socket.socket) -> None:
        """Greet a client, or refuse it."""
        peer.setblocking(False)
        word = self._buffer_pool.open_lease_word()
        if word is None:
            self._refuse(peer, "crowd", f"there are {LEASE_WORDS} clients")
            return
        if not is_trusted(peer):
            self._refuse(peer, "user", "it runs as another user of this host", word=word)
            return
        try:
            pid, uid = process_of(peer)
            socket.send_fds(peer, [pack_hello(word)], [self._buffer_pool_fd])
            self._epoll.register(peer, select.EPOLLIN)
        except OSError as error:
            self._refuse(peer, "descriptors" if error.errno in PASSING else "handshake", str(error), word=word)
            return
        client = _Client(next(self._names).to_bytes(8, "little"), peer, word, f"{uid}:{pid}")
        self._clients[client.name] = self._by_fd[peer.fileno()] = client

    def _refuse(self, peer: socket.socket, reason: str, why: str, *, word: LeaseWord | None = None) -> None:
        self._refusals.refuse(reason, f"a client at {self.url}", why)
        if word is not None:
            self._buffer_pool.revoke(word)
        peer.close()

    def _read(self, client: _Client, datagram: bytes) -> bytes | None:
        """The header of a call; None if leases were given back, or if the client is cut off."""
        try:
            said = unpack_from_client(datagram)
            if isinstance(said, bytes):
                return said
            for number in said:
                client.leased.pop(number).done = True
        except (ValueError, KeyError) as error:
            self._refusals.refuse("nonsense", f"a client at {self.url}", f"cut off: {type(error).__name__}: {error}")
            self._lose(client)
        return None

    def _lose(self, client: _Client) -> None:
        """A client is gone, or cut off: what it was leased will be used again."""
        self._buffer_pool.revoke(client.word)
        self._let_go(client)

    def _let_go(self, client: _Client) -> None:
        del self._clients[client.name], self._by_fd[client.socket.fileno()]
        with contextlib.suppress(ValueError):
            self._readable.remove(client)
        self._epoll.unregister(client.socket)  # closing does not do it while a forked process has a copy
        with contextlib.suppress(OSError):
            client.socket.shutdown(socket.SHUT_RDWR)  # nor end the connection
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
