"""tcp:// by ZeroMQ: one DEALER a server, all in one epoll. It knows no clips and no handshakes.

A server whose host dies without a word is noticed by heartbeats.
"""

from __future__ import annotations

import select
import time

import numpy as np
import numpy.typing as npt
import zmq

from trainer_client.transports.fork_guard import FORKS_WAIT, Address, close_all, let_go_when_forked, peer_of
from trainer_client.transports.transport import Kind, Signal, TransportLimits
from trainer_client.transports.zmq_link import Link

_NOBLOCK = int(zmq.NOBLOCK)


class ZmqTransport:
    """See Transport. A descriptor of ZeroMQ shows changes only, so a socket that was used is looked at again."""

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=limits.io_threads)
        self._context.set(zmq.MAX_SOCKETS, self._context.get(zmq.SOCKET_LIMIT))  # a server has three
        self._peers: set[Address] = set()  # that a connection stood to
        with FORKS_WAIT:
            self._epoll = select.epoll()
            let_go_when_forked(self)
        self._links: dict[str, Link] = {}
        self._by_fd: dict[int, Link] = {}
        self._used: set[str] = set()  # since signals() looked: what their descriptors showed may be swallowed
        self._troubled: set[str] = set()  # may have to be connected anew

    def connect(self, url: str) -> None:
        """See Transport."""
        link = self._links[url] = Link(url, self._context, self._limits, peers=self._peers)
        self._watch(link)

    def disconnect(self, url: str) -> None:
        """See Transport."""
        link = self._links.pop(url)
        self._used.discard(url)
        self._troubled.discard(url)
        self._shut(link)

    def fileno(self) -> int:
        """See Transport."""
        return self._epoll.fileno()

    def signals(self) -> list[Signal]:
        """See Transport. Connections that were refused or cut are made again here, when it is time."""
        shown = {fd for fd, _ in self._epoll.poll(0)}
        looked = self._used.union(self._by_fd[fd].url for fd in shown)
        self._used.clear()
        messages, changes = [], []
        for url in looked:
            link = self._links[url]
            if link.readable:
                messages.append(Signal(url, Kind.MESSAGES))
                self._used.add(url)
            if link.monitor_fd not in shown:  # all that the monitor said was read when it was last looked at
                continue
            changes += [Signal(url, kind) for kind in link.changes()]
            if link.failed:
                self._shut(link)
            if link.troubled:
                self._troubled.add(url)
        if self._troubled:
            self._connect_again()
        return messages + changes

    def send(self, url: str, header: bytes) -> bool:
        """See Transport."""
        self._used.add(url)
        dealer = self._links[url].dealer
        if dealer is None:
            return False
        try:
            dealer.send(header, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def header(self, url: str) -> bytes | None:
        """See Transport."""
        self._used.add(url)
        link = self._links[url]
        if link.dealer is None or not link.readable:  # cheaper than the exception that says so
            return None
        try:
            return link.dealer.recv(_NOBLOCK)
        except zmq.Again:
            return None

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int:
        """See Transport: ZeroMQ's own memory is copied into the array; further parts are dropped."""
        link, received_bytes = self._links[url], 0
        while link.dealer is not None and link.has_part:
            received_bytes += link.dealer.recv_into(bytearray() if into is None else into.data, flags=_NOBLOCK)
            into = None
        return received_bytes

    def trouble(self, url: str) -> str:
        """See Transport."""
        return self._links[url].trouble

    def close(self) -> None:
        """See Transport."""
        for url in list(self._links):
            self.disconnect(url)
        self._context.destroy(0)
        self._epoll.close()

    def forked(self) -> None:
        """See Inherited; pyzmq knows that its context and sockets are not this process's, and leaves them alone."""
        self._epoll.close()
        close_all(lambda fd: peer_of(fd) in self._peers)

    def _connect_again(self) -> None:
        now_s = time.monotonic()
        for url in [*self._troubled]:
            link = self._links[url]
            if link.due(now_s):
                self._shut(link)
                link.open_again()
                self._watch(link)
            if not link.troubled:
                self._troubled.discard(url)

    def _watch(self, link: Link) -> None:
        for fd in link.fds:
            self._by_fd[fd] = link
            self._epoll.register(fd, select.EPOLLIN)
        self._used.add(link.url)

    def _shut(self, link: Link) -> None:
        for fd in link.fds:
            self._epoll.unregister(fd)
            del self._by_fd[fd]
        link.close()
