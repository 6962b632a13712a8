"""A server for a bench: started on one core, ready, and ended. It knows nothing of what is measured."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from framefeed.errors import BadInput, FramefeedError
from framefeed.key_files import write_public, write_secret
from framefeed_bench.one_core import on_core
from trainer_client.transports.credentials import Credentials

READY_SERVER = (sys.executable, "-m", "framefeed_bench.ready_server", "ready")
BINDS = {"tcp": "tcp://127.0.0.1:0", "shm": "shm://@{}", "grpc": "grpc://127.0.0.1:0"}
BINDS["curve"] = BINDS["tcp"]  # with keys
_START_S = 180.0
_WITH_US = (sys.executable, "-m", "framefeed.cli.parent_death")


def check_transports(transports: Sequence[str]) -> None:
    """Raises BadInput for what is none."""
    if unknown := set(transports) - set(BINDS):
        raise BadInput(f"--transports: {sorted(unknown)[0]!r} is none, wanted some of {', '.join(BINDS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """Where a server is, and what it wants to see."""

    url: str
    pid: int
    credentials: Credentials


@contextlib.contextmanager
def running_server(
    command: Sequence[str], transport: str, *, core: int, workers: int = 1, options: Sequence[str] = ()
) -> Iterator[RunningServer]:
    """A server of one front on one core. Raises FramefeedError if it is not ready in time."""
    with tempfile.TemporaryDirectory() as folder:
        announce = Path(folder) / "announce.json"
        bind = BINDS[transport].format(f"framefeed-bench-{uuid.uuid4().hex[:12]}")
        keys, credentials = _keys(Path(folder)) if transport == "curve" else ((), Credentials())
        given = (
            "--bind",
            bind,
            "--metrics-port",
            "0",
            "--workers",
            str(workers),
            "--fronts",
            "1",
            "--announce",
            str(announce),
            *keys,
        )
        with on_core(core):
            server = subprocess.Popen(
                [*_WITH_US, str(os.getpid()), *command, *given, *options], stdout=subprocess.DEVNULL
            )
        try:
            until_s = time.monotonic() + _START_S
            while not announce.exists():
                if server.poll() is not None or time.monotonic() > until_s:
                    raise FramefeedError(f"bench: the server at {bind} is not ready after {_START_S:g} s")
                time.sleep(0.02)
            entry = json.loads(announce.read_text())
            url, metrics_url = entry["endpoints"][0], entry["metrics_url"]
            while not _all_up(metrics_url, workers):
                if time.monotonic() > until_s:
                    raise FramefeedError(f"bench: not all of {workers} workers are up after {_START_S:g} s")
                time.sleep(0.1)
            yield RunningServer(url=url, pid=server.pid, credentials=credentials)
        finally:
            server.terminate()
            server.wait()


def _all_up(metrics_url: str, workers: int) -> bool:
    page = metrics_url.removesuffix("/metrics") + "/readyz"
    with urllib.request.urlopen(page, timeout=_START_S) as answer:  # noqa: S310 - http, as its server said
        return f"{workers} of {workers} workers up" in answer.read().decode()


def _keys(folder: Path) -> tuple[tuple[str, ...], Credentials]:
    """Options of a server that speaks CURVE, and who may connect to it."""
    for name in ("server", "trainer"):
        public, secret = zmq.curve_keypair()
        write_public(folder / f"{name}.public", public)
        write_secret(folder / f"{name}.secret", secret)
    options = ("--curve-key", str(folder / "server.secret"), "--curve-allow", str(folder / "trainer.public"))
    credentials = Credentials(curve_key=folder / "trainer.secret", curve_server=folder / "server.public")
    return options, credentials
