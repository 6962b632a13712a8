"""The harness of attacks: a real server, an honest run beside it, and what holds after whatever was done to it.

Every clip of the run was right and in its place, the server is the same process, what all of its processes hold grew by
at most 64 MiB, its loop never stood for more than half a second, its log grew by at most 1 MiB, and a counter names the
attack. It knows no attack but connections that say what they are told to.
"""

from __future__ import annotations

import contextlib
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from decode_server.service.process_metrics import own_memory_bytes
from tests.chaos.zmtp import greeting, ready
from tests.integration.forking_trainer import POLICY, is_right
from tests.integration.serving import PATIENCE_S, Server, wait_until
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.transports.credentials import Credentials

BATCH_CLIPS = 4
DATASET = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(96)]
MAY_GROW_BYTES = 64 << 20
MAY_LOG_BYTES = 1 << 20
MAY_STAND_S = 0.5
CROWD = 2000
_METRONOME = """
import sys, threading, time
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
longest_s, last_s = 0.0, time.monotonic()
print("ticks", flush=True)
while not over.wait(0.01):
    now_s = time.monotonic()
    longest_s, last_s = max(longest_s, now_s - last_s), now_s
print(longest_s)
"""


class HonestRun:
    """A trainer in a thread of its own; within `with` it goes on, after it every batch of it was right."""

    def __init__(self, url: str, credentials: Credentials | None = None) -> None:
        options = LoaderOptions(
            servers=[url],
            batch_clips=BATCH_CLIPS,
            run_seed=7,
            stall_s=PATIENCE_S,
            credentials=credentials or Credentials(),
        )
        self._loader = ClipLoader(DATASET, POLICY, options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="honest run")
        self._failed: BaseException | None = None
        self.batches = 0

    def _run(self) -> None:
        try:
            with self._loader as run:
                while not self._stop.is_set():
                    batch = next(run)
                    first = self.batches * BATCH_CLIPS
                    assert batch.positions.tolist() == list(range(first, first + BATCH_CLIPS))
                    assert is_right(batch)
                    self.batches += 1
        except BaseException as error:
            self._failed = error

    @property
    def clips(self) -> int:
        """Clips that came so far."""
        return self.batches * BATCH_CLIPS

    def goes_on(self) -> None:
        """It has some more batches than now."""
        wanted = self.batches + 8
        wait_until("the honest run goes on", lambda: self._failed or self.batches >= wanted)
        assert self._failed is None, repr(self._failed)

    def __enter__(self) -> HonestRun:
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if kind is None:
            assert self._failed is None, repr(self._failed)


def held_bytes(server: Server) -> int:
    return sum(own_memory_bytes(pid) for pid in (server.pid, *server.workers(), *server.gateways()))


def restarts(server: Server) -> float:
    return server.metrics()["framefeed_server_gateway_restarts_total"]


def refused(server: Server, reason: str) -> float:
    return server.metrics()[f'framefeed_server_refused_total{{reason="{reason}"}}']


class Metronome:
    """A process that wants to run every 10 ms: `longest_s`, after its `with`, is for how long the machine did not let
    it, and so for how long it may have held up any other process, through nobody's fault.
    """

    def __enter__(self) -> Metronome:
        self.longest_s = 0.0
        command = [sys.executable, "-c", _METRONOME]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ticks\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        said, _ = self._process.communicate("", timeout=PATIENCE_S)
        self.longest_s = float(said)


def counter(name: str) -> str:
    """The sample of a reason for which somebody is refused, or of what is named in full."""
    return name if name.startswith(("framefeed_", "process_")) else f'framefeed_server_refused_total{{reason="{name}"}}'


def longest_turn_s(server: Server) -> float:
    """For how long the front's loop stood at most, since its start."""
    return server.metrics()["framefeed_server_front_longest_turn_seconds"]


@contextlib.contextmanager
def withstands(server: Server, run: HonestRun, *counters: str) -> Iterator[None]:
    """What is done within it to the server changes nothing for the run, and is counted under these names."""
    run.goes_on()
    values, held = server.metrics(), held_bytes(server)
    before = {name: values.get(counter(name), 0.0) for name in counters}
    stood_s, log_bytes, pid = longest_turn_s(server), len(server.log()), server.pid
    with Metronome() as machine:
        yield
        run.goes_on()
        for name in counters:
            seen = counter(name)
            wait_until(f"it is counted as {name}", lambda: server.metrics().get(seen, 0.0) > before[name])  # noqa: B023
    wait_until("its memory is given back", lambda: held_bytes(server) <= held + MAY_GROW_BYTES)
    assert server.process.poll() is None
    assert server.pid == pid
    assert server.get("/healthz")[0] == 200
    assert longest_turn_s(server) <= max(stood_s, MAY_STAND_S + machine.longest_s)
    log = server.log()
    assert len(log) - log_bytes <= MAY_LOG_BYTES
    assert "Traceback" not in log[log_bytes:]


class Peer:
    """A raw connection that says what it likes."""

    def __init__(self, url: str) -> None:
        host, _, port = url.partition("://")[2].rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)

    def shake_hands(self, identity: bytes = b"") -> Peer:
        self.socket.sendall(greeting() + ready(identity))
        received = b""
        while b"READY" not in received:
            more = self.socket.recv(4096)
            assert more, "the handshake failed"
            received += more
        return self

    def is_cut(self) -> bool:
        """Whether the other side ended the connection; what it still sends is thrown away."""
        before_s = self.socket.gettimeout()
        self.socket.setblocking(False)
        try:
            while self.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(before_s)
        return True

    def flood(self, data: bytes, most_bytes: int, *, most_s: float = math.inf) -> bool:
        """Send it again and again; whether it was cut before so many bytes were sent, or so many seconds over: who is
        not read any more is not cut.
        """
        self.socket.settimeout(0.2)
        sent, until_s = 0, time.monotonic() + most_s
        while sent < most_bytes and time.monotonic() < until_s:
            try:
                sent += self.socket.send(memoryview(data)[sent % len(data) :])
            except TimeoutError:
                if self.is_cut():
                    return True
            except OSError:
                return True
        return False

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()


def crowd(url: str, count: int, first_bytes: bytes) -> list[Peer]:
    """So many connections that say the same."""
    peers = []
    for _ in range(count):
        peers.append(Peer(url))
        with contextlib.suppress(OSError):
            peers[-1].socket.sendall(first_bytes)
    return peers


def all_cut(peers: list[Peer]) -> bool:
    """Closes those that were cut; whether that is all."""
    for peer in [peer for peer in peers if peer.is_cut()]:
        peer.socket.close()
        peers.remove(peer)
    return not peers
