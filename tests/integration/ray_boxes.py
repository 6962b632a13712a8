"""A Ray cluster of several hosts: a head on this machine, a raylet in each network namespace.

Ray is in an environment of its own, whose Python FRAMEFEED_RAY_PYTHON names. It knows nothing of what runs on them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.chaos.hosts import Host
from tests.integration.serving import wait_until

ROOT = Path(__file__).parents[2]
START_S = 240.0
PORT = 26379
# A dead box is noticed after some 3 s, and notices it itself some 5 s after its cable is back; without a head, boxes go
# on for a day.
_SETTINGS = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_raylet_liveness_self_check_interval_ms": "5000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
}
_NODE = ("--num-cpus=0", "--object-store-memory=80000000", "--disable-usage-stats", "--block")


def ray_python() -> str:
    """The Python that has Ray; "" for none."""
    if given := os.environ.get("FRAMEFEED_RAY_PYTHON"):
        return given
    return sys.executable if importlib.util.find_spec("ray") else ""


class RayBoxes:
    """Within `with` the head and a raylet with one `framefeed_socket` on each host are up."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ff"))  # short: sockets lie below it
        self._hosts = list(hosts)
        self.address = f"{self._hosts[0].gateway}:{PORT}"
        self._mark = f"FRAMEFEED_TEST_BOXES={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self.environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", name: value, "PYTHONPATH": str(ROOT)}
        self._boxes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> RayBoxes:
        try:
            where = (f"--node-ip-address={self._hosts[0].gateway}", f"--port={PORT}", f"--temp-dir={self._folder}")
            self._start("head", "--head", *where, "--include-dashboard=false")
            wait_until("the head answers", lambda: self.status() is not None, patience_s=START_S)
            for host in self._hosts:
                self.join(host)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            for log in self._folder.glob("*.log"):
                print(f"{log.name}: {log.read_text(errors='replace')[-1500:]}")
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until("all of it is gone", lambda: not self._processes())
        for process in self._boxes.values():
            process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def join(self, host: Host) -> None:
        """Start a raylet on a host, once more if one has ended. Its files are its own: hosts share no disk of Ray's."""
        alone = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {self._folder} && exec "$@"', "sh")
        joins = (f"--address={self.address}", f"--node-ip-address={host.address}")
        self._start(host.address, *joins, '--resources={"framefeed_socket": 1}', under=(*host.enter, *alone))

    def has_ended(self, host: Host) -> bool:
        """Whether the raylet of a host is gone, as one is that was taken for dead."""
        return self._boxes[host.address].poll() is not None

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
        for pid in self._processes():
            if self._lies_here(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _start(self, name: str, *options: str, under: tuple[str, ...] = ()) -> None:
        command = [*under, ray_python(), "-m", "ray.scripts.scripts", "start", *options, *_NODE]
        environment = {**self.environment, **_SETTINGS}
        with (self._folder / f"{name}.log").open("ab") as log:
            self._boxes[name] = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
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
