"""Node share: of the processes of one user on one node that look at one thing, one looks and tells the others.

Which one is decided by an abstract Unix socket: whoever binds its name leads, the others connect to it, and when the
leader dies, by kill -9 as well, the kernel frees the name and the next one binds it; nothing is left behind. Where
nothing can be shared (the name is another's, the leader hangs, a message is too large) each looks for itself. It knows
neither servers nor sources.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

from framefeed.shm import is_trusted

_KIND = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
_BACKLOG = 128
_MAX_MESSAGE_BYTES = 1 << 20
_PATIENCE_S = 2.0  # a leader is waited for so long beyond what it is due
_LATE = 1.5  # and as a multiple of the pause between two looks; jitter makes that up to 1.25
_JITTER = 0.25  # nodes that were started together do not stay in step
_ELECTIONS, _ELECTION_REST_S = 5, 0.02


class NodeShare:
    """One process's part in it, for one thread; end() alone is any thread's. Whoever makes it closes it."""

    def __init__(self, name: str, look: Callable[[], bytes], *, every_s: float) -> None:
        """`name` is what all of them look at; `look` blocks and returns what is told. It is called every `every_s`."""
        key = hashlib.sha256(f"{os.geteuid()} {every_s} {name}".encode()).hexdigest()[:32]
        self._address = f"\0framefeed-node-{key}"
        self._look, self._every_s = look, every_s
        self._chance = random.SystemRandom()  # of pauses, not of data
        self._due_s = time.monotonic()
        self._over = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ended = False
        self._ending = threading.Lock()  # its descriptor is not written to once it is closed
        self._listener: socket.socket | None = None  # as the leader
        self._followers: list[socket.socket] = []
        self._leader: socket.socket | None = None  # as a follower
        self._heard = False  # anything from this leader
        self._last: bytes | None = None
        _SHARES.add(self)

    @property
    def leads(self) -> bool:
        """Whether it is this process that looks."""
        return self._listener is not None

    def next(self) -> bytes | None:
        """What the next look shows, whoever looked; None after end(). The first comes at once.

        Blocks for at most 1.5 pauses and 2 s, and for as long as `look` does where it is called. Raises what it raises.
        """
        while not self._ended:
            if self._elect():
                told = self._hear()
                if told == b"":
                    self._leave_leader()
                    continue
                if self._ended:
                    break
                self._last = self._look() if told is None else told
                self._schedule()
                return self._last
            self._attend(self._due_s)
            if not self._ended:
                self._last = self._look()
                self._schedule()
                self._tell(self._last)
                return self._last
        return None

    def end(self) -> None:
        """Have next() return at once, now and from now on; a look that is going on ends first."""
        self._ended = True
        with self._ending:
            if self._over >= 0:
                os.eventfd_write(self._over, 1)

    def close(self) -> None:
        """Let go of the name; another process leads. Idempotent."""
        self._ended = True
        self._let_go()
        with self._ending:
            if self._over >= 0:
                os.close(self._over)
                self._over = -1

    def __enter__(self) -> NodeShare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _schedule(self) -> None:
        """When the next look is due, of this process's own or, should the leader die, after it."""
        self._due_s = time.monotonic() + self._every_s * self._chance.uniform(1 - _JITTER, 1 + _JITTER)

    def _elect(self) -> bool:
        """Whether another process leads that can be followed; otherwise this one leads, or looks for itself only."""
        for _ in range(_ELECTIONS):
            if self._leader is not None or self._listener is not None or self._ended:
                break
            try:
                self._join()
            except ConnectionRefusedError:  # its leader has just died, or does not listen yet
                self._wait(_ELECTION_REST_S)
            except OSError:  # no abstract sockets here, or no descriptor for one
                break
        return self._leader is not None

    def _join(self) -> None:
        """Bind the name or connect to who has it; neither if that is another user."""
        with contextlib.ExitStack() as undo:
            ours = undo.enter_context(socket.socket(socket.AF_UNIX, _KIND))
            try:
                ours.bind(self._address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                ours.connect(self._address)
                if not is_trusted(ours):
                    raise PermissionError(errno.EPERM, "another user has the name") from None
                self._leader, self._heard = ours, False
            else:
                ours.listen(_BACKLOG)
                self._listener = ours
            undo.pop_all()

    def _hear(self) -> bytes | None:
        """What the leader tells; b"" when it is gone, None when it is late or gone without a word."""
        assert self._leader is not None
        patience_s = _PATIENCE_S + (_LATE * self._every_s if self._heard else 0)
        if self._leader.fileno() not in self._wait(patience_s, self._leader):
            return None
        try:
            told = self._leader.recv(_MAX_MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            told = b""
        if not told and not self._heard:  # rather than to turn in a circle
            self._leave_leader()
            return None
        self._heard = True
        return told

    def _attend(self, until_s: float) -> None:
        """Until then, tell newcomers what was seen last."""
        listener = self._listener
        while not self._ended and (left_s := until_s - time.monotonic()) > 0:
            waited_for = () if listener is None else (listener,)
            if not self._wait(left_s, *waited_for) or listener is None:
                continue
            try:
                self._welcome(listener)
            except BlockingIOError:
                continue
            except OSError:  # no descriptor for it: it waits until the next look
                listener = None

    def _welcome(self, listener: socket.socket) -> None:
        follower, _ = listener.accept()
        follower.setblocking(False)
        if not is_trusted(follower):
            follower.close()
            return
        self._followers.append(follower)
        if self._last is not None:
            self._tell(self._last, [follower])

    def _tell(self, message: bytes, followers: list[socket.socket] | None = None) -> None:
        for follower in list(self._followers if followers is None else followers):
            try:
                follower.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:  # it does not read: it will look for itself
                continue
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # then all look for themselves
                    self._followers.remove(follower)
                    follower.close()

    def _wait(self, timeout_s: float, *others: socket.socket) -> set[int]:
        """The descriptors of `others` that something happened at within that time or until end()."""
        poll = select.poll()
        for fd in (self._over, *(other.fileno() for other in others)):
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll(timeout_s * 1000)} - {self._over}

    def _leave_leader(self) -> None:
        if self._leader is not None:
            self._leader.close()
            self._leader = None

    def _let_go(self) -> None:
        self._leave_leader()
        for held in (*self._followers, *([] if self._listener is None else [self._listener])):
            held.close()
        self._followers.clear()
        self._listener = None


_SHARES: weakref.WeakSet[NodeShare] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child must not keep the name of a leader that dies."""
    for share in _SHARES:
        share._let_go()


os.register_at_fork(after_in_child=_let_go_in_child)
