"""A box of two fronts for tests: one command, several processes; ended whatever the test did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from framefeed.server_entry import ServerEntry, unpack_entry
from tests.integration.serving import FAKE_SERVE, PATIENCE_S, wait_until

TWO = ("--fronts", "2", "--workers", "2", "--threads", "1", "--metrics-port", "0")


class BoxOfFronts:
    """`serve` with two fronts; within `with` both are ready. `entries` are what it announced of them."""

    def __init__(
        self, folder: Path, *args: str, bind: str = "tcp://127.0.0.1:0", program: tuple[str, ...] = FAKE_SERVE
    ) -> None:
        self._announce = folder / f"box-{time.monotonic_ns()}.json"
        self._log = self._announce.with_suffix(".log")
        announce = ("--announce", str(self._announce))
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *args, *TWO, "--bind", bind, *announce], stdout=log, stderr=log
            )

    def __enter__(self) -> BoxOfFronts:
        wait_until("both fronts", lambda: self.announced or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()
        self.entries = self.now()
        self.urls = [entry.endpoints[0] for entry in self.entries]
        self.pids = [entry.pid for entry in self.entries]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        if kind is not None:
            print(self.log())

    @property
    def announced(self) -> bool:
        return self._announce.exists()

    def now(self) -> list[ServerEntry]:
        """What the announce file says now, an entry a line."""
        return [unpack_entry(line) for line in self._announce.read_text().splitlines()]

    def everyone(self) -> list[int]:
        """All processes: the box, its fronts, and what those started."""
        found, todo = [], [self.process.pid]
        while todo:
            found.append(todo.pop())
            todo += children(found[-1])
        return found

    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE_S)


def children(pid: int) -> list[int]:
    """Processes that a process started; none of one that is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
