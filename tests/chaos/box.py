"""A box: one address at which a real server process lives, is hurt, dies and lives again. It decides nothing itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
from pathlib import Path
from types import TracebackType

from tests.chaos.proxy import Proxy
from tests.chaos.schedule import Fault
from tests.integration.serving import ROUGH_SERVE, SERVE, Server

_SEQUENCE = itertools.count(1)
_SIGNALS = {Fault.KILL: signal.SIGKILL, Fault.STOP: signal.SIGSTOP, Fault.DRAIN: signal.SIGTERM}


TRANSPORTS = ("tcp", "shm", "grpc")


def fixed_bind(transport: str) -> str:
    """An address of this transport for --bind that is free and stays usable through restarts.

    TCP ports lie below the ephemeral ones, which the system gives to any connection while a server is down.
    """
    if transport == "shm":
        return f"shm://@framefeed-chaos-{os.getpid()}-{next(_SEQUENCE)}"
    rng = random.SystemRandom()
    while True:
        port = rng.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return f"{transport}://127.0.0.1:{port}"


class Box:
    """Within `with` it serves `root` at `bind`. With a proxy seed it does so over a proxy and from rough storage.

    One thread at a time uses it.
    """

    def __init__(self, folder: Path, root: Path, *options: str, bind: str, proxy_seed: int | None = None) -> None:
        self._program = SERVE if proxy_seed is None else ROUGH_SERVE
        self.exit_codes: list[int] = []  # of servers that were told to drain
        self._folder, self._root, self._options, self._bind = folder, root, options, bind
        self._stopped_until_s: float | None = None
        self._ending: Fault | None = None  # what its process was told to end by, until another one lives here
        self.server = self._spawn()
        self.proxy = None
        if proxy_seed is not None:
            readable = bind.startswith("tcp:") and "--curve-key" not in options  # CURVE's messages are closed to it
            self.proxy = Proxy(int(bind.rpartition(":")[2]), seed=proxy_seed, zmtp=readable)
        self.url = f"{bind.partition(':')[0]}://{self.proxy.address}" if self.proxy else bind

    def wait(self) -> None:
        """Wait until its first server serves."""
        self.server.__enter__()
        if self.proxy:
            self.proxy.__enter__()

    def __enter__(self) -> Box:
        self.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.proxy:
            self.proxy.__exit__(kind, error, at)
        self._signal(signal.SIGKILL)  # stopped or not; its workers go with it
        self.server.__exit__(kind, error, at)

    @property
    def serving(self) -> bool:
        """Whether it takes requests: up, announced, not stopped, not draining."""
        up = self.server.process.poll() is None and self.server.announced
        return up and self._stopped_until_s is None and self._ending is None

    def strike(self, fault: Fault, *, until_s: float) -> None:
        """Do a fault of a process to a box that serves; a stop lasts until `until_s` of the caller's clock."""
        if fault is Fault.STOP:
            self._stopped_until_s = until_s
        else:
            self._ending = fault
        self._signal(_SIGNALS[fault])

    def tend(self, now_s: float) -> None:
        """Let a stopped server go on when its time has come, and start a new one where one ended. Never blocks."""
        if self._stopped_until_s is not None and now_s >= self._stopped_until_s:
            self._stopped_until_s = None
            self._signal(signal.SIGCONT)
        code = self.server.process.poll()
        if code is not None:
            if self._ending is Fault.DRAIN:
                self.exit_codes.append(code)
            self._ending, self._stopped_until_s = None, None
            assert self.server.process.stdout is not None
            self.server.process.stdout.close()
            self.server = self._spawn()

    def metrics_url(self) -> str:
        """Of the server that lives here now. Raises OSError while none does."""
        return self.server.metrics_url

    def processes(self) -> list[int]:
        """Process ids of the server and its workers."""
        front = self.server.process.pid
        try:
            children = Path(f"/proc/{front}/task/{front}/children").read_text().split()
        except OSError:
            return []
        return [front, *map(int, children)]

    def _spawn(self) -> Server:
        return Server(self._folder, str(self._root), *self._options, "--bind", self._bind, program=self._program)

    def _signal(self, number: signal.Signals) -> None:
        """A box hangs as a whole, and goes on as a whole; to die or drain is told to the server alone."""
        everyone = number in (signal.SIGSTOP, signal.SIGCONT)
        for pid in self.processes() if everyone else [self.server.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
