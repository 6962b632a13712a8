"""One front of a box as the box sees it: its process, started, heard, asked to end, killed and reaped; then the next.

It decides nothing, never blocks, and knows no other front. A front that is started again listens where it did before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from decode_server.service.box_messages import (
    MAX_MESSAGE_BYTES,
    Failed,
    FrontSetup,
    Listening,
    Ready,
    SiblingUrls,
    Turned,
    pack,
    unpack_from_front,
)
from decode_server.service.workers.restarts import Restarts
from framefeed.cli import interrupts
from framefeed.mapped_manifest import new_memory
from framefeed.server_entry import ServerEntry

log = logging.getLogger("framefeed.serve")


class BoxManifest:
    """Memory that one manifest is held in, once for all workers of a box. `close` is idempotent. Raises OSError."""

    def __init__(self) -> None:
        self.fd = new_memory()

    def close(self) -> None:
        """Leave it to those who have it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __repr__(self) -> str:
        return f"BoxManifest({self.fd})"


_COMMAND = (sys.executable, "-P", "-m", "decode_server.service.front_process")


class BoxFront:
    """Poll its `fds()`, then call `hear` and `reap`. `close` is for whoever made it."""

    def __init__(self, number: int, setup: FrontSetup) -> None:
        self.number = number
        self.urls: tuple[str, ...] = ()  # where it listens, once that is known for ever
        self.entry: ServerEntry | None = None  # while it takes requests
        self.was_ready = False  # any process of it
        self.took_requests = False  # the last one did
        self.failure: Failed | None = None  # why the last process ended, if it said so
        self.start_at_s = -math.inf
        self.memory: BoxManifest | None = None  # which the last process was given
        self.restarts = Restarts()
        self._setup = msgspec.structs.replace(setup, box=os.getpid())
        self._untold = False  # it waits to be told its siblings
        self._turned_s: float | None = None  # when the loop of the process last did; something, once it has begun
        self._stood_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._pidfd = -1

    @property
    def alive(self) -> bool:
        """Whether there is a process that was not reaped."""
        return self._process is not None

    def fds(self) -> list[int]:
        """What is readable when the process said something or ended."""
        channel = [] if self._channel is None else [self._channel.fileno()]
        return channel if self._process is None else [*channel, self._pidfd]

    def start(self, memory: BoxManifest) -> None:
        """Start a process, whose workers have their manifest in this memory. Raises OSError, with nothing left, if that
        cannot be done.
        """
        setup = msgspec.structs.replace(self._setup, manifest=memory.fd)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.enter_context(ours)
            ours.setblocking(False)
            ours.send(pack(setup))  # before the process is there: it cannot be gone
            with interrupts.held():  # until it has what handles them
                self._process = subprocess.Popen(
                    [*_COMMAND, str(theirs.fileno())],
                    pass_fds=(theirs.fileno(), memory.fd),
                    stdin=subprocess.DEVNULL,
                    process_group=0,  # Ctrl-C in a terminal is the box's to pass on
                )
            self._pidfd = os.pidfd_open(self._process.pid)
            undo.pop_all()
        self._channel, self.failure, self.took_requests = ours, None, False
        self.memory, self._turned_s, self._stood_s = memory, None, 0.0
        log.info("front %d is process %d on CPUs %s", self.number, self._process.pid, self._setup.cpus)

    def hear(self) -> None:
        """Take in what the process said."""
        while self._channel is not None:
            try:
                datagram = self._channel.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            if not datagram:
                self._channel.close()
                self._channel = None
                return
            self._take_in(datagram)

    def stood_s(self, ran_s: float) -> float:
        """For how long its loop has stood, while the box ran: for `ran_s` more since the last call."""
        self._stood_s += 0.0 if self._turned_s is None else ran_s
        return self._stood_s

    def tell_siblings(self, fronts: Sequence[tuple[str, ...]]) -> None:
        """Tell a process that waits for it where the others are."""
        if self._untold and self._channel is not None:
            self._untold = False
            with contextlib.suppress(OSError):  # it is gone
                self._channel.send(pack(SiblingUrls(fronts=tuple(fronts))))

    def reap(self) -> int | None:
        """The exit code, negative for a signal, of the process that ended since; None if none did."""
        if self._process is None or not select.select([self._pidfd], [], [], 0)[0]:
            return None
        self.hear()
        code = self._process.wait()
        os.close(self._pidfd)
        if self._channel is not None:
            self._channel.close()
        self._process, self._channel, self.entry, self._untold = None, None, None, False
        return code

    def ask_to_end(self) -> None:
        """Have the process drain; a second time, end at once. A no-op where there is none."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process; all that it started ends with it. A no-op where there is none."""
        if self._process is not None:
            self._process.kill()

    def _take_in(self, datagram: bytes) -> None:
        try:
            message = unpack_from_front(datagram)
        except ValueError as error:
            log.error("front %d said nonsense (%s)", self.number, error)
            self.kill()
            return
        match message:
            case Listening(urls=urls, metrics_port=metrics_port):
                self.urls, self._untold = urls, True
                options = dataclasses.replace(self._setup.options, bind=urls, metrics_port=metrics_port)
                self._setup = msgspec.structs.replace(self._setup, options=options)
            case Ready(entry=entry):
                self.entry, self.was_ready, self.took_requests = entry, True, True
                self._turned_s = self._turned_s or 0.0  # its loop said so: it may stand from now on
                self.restarts.came_up()
            case Turned(at_s=at_s):
                if self._turned_s != at_s:
                    self._turned_s, self._stood_s = at_s, 0.0
            case Failed():
                self.failure = message

    def __repr__(self) -> str:
        return f"BoxFront({self.number}, {'alive' if self.alive else 'gone'}, {', '.join(self.urls)})"
