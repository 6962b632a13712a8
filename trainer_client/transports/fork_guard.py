"""What a forked child lets go of at once, so that it neither holds nor disturbs what its parent goes on with.

fork() copies every descriptor, and a connection ends for its server only when the last copy is closed: a child that
lives on would hold what a parent that was killed had been lent. It knows no transport; threads and locks of the parent
are not there in the child, so nothing here takes one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

Address = tuple[str, int] | str | bytes
FORKS_WAIT = threading.RLock()  # held while descriptors are made that forked() could not find yet
_V4_IN_V6 = "::ffff:"


class Inherited(Protocol):
    """Who has descriptors that a child must not keep."""

    def forked(self) -> None:
        """Close this process's copies, and nothing else: they are the parent's to use. Called in a forked child."""


_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()


def let_go_when_forked(holder: Inherited) -> None:
    """Have `holder.forked()` called in every child that this process forks while the holder lives."""
    with FORKS_WAIT:
        _inherited.add(holder)


def peer_of(fd: int) -> Address:
    """Who is at the other end of a socket. Raises OSError if it is none, or not connected."""
    peer = socket.socket(fileno=fd)
    try:
        address = peer.getpeername()
    finally:
        peer.detach()
    match address:
        case (str(host), int(port), *_):  # a netlink socket's are numbers
            return host.removeprefix(_V4_IN_V6), port
    return str(address)


def close_all(theirs: Callable[[int], bool]) -> None:
    """Close every descriptor of which `theirs` is true and raises no OSError, whoever made it.

    For libraries that show nobody their descriptors. Only in a forked child, where what they belong to cannot be used.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # another kind of thing, or the listing's own
            if theirs(fd):
                os.close(fd)


def keep_for_ever(what: object) -> None:
    """Never let Python take the object apart in this process: what it would end is the parent's."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))


def _in_child() -> None:
    FORKS_WAIT.release()
    for holder in list(_inherited):
        holder.forked()
    _inherited.clear()


os.register_at_fork(before=FORKS_WAIT.acquire, after_in_parent=FORKS_WAIT.release, after_in_child=_in_child)
