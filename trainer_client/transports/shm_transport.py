"""shm:// for servers on this host: headers over a socket, pixels copied from the server's buffer pool. Knows no clips.

That copy, into the batch's slot, is the only one. What was copied is given back in groups, at every call of signals().
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import socket
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.shm import (
    HELLO_BYTES,
    MAX_BACK,
    MAX_DATAGRAM_BYTES,
    Lease,
    LeaseWord,
    is_trusted,
    pack_back,
    pack_call,
    socket_address,
    unpack_hello,
    unpack_reply,
)
from framefeed.show_value import show_value
from trainer_client.transports.fork_guard import FORKS_WAIT, close_all, keep_for_ever, let_go_when_forked
from trainer_client.transports.transport import RETRY_S, Kind, Signal, TransportLimits

_RETRY_MAX_S = 0.25  # a try on this host costs some 20 µs
_MAX_ADDRESS_BYTES = 107
_GROUP = 8  # leases are given back by so many, so that the server can use them again soon


@dataclass(slots=True, eq=False)
class _Link:
    """A server: not connected (no socket), connected (no buffer pool yet), or greeted with its buffer pool."""

    url: str
    socket: socket.socket | None = None
    buffer_pool: npt.NDArray[np.uint8] | None = None
    buffer_pool_file: tuple[int, int] | None = None  # device and inode: the mapping does not show its descriptor
    word: LeaseWord | None = None  # by which it sees whether its leases stand
    lease: Lease | None = None  # of the message whose header was just read
    back: list[int] = field(default_factory=list)
    retry_at_s: float = 0.0
    retry_s: float = RETRY_S
    trouble: str = ""  # why it is not connected


class ShmTransport:
    """See Transport."""

    def __init__(self, _limits: TransportLimits) -> None:
        """Nothing is allocated for what a server sends, so nothing needs a limit."""
        self._links: dict[str, _Link] = {}
        self._by_fd: dict[int, _Link] = {}
        self._away: dict[str, _Link] = {}  # to be connected to
        self._changes: list[Signal] = []
        with FORKS_WAIT:
            self._epoll = select.epoll()
            let_go_when_forked(self)

    def connect(self, url: str) -> None:
        """See Transport; the first try is the next call of signals()."""
        if len(socket_address(url).encode()) > _MAX_ADDRESS_BYTES:
            raise BadInput(f"server address {show_value(url)} is longer than a socket's may be")
        self._links[url] = self._away[url] = _Link(url)

    def disconnect(self, url: str) -> None:
        """See Transport."""
        self._let_go(self._links.pop(url))
        self._away.pop(url, None)
        self._changes = [signal for signal in self._changes if signal.url != url]

    def fileno(self) -> int:
        """See Transport; that a server is there again is found by the calls of signals()."""
        return self._epoll.fileno()

    def signals(self) -> list[Signal]:
        """See Transport."""
        if self._away:
            now_s = time.monotonic()
            for link in [link for link in self._away.values() if now_s >= link.retry_at_s]:
                self._try(link)
        messages = []
        for link, what in [(self._by_fd[fd], what) for fd, what in self._epoll.poll(0)]:
            if link.buffer_pool is None:
                self._greet(link)
            elif what & select.EPOLLHUP and _ended(link.socket):
                self._lose(link)
            else:
                messages.append(Signal(link.url, Kind.MESSAGES))
        for link in self._links.values():
            if link.back:
                self._give_back(link)
        changes, self._changes = self._changes, []
        return messages + changes

    def send(self, url: str, header: bytes) -> bool:
        """See Transport."""
        link = self._links[url]
        if link.socket is None or link.buffer_pool is None:
            return False
        try:
            link.socket.send(pack_call(header))
        except OSError:  # full, or lost: then its end of file follows
            return False
        return True

    def header(self, url: str) -> bytes | None:
        """See Transport."""
        link = self._links[url]
        self._drop(link)
        if link.socket is None or link.buffer_pool is None:
            return None
        try:
            datagram = _receive(link.socket)
            header, link.lease = unpack_reply(datagram)
            lease = link.lease
            if lease and lease.offset + lease.length_bytes > link.buffer_pool.nbytes:
                raise ValueError(f"{lease} lies outside the buffer pool")
        except BlockingIOError:
            return None
        except (OSError, ValueError):
            self._lose(link)
            return None
        return header

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int:
        """See Transport."""
        link = self._links[url]
        lease = link.lease
        if lease is None:
            return 0
        if into is not None and into.nbytes == lease.length_bytes and link.buffer_pool is not None:
            np.copyto(into.reshape(-1), link.buffer_pool[lease.offset : lease.offset + lease.length_bytes])
            if not _stands(link):  # the server took the buffer back meanwhile, and cut the connection off
                self._lose(link)
                return 0
        self._drop(link)
        return lease.length_bytes

    def trouble(self, url: str) -> str:
        """See Transport."""
        return self._links[url].trouble

    def close(self) -> None:
        """See Transport."""
        for url in list(self._links):
            self.disconnect(url)
        self._epoll.close()

    def forked(self) -> None:
        """See Inherited. The epoll is the parent's too, so nothing is taken out of it; slabs are not mapped here."""
        self._epoll.close()
        slabs = {link.buffer_pool_file for link in self._links.values()}
        close_all(lambda fd: _file_of(fd) in slabs)
        for link in self._links.values():
            if link.socket is not None:
                link.socket.close()
                link.socket = None
            keep_for_ever(link.buffer_pool)  # to unmap it would unmap what the child may have at its addresses by then

    def _try(self, link: _Link) -> None:
        """Connect to the server if it is there; its greeting follows."""
        try:
            with FORKS_WAIT:
                server = link.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor for it
            self._later(link)
            return
        try:
            server.connect(socket_address(link.url))
            if not is_trusted(server):
                raise PermissionError(errno.EPERM, "it is another user's")
        except OSError as error:
            server.close()
            link.socket = None
            link.trouble = f"nobody can be connected to at this socket ({error.strerror})"
            self._later(link)
            return
        del self._away[link.url]
        self._by_fd[server.fileno()] = link
        self._epoll.register(server, select.EPOLLIN)

    def _greet(self, link: _Link) -> None:
        """Map the buffer pool that came with the greeting."""
        try:
            with FORKS_WAIT:
                buffer_pool, link.buffer_pool_file, link.word = _receive_buffer_pool(link.socket)
                link.buffer_pool, link.retry_s = np.frombuffer(buffer_pool, np.uint8), RETRY_S
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            link.trouble = f"is no decode server: its greeting is none ({error})"
            self._lose(link)
            return
        link.trouble = ""
        self._changes.append(Signal(link.url, Kind.CONNECTED))

    def _drop(self, link: _Link) -> None:
        """Owe the server the lease of its last message."""
        if link.lease is not None:
            link.back.append(link.lease.number)
            link.lease = None
            if len(link.back) >= _GROUP:
                self._give_back(link)

    def _give_back(self, link: _Link) -> None:
        group = link.back[:MAX_BACK]
        if link.socket is not None:
            with contextlib.suppress(OSError):  # full: again later; lost: its end of file follows
                link.socket.send(pack_back(group))
                del link.back[: len(group)]

    def _lose(self, link: _Link) -> None:
        """The connection is gone; the next one is tried soon, and ever less often."""
        if link.buffer_pool is not None:
            self._changes.append(Signal(link.url, Kind.LOST))
        self._let_go(link)
        self._later(link)
        self._away[link.url] = link

    def _later(self, link: _Link) -> None:
        link.retry_at_s = time.monotonic() + link.retry_s
        link.retry_s = min(2 * link.retry_s, _RETRY_MAX_S)

    def _let_go(self, link: _Link) -> None:
        if link.socket is not None:
            del self._by_fd[link.socket.fileno()]
            self._epoll.unregister(link.socket)  # closing does not do it while a forked process has a copy,
            with contextlib.suppress(OSError):
                link.socket.shutdown(socket.SHUT_RDWR)  # nor tell the server
            link.socket.close()
        link.socket = link.buffer_pool = link.word = link.lease = None  # the mapping goes with the last array over it
        link.back.clear()


def _receive_buffer_pool(server: socket.socket | None) -> tuple[mmap.mmap, tuple[int, int], LeaseWord]:
    """The buffer pool that comes with a server's greeting, its file, and the word by which leases are seen to stand.

    Raises ValueError for anything else, OSError if nothing came.
    """
    assert server is not None
    hello, fds, _, _ = socket.recv_fds(server, HELLO_BYTES + 1, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        word = unpack_hello(hello)
        if len(fds) != 1 or not fcntl.fcntl(fds[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise ValueError("wanted a greeting with a sealed buffer pool")
        buffer_pool, file = mmap.mmap(fds[0], 0, prot=mmap.PROT_READ), _file_of(fds[0])
    finally:
        for fd in fds:
            os.close(fd)
    if word.offset % 8 or word.offset + 8 > len(buffer_pool):
        raise ValueError(f"{word} lies outside the buffer pool")
    buffer_pool.madvise(mmap.MADV_DONTFORK)  # a child would hold the memory of a server that ended
    return buffer_pool, file, word


def _file_of(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _stands(link: _Link) -> bool:
    """Whether what was just copied was leased to the end. Asking the kernel orders the copy before the look, on any
    processor.
    """
    assert link.buffer_pool is not None
    assert link.word is not None
    select.select([], [], [], 0)
    at = link.word.offset
    return int(link.buffer_pool[at : at + 8].view(np.uint64)[0]) == link.word.number


def _ended(server: socket.socket | None) -> bool:
    """Whether a server that hung up has left nothing to read."""
    try:
        return server is None or not server.recv(1, socket.MSG_PEEK)
    except ConnectionResetError:
        return _ended(server)
    except OSError:
        return True


def _receive(server: socket.socket) -> bytes:
    """The next datagram. A server that ends with calls unread resets the connection, but what it sent before counts."""
    try:
        return server.recv(MAX_DATAGRAM_BYTES + 1)
    except ConnectionResetError:
        return server.recv(MAX_DATAGRAM_BYTES + 1)
