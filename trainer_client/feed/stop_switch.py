"""The switch that ends a feed's thread, and the socket pair that wakes it. It holds nothing of the feed.

So whoever only wants the thread to end, as a loader that is dropped does, keeps no batch and no connection alive.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import socket
import threading
import warnings
from collections.abc import Callable

from trainer_client.feed.own_lock import let_go_of
from trainer_client.transports.fork_guard import FORKS_WAIT, let_go_when_forked

# The system call with the interpreter's lock held: socket.send() gives it away, and the thread that is woken then keeps
# it for a whole turn, a millisecond for which whoever only took a batch would wait.
_send = ctypes.PyDLL(None).send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)


class StopSwitch:
    """`wake` is readable after each rouse(). Safe from any thread, also where the garbage collector runs."""

    def __init__(self) -> None:
        with FORKS_WAIT:
            self.wake, self._waker = socket.socketpair()
            let_go_when_forked(self)
        self.wake.setblocking(False)
        self._waker.setblocking(False)
        self._roused = select.poll()
        self._roused.register(self.wake, select.POLLIN)
        self._lock = threading.RLock()  # reentrant: the garbage collector may throw the switch within a rouse()
        self.thrown = False

    def rouse(self) -> None:
        """Wake the thread. Never blocks; does nothing once it is closed."""
        with self._lock:  # full: it is awake already; closed: it is gone
            _send(self._waker.fileno(), b"\0", 1, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def await_rouse(self, timeout_s: float) -> None:
        """Block until `wake` is readable, at most so long. The thread's own to call; it stays readable."""
        self._roused.poll(max(math.ceil(timeout_s * 1000), 0))

    def throw(self) -> None:
        """Have the thread end. Never blocks; idempotent."""
        self.thrown = True
        self.rouse()

    def unlock(self) -> None:
        """See let_go_of."""
        let_go_of(self._lock)

    def close(self) -> None:
        """Close the sockets, when the thread has ended or never began. Idempotent."""
        with self._lock:
            self.forked()

    def forked(self) -> None:
        """See Inherited."""
        self.wake.close()
        self._waker.close()


def end_dropped(stop_switch: StopSwitch, *, made_in: int, what: Callable[[], str]) -> None:
    """A loader of process `made_in` is gone: if nobody closed it, its thread ends by itself, and lets go of all."""
    if os.getpid() == made_in and not stop_switch.thrown:
        stop_switch.throw()
        warnings.warn(f"{what()} was dropped without close(); its thread is told to end", ResourceWarning, stacklevel=2)
