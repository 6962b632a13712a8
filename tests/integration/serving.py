"""Real servers and a raw client for tests: starts, talks to, watches and ends them; every wait has a deadline."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import zmq

from framefeed.crops import RandomResizedCrop
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.wire import Call, DecodeCall, Reply, pack_call, unpack_reply

PATIENCE_S = 20.0
SERVE = ("-c", "from framefeed.cli.command import main; raise SystemExit(main())", "serve")
FAKE_SERVE = ("-m", "tests.integration.fake_server", "tests.integration.fake_worker")
ROUGH_SERVE = ("-m", "tests.integration.fake_server", "tests.chaos.rough_worker")


def wait_until(what: str, seen: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Ask again and again until `seen()` is true; fail with `what` when its time is over."""
    until_s = time.monotonic() + patience_s
    while not seen():
        assert time.monotonic() < until_s, f"not within {patience_s:g} s: {what}"
        select.select([], [], [], 0.01)


def request(video: str = "clip", *, seed: int = 0, side_px: int = 32, frames: int = 2) -> ClipRequest:
    """A small request; the fake engine does what the video's name says."""
    return ClipRequest(
        video=video,
        start_s=1.0,
        end_s=2.0,
        sampling=Segments(frames=frames),
        crop=RandomResizedCrop(),
        width_px=side_px,
        height_px=side_px,
        seed=seed,
    )


class Client:
    """One DEALER, used as a client that knows nothing but the wire would."""

    def __init__(self, endpoint: str, *, receive_limit: int = 1000) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVHWM, receive_limit)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)

    def send(self, call: Call) -> None:
        self.send_raw(pack_call(call))

    def send_raw(self, *frames: bytes) -> None:
        assert self._socket.poll(int(PATIENCE_S * 1000), zmq.POLLOUT), "the server takes no messages"
        self._socket.send_multipart(frames)

    def receive(self, *, patience_s: float = PATIENCE_S) -> tuple[Reply, bytes]:
        """The next reply and its pixels (b"" without)."""
        assert self._socket.poll(int(patience_s * 1000)), f"no reply within {patience_s:g} s"
        header, *pixels = self._socket.recv_multipart()
        assert len(pixels) <= 1
        return unpack_reply(header), pixels[0] if pixels else b""

    def decode(self, wanted: ClipRequest, *, attempt: int = 1, deadline_s: float = PATIENCE_S) -> tuple[Reply, bytes]:
        self.send(DecodeCall(attempt=attempt, deadline_s=deadline_s, request=wanted))
        return self.receive()

    def silent(self) -> bool:
        """Whether nothing more came."""
        return not self._socket.poll(0)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()
        self._context.term()


class Server:
    """A server process; within `with` it is ready, after it gone, whatever the test did."""

    def __init__(
        self, folder: Path, *args: str, program: tuple[str, ...] = FAKE_SERVE, under: tuple[str, ...] = ()
    ) -> None:
        """`under` is the command that starts it elsewhere."""
        self._announce = folder / f"announce-{time.monotonic_ns()}.json"
        self._log = folder / f"{self._announce.stem}.log"
        port_args = () if "--bind" in args else ("--bind", "tcp://127.0.0.1:0")
        options = ("--metrics-port", "0", "--announce", str(self._announce))
        self._command = [*under, sys.executable, *program, *args, *port_args, *options]
        self._start()

    def _start(self) -> None:
        self.first_line = ""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log, text=True)

    def restart(self) -> None:
        """Start it again, once it has ended, at the addresses that it had."""
        assert self.process.poll() is not None
        self.process.communicate()
        self._announce.unlink(missing_ok=True)
        at = self._command.index("--bind")
        self._command[at + 1] = self.endpoint
        self._start()
        self.__enter__()

    def __enter__(self) -> Server:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        self.first_line = self.process.stdout.readline() if readable else ""
        wait_until("the announce file", lambda: self._announce.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()
        body = json.loads(self._announce.read_text())
        self.name, self.endpoints, self.pid = body["server"], body["endpoints"], body["pid"]
        self.endpoint = self.endpoints[0]
        self.url = body["metrics_url"].removesuffix("/metrics")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)
        if kind is not None:
            print(self.log())

    @property
    def announced(self) -> bool:
        return self._announce.exists()

    @property
    def metrics_url(self) -> str:
        """Of whichever process serves now. Raises OSError while none does."""
        return str(json.loads(self._announce.read_text())["metrics_url"])

    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """(status, body) of a page of the HTTP port."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """All samples; the conservation law is checked at every scrape."""
        values = parse_metrics(self.get("/metrics")[1])
        assert conserved(values), "requests are lost or counted twice"
        return values

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        return [pid for pid in self._children() if not _is_gateway(pid)]

    def gateways(self) -> list[int]:
        """Process ids of those that run ZeroMQ for it."""
        return [pid for pid in self._children() if _is_gateway(pid)]

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def has_replaced(self, before: list[int]) -> bool:
        """Whether other workers than `before` are up."""
        log, workers = self.log(), self.workers()
        return bool(workers) and all(pid not in before and f"worker {pid} is up" in log for pid in workers)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(timeout=PATIENCE_S)


def _is_gateway(pid: int) -> bool:
    """Whether a process runs ZeroMQ; one that has ended does not."""
    try:
        return b"listeners.gateway." in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def parse_metrics(text: str) -> dict[str, float]:
    """Prometheus text as {name{labels}: value}."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def total(values: dict[str, float], name: str) -> float:
    """The sum over all labels of a server metric."""
    return sum(value for key, value in values.items() if key.startswith(f"framefeed_server_{name}{{"))


def conserved(values: dict[str, float]) -> bool:
    """Whether a server's requests received = replied to + dropped + in flight."""
    ended = total(values, "requests_total") + total(values, "replies_dropped_total")
    in_flight = values["framefeed_server_requests_in_flight"]
    return values["framefeed_server_requests_received_total"] == ended + in_flight


def outcome(values: dict[str, float], label: str) -> float:
    """Replies of one outcome."""
    return values[f'framefeed_server_requests_total{{outcome="{label}"}}']


class Gate:
    """Holds the fake decodes of its video until it is opened, for good. A FIFO: no side has to ask again and again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._path = folder / "gate"
        os.mkfifo(self._path)
        self.video = f"wait:{self._path}"
        self._fd = -1

    def entered(self) -> bool:
        """Whether a decode waits at it, or is about to."""
        return self._path.with_suffix(".entered").exists()

    def open(self) -> None:
        """Let all decodes through, now and later."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Close it again."""
        if self._fd >= 0:
            os.close(self._fd)


def gone(pidfd: int) -> bool:
    """Whether the process of a pidfd ends in time."""
    return bool(select.select([pidfd], [], [], PATIENCE_S)[0])
