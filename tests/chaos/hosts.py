"""Another host: a network namespace with a cable to this one that can be pulled. It knows nothing of what runs on it.

It needs root and iproute2. Nothing of it has a name in the file system: it goes with the process that holds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from tests.integration.serving import PATIENCE_S, wait_until


def hosts_can_be_made() -> str:
    """Why not; empty if they can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    missing = [tool for tool in ("ip", "tc", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} is not installed"
    cable = ["unshare", "--net", "ip", "link", "add", "ff0", "type", "veth", "peer", "name", "ff1"]
    made = subprocess.run(cable, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return made.stderr.strip()


class Host:
    """Within `with` commands run on it as `enter` + command, it is reached at `address`, and this one at `gateway`."""

    def __init__(self, number: int) -> None:
        """`number` (0 to 63) tells hosts of one test process apart."""
        net = f"10.{200 + number // 8}.{os.getpid() % 250}.{number % 8 * 4}"
        prefix, last = net.rpartition(".")[0], int(net.rpartition(".")[2])
        self.gateway, self.address = f"{prefix}.{last + 1}", f"{prefix}.{last + 2}"
        self._cable = f"ff{os.getpid() % 100_000}n{number}"
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.enter = ("nsenter", "--net", "--target", str(self._holder.pid))

    def __enter__(self) -> Host:
        mine = os.readlink("/proc/self/ns/net")
        wait_until("the namespace", lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != mine)
        there = f"{self._cable}p"
        _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", there, "netns", str(self._holder.pid))
        _run("ip", "address", "add", f"{self.gateway}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        for command in (
            ("ip", "address", "add", f"{self.address}/30", "dev", there),
            ("ip", "link", "set", there, "up"),
            ("ip", "link", "set", "lo", "up"),
        ):
            _run(*self.enter, *command)
        self._there = there
        self._route_out()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._holder.kill()
        self._holder.communicate(timeout=PATIENCE_S)
        subprocess.run(["ip", "link", "delete", self._cable], capture_output=True, timeout=PATIENCE_S, check=False)

    def pull_cable(self) -> None:
        """From now on nothing arrives, on either side, and nobody is told."""
        _run(*self.enter, "ip", "link", "set", self._there, "down")

    def narrow_cable(self, rate: str) -> None:
        """From now on no more than this leaves it, e.g. "40mbit"; what is beyond waits for up to a second."""
        limits = ("rate", rate, "burst", "64kb", "latency", "1s")
        _run(*self.enter, "tc", "qdisc", "add", "dev", self._there, "root", "tbf", *limits)

    def plug_in(self) -> None:
        """Everything arrives again, and finds its way as before: an interface that goes down loses its routes."""
        _run(*self.enter, "ip", "link", "set", self._there, "up")
        self._route_out()
        state = Path(f"/sys/class/net/{self._cable}/carrier")
        wait_until("the carrier", lambda: state.read_text().strip() == "1")

    def _route_out(self) -> None:
        """Other addresses of this machine than `gateway` are reached over it too."""
        _run(*self.enter, "ip", "route", "add", "default", "via", self.gateway)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
