"""A Ray cluster of several hosts: a head on this machine, a raylet in each network namespace.

Ray is in an environment of its own, whose Python FRAMEFEED_RAY_PYTHON names. It knows nothing of what runs on them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.chaos.hosts import Host
from tests.integration.serving import wait_until

ROOT = Path(__file__).parents[2]
START_S = 120.0
PORT = 26379
# A dead box is noticed after some 3 s; without a head, boxes go on for a day.
_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_MEMORY_MONITOR": "1",
}
_NODE = ("--num-cpus=0", "--object-store-memory=80000000", "--disable-usage-stats", "--block")


def ray_python() -> str:
    """The Python that has Ray; "" for none."""
    if given := os.environ.get("FRAMEFEED_RAY_PYTHON"):
        return given
    return sys.executable if importlib.util.find_spec("ray") else ""


class RayBoxes:
    """Within `with` the head and a raylet with one `framefeed_socket` on each host are up."""

    def __init__(self, folder: Path, hosts: Sequence[Host]) -> None:
        self._folder, self._hosts = folder, list(hosts)
        self.address = f"{self._hosts[0].gateway}:{PORT}"
        self._mark = f"FRAMEFEED_TEST_BOXES={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self.environment = {**os.environ, **_SETTINGS, name: value, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder)}
        self._head: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RayBoxes:
        head_address = self._hosts[0].gateway
        where = ("--head", f"--node-ip-address={head_address}", f"--port={PORT}", "--include-dashboard=false")
        self._head = self._start("head", (), *where, f"--temp-dir={self._folder}")
        wait_until("the head answers", lambda: self.status() is not None, patience_s=START_S)
        for number, host in enumerate(self._hosts):
            link = subprocess.run([*host.enter, "ip", "route", "add", "default", "via", host.gateway], check=False)
            assert link.returncode == 0
            joins = (f"--address={self.address}", f"--node-ip-address={host.address}")
            self._start(f"box{number}", host.enter, *joins, '--resources={"framefeed_socket": 1}')
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until("all of it is gone", lambda: not self._processes())

    def fleet(self, *words: str, within_s: float = START_S) -> subprocess.CompletedProcess[str]:
        """Run `framefeed fleet` with these words, in Ray's environment."""
        command = [ray_python(), "-m", "framefeed.cli", "fleet", *words, "--ray", self.address]
        return subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False
        )

    def status(self) -> list[dict[str, Any]] | None:
        """What `fleet status` says; None where it fails."""
        done = self.fleet("status", "--json")
        found: list[dict[str, Any]] | None = json.loads(done.stdout) if done.returncode == 0 else None
        return found

    def kill_head(self) -> None:
        """End everything that the head's machine runs of Ray, at once."""
        assert self._head is not None
        head_only = [pid for pid in self._processes() if self._lies_here(pid)]
        for pid in head_only:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _start(self, name: str, under: tuple[str, ...], *options: str) -> subprocess.Popen[bytes]:
        command = [*under, ray_python(), "-m", "ray.scripts.scripts", "start", *options, *_NODE]
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def _processes(self) -> list[int]:
        """All that was started with our mark, however it has been re-parented."""
        mine = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    mine.append(int(folder.name))
        return mine

    @staticmethod
    def _lies_here(pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
        except OSError:
            return False
