"""Child processes of one command: each in a session of its own, and none outlives the `with` that started it.

That holds for a `kill -9` of this process too. It knows nothing of what they do.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from framefeed.errors import FramefeedError

_TERM_S = 15.0


class Child:
    """A process that leads its own session and process group. It stays a zombie, and so keeps its id, until reaped."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path | None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it; its output goes to `log`, or to where this process's goes. `environment`: None is this one's."""
        self.name = name
        self.log = log
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(log.open("ab")) if log else None
            self._process = subprocess.Popen(
                [sys.executable, "-m", "framefeed.cli.parent_death", str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env=environment,
            )
        self._pidfd = os.pidfd_open(self._process.pid)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, negative for a signal, once it has ended; None if it still runs after so many seconds."""
        select.select([self._pidfd], [], [], timeout_s)
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def last_line(self) -> str:
        """The last line that it wrote to its log; empty without one."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log and self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def terminate(self) -> None:
        """Ask it to end in good order."""
        os.kill(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and whatever it started in its group, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Forget it after its end; its id may then be another's."""
        self._process.wait()
        os.close(self._pidfd)


class Children:
    """The children of one command. Leaving the `with`, for whatever reason, ends all of them within some 15 s."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        quiet: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a child. If `quiet` it writes to LOGS/NAME.log, else where this process writes."""
        log = self._logs / f"{name}.log" if quiet else None
        child = Child(name, command, log=log, environment=environment)
        self._children.append(child)
        return child

    def run(self, name: str, command: Sequence[str], *, quiet: bool = True) -> None:
        """Start a child and wait for its end. Raises FramefeedError if it fails, with its last line."""
        child = self.start(name, command, quiet=quiet)
        code = None
        while code is None:
            code = child.wait(60.0)
        require_success(child, code)

    def __enter__(self) -> Children:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for child in self._children:
                child.terminate()
            until_s = time.monotonic() + _TERM_S
            for child in self._children:
                child.wait(max(until_s - time.monotonic(), 0.0))
        finally:  # a second Ctrl-C ends the wait, not the clean-up
            for child in self._children:
                child.kill()
            for child in self._children:
                child.reap()
            self._children.clear()


def require_success(child: Child, code: int) -> None:
    """Raises FramefeedError, with the child's last line, unless `code` is 0."""
    if code != 0:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        where = f" (see {child.log})" if child.log else ""
        said = f": {child.last_line()}" if child.last_line() else ""
        raise FramefeedError(f"{child.name} {how}{said}{where}")
