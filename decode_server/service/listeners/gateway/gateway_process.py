"""A gateway's process as the front sees it: started, talked to, and started again when it died. It knows no clients.

It never blocks (but for `close`, which is bounded). The port that clients connect to is the front's for as long as it
lives, whichever process serves there.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from decode_server.service.descriptor_reserve import PASSING, DescriptorReserve
from decode_server.service.listeners.gateway.gateway_messages import (
    MAX_DATAGRAM_BYTES,
    FromFront,
    FromGateway,
    Stop,
    Up,
    pack_datagrams,
    unpack_from_gateway,
)
from decode_server.service.process_end import describe_end
from decode_server.service.process_metrics import reaped_cpu_seconds
from decode_server.service.workers.restarts import Restarts
from decode_server.service.workers.sandbox import Sandbox, clean_environment
from framefeed.cli import interrupts
from framefeed.errors import FramefeedError

log = logging.getLogger("framefeed.serve")

_COMMAND = (sys.executable, "-P", "-m")
_FAILED_STARTS = 8  # in a row, after which there is no point
_REAP_S = 0.01
_LEAST_LIFE_S = 1.0  # of one that served, before the next is started
_GRACE_S = 1.0
_UNSENT_MESSAGES = 1024  # that wait for a gateway that takes none


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEvents:
    """`came_up` is called with each process that serves, its name and its sandbox; `restarted` for each that died."""

    came_up: Callable[[str, Sandbox], None] = lambda _name, _sandbox: None
    restarted: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """What every process runs and inherits, what it is told first, and what is called of it."""

    url: str
    module: str
    pass_fds: tuple[int, ...]
    first_words: Callable[[], Sequence[FromFront]]
    events: GatewayEvents


class GatewayDied(Exception):
    """The process is gone, and with it all connections; the next one is another."""


class GatewayProcess:
    """One process after the other. Poll its `fileno()`, and look at `due` before each wait."""

    def __init__(self, options: GatewayOptions) -> None:
        """Starts the first. Raises OSError if that cannot be done."""
        self._options = options
        self._restarts = Restarts()
        self._epoll = select.epoll()
        self._reserve = DescriptorReserve()
        self._was_up = False
        self.ended_cpu_s = 0.0  # CPU time of those that were, up to the last that was reaped
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False
        self._ended_because = ""
        self._start_at_s = self._started_s = -math.inf
        self._messages: list[FromFront] = []
        self._unsent: deque[bytes] = deque()
        self._waits_to_write = False
        self._datagram = bytearray(MAX_DATAGRAM_BYTES)
        try:
            self._start()
        except OSError:
            self.close(linger_s=0)
            raise

    def fileno(self) -> int:
        """Readable when the gateway has something to say, or died."""
        return self._epoll.fileno()

    @property
    def due(self) -> bool:
        """Whether the next process is to be started, by `receive`, or the last one to be reaped."""
        return self._channel is None and time.monotonic() >= self._start_at_s

    @property
    def full(self) -> bool:
        """Whether it should be told no more now, but for what is short and must be told."""
        return len(self._unsent) + len(self._messages) >= _UNSENT_MESSAGES

    @property
    def pid(self) -> int:
        """The process id; 0 while there is none."""
        return 0 if self._process is None else self._process.pid

    def say(self, message: FromFront) -> None:
        """Tell it something, at the next `flush`; nothing while there is no process, or to the next one."""
        if self._channel is not None:
            self._messages.append(message)

    def flush(self) -> None:
        """Hand over what was said, as far as the process takes it. That it died is seen by `receive`."""
        if self._channel is None or not (self._messages or self._unsent):
            return
        self._unsent += pack_datagrams(self._messages)
        self._messages = []
        while self._unsent:
            try:
                self._channel.send(self._unsent[0])
            except BlockingIOError:
                break
            except OSError:
                return
            self._unsent.popleft()
        if bool(self._unsent) is not self._waits_to_write:
            self._waits_to_write = bool(self._unsent)
            self._epoll.modify(self._channel, select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))

    def receive(self) -> list[FromGateway]:
        """What it said next; nothing if it says nothing now. Starts the next process when that is due.

        Raises GatewayDied once for each that ended, FramefeedError if none can be started.
        """
        self._reserve.refill()
        if self._channel is None:
            self._start_again()
            return []
        try:
            length = self._channel.recv_into(self._datagram)
            if length:
                said = unpack_from_gateway(memoryview(self._datagram)[:length])
                if said and isinstance(said[0], Up) and not self._was_ready:
                    self._came_up(said[0].sandbox)
                return said
            why = ""
        except BlockingIOError:
            return []
        except OSError:
            why = ""  # it is gone, and had not read all
        except ValueError as error:
            why = f"it was stopped because of what it said: {error}"
        self._bury(why)
        raise GatewayDied

    def close(self, *, linger_s: float) -> None:
        """End it: it has `linger_s` to send what it holds, and one second more. Idempotent."""
        if self._channel is not None:
            self._channel.setblocking(True)
            self._channel.settimeout(max(linger_s, _REAP_S))
            self.say(Stop(linger_s))
            try:
                for datagram in (*self._unsent, *pack_datagrams(self._messages)):
                    self._channel.send(datagram)
            except OSError as error:
                log.debug("gateway of %s: %s", self._options.url, error)
        if self._process is not None:
            try:
                self._process.wait(timeout=linger_s + _GRACE_S if linger_s else 0.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(timeout=_GRACE_S)
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = None
        self._start_at_s = math.inf
        self._reserve.close()
        if not self._epoll.closed:
            self._epoll.close()

    def _came_up(self, sandbox: Sandbox) -> None:
        self._was_ready = self._was_up = True
        self._restarts.came_up()
        log.info("gateway %d of %s is up", self.pid, self._options.url)
        self._options.events.came_up(f"gateway {self.pid}", sandbox)

    def _start_again(self) -> None:
        if not self.due:
            return
        if self._process is not None:
            code = self._reap(self._process)
            if code is None:
                self._start_at_s = time.monotonic() + _REAP_S  # killed, and not gone yet
                return
            self._process = None
            self._failed(self._ended_because or f"it {describe_end(code)}")
            return
        try:
            with self._reserve.lent():
                self._start()
        except OSError as error:
            self._was_ready = error.errno in PASSING and self._was_up  # others were up: it can be done
            self._failed(f"cannot start a process: {error}")

    def _start(self) -> None:
        """Start a process and tell it what it is to do. Raises OSError, with nothing left, if that cannot be done."""
        options, self._started_s = self._options, time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._epoll.register(ours, select.EPOLLIN)
                with interrupts.held():  # as of its first import it is not to end by them
                    self._process = subprocess.Popen(
                        [*_COMMAND, options.module, str(theirs.fileno())],
                        pass_fds=(theirs.fileno(), *options.pass_fds),
                        stdin=subprocess.DEVNULL,
                        stdout=2,  # stdout is the front's own
                        process_group=0,  # Ctrl-C in a terminal is the front's to handle
                        env=clean_environment(),
                    )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self._channel, self._was_ready, self._waits_to_write = ours, False, False
        for message in options.first_words():
            self.say(message)
        self.flush()

    def _bury(self, why: str) -> None:
        assert self._channel is not None
        assert self._process is not None
        if self._reap(self._process) is None:
            self._process.kill()
        self._epoll.unregister(self._channel)
        self._channel.close()
        self._channel = None
        self._messages, self._unsent = [], deque()
        self._ended_because, self._start_at_s = why, -math.inf
        self._options.events.restarted()

    def _reap(self, process: subprocess.Popen[bytes]) -> int | None:
        """Its exit code, once it has ended."""
        before_s = reaped_cpu_seconds()
        code = process.poll()
        self.ended_cpu_s += reaped_cpu_seconds() - before_s
        return code

    def _failed(self, why: str) -> None:
        now_s = time.monotonic()
        self._start_at_s = self._restarts.died(now_s=now_s, was_ready=self._was_ready)
        if self._was_ready:  # what a client did to it is no reason to let the others wait
            self._start_at_s = max(now_s, self._started_s + _LEAST_LIFE_S)
        if self._restarts.failed_starts >= _FAILED_STARTS:
            tries = self._restarts.failed_starts
            raise FramefeedError(f"{self._options.url}: no gateway can be started, {tries} tries; the last: {why}")
        log.warning(
            "gateway of %s: %s; its connections are cut, the next starts in %.1f s",
            *(self._options.url, why, max(self._start_at_s - now_s, 0.0)),
        )

    def __repr__(self) -> str:
        return f"GatewayProcess({self._options.url}, pid {self.pid})"
