"""A decode server of this machine that a loader starts for itself: one process on spare CPUs, over shared memory.

It runs what a user would type, `framefeed serve`, starts it again when it dies, and ends it when it is closed. However
this process ends, kill -9 too, the kernel ends the server with it. It knows no clips.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path

from framefeed.cgroups import read_cpu_quota
from framefeed.cli.children import Child, require_success
from framefeed.errors import FramefeedError
from trainer_client.local_plan import LocalPlan, Machine
from trainer_client.node_memory import node_memory_bytes

_log = logging.getLogger(__name__)

_LOOK_S = 0.1
_TERM_S, _JOIN_S = 2.0, 5.0
_REST_S, _REST_MAX_S = 0.5, 30.0  # before it is started again, doubling while it does not live for long
_LONG_S = 60.0


def this_machine(ranks: int) -> Machine:
    """What can be had here; reads /proc and cgroups. A rank that may run on fewer CPUs than whatever started it was
    pinned to its own.
    """
    cpus = os.sched_getaffinity(0)
    try:
        pinned = ranks > 1 and cpus < os.sched_getaffinity(os.getppid())
    except OSError:
        pinned = False
    quota_cpus, memory_bytes = read_cpu_quota(), node_memory_bytes()
    return Machine(cpus=cpus, quota_cpus=quota_cpus, memory_bytes=memory_bytes, ranks=ranks, pinned=pinned)


class LocalServer:
    """Serves `root` at `url` from start() to close(); whoever starts it closes it, in the same process."""

    def __init__(self, root: Path, plan: LocalPlan, *, name: str, log: Path | None) -> None:
        """Its log is LOG/NAME.log; without a folder a file of /tmp, which goes with it if nothing went wrong."""
        unique = f"framefeed-{name}-{os.getpid()}-{secrets.token_hex(8)}"
        self.url = f"shm://@{unique}"
        self._plan, self._root, self._name, self._keep = plan, root, name, log is not None
        self._log_file = Path(tempfile.gettempdir()) / f"{unique}.log" if log is None else log / f"{name}.log"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"framefeed-{name}", daemon=True)

    def start(self) -> None:
        """Start it, and say where and with what. Returns at once: it is ready after a second or so."""
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        _log.info(
            "a server of %s is started at %s on CPUs %s; its log is %s",
            self._root,
            self.url,
            ", ".join(map(str, self._plan.cpus)),
            self._log_file,
        )
        self._thread.start()

    def let_go(self) -> None:
        """Have it ended by its thread. Never blocks; idempotent."""
        self._stop.set()

    def close(self) -> None:
        """End it. Idempotent; blocks for 5 s at most."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _command(self) -> tuple[str, ...]:
        options = {
            "--bind": self.url,
            "--metrics-port": "0",
            "--buffer-pool-mib": str(self._plan.buffer_pool_mib),
            "--drain-s": "0",  # when it is told to end its only client has gone
        }
        words = (word for option in options.items() for word in option)
        return (sys.executable, "-m", "framefeed.cli", "serve", str(self._root), *words)

    def _supervise(self) -> None:
        """This thread's CPUs are the server's, and its end is."""
        rest_s = _REST_S
        with contextlib.suppress(OSError):  # one was taken away meanwhile: it runs where this process may
            os.sched_setaffinity(0, self._plan.cpus)
        while not self._stop.is_set():
            began_s = time.monotonic()
            why = self._run()
            if self._stop.is_set():
                break
            self._keep = True
            rest_s = _REST_S if time.monotonic() - began_s > _LONG_S else rest_s
            _log.error("%s; it is started again in %g s", why, rest_s)
            self._stop.wait(rest_s)
            rest_s = min(2 * rest_s, _REST_MAX_S)
        if not self._keep:
            self._log_file.unlink(missing_ok=True)

    def _run(self) -> str:
        """One life of it. Returns why it ended, if nobody asked for it."""
        try:
            child = Child(f"the server of {self._root} on this machine", self._command(), log=self._log_file)
        except OSError as error:
            return f"the server of {self._root} on this machine cannot be started: {error}"
        try:
            while not self._stop.is_set():
                code = child.wait(_LOOK_S)
                if code is not None:
                    require_success(child, code)
                    return f"{child.name} ended (see {self._log_file})"
            child.terminate()
            child.wait(_TERM_S)
        except FramefeedError as error:
            return str(error)
        finally:
            child.kill()
            child.reap()
        return ""
