"""Says in one line of the log which measures the processes of a server are under, and why others are not.

It knows neither the measures nor the processes: each tells what is in force for it, once it is up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from decode_server.service.workers.sandbox import Sandbox

log = logging.getLogger("framefeed.serve")


class SandboxReport:
    """Waits for the first process of each of `kinds`, and writes the line. A later process is told of where it has less
    or more than the first of its kind.
    """

    def __init__(self, kinds: Iterable[str]) -> None:
        self._first: dict[str, Sandbox | None] = dict.fromkeys(kinds)

    def came_up(self, kind: str, who: str, sandbox: Sandbox) -> None:
        """Note what is in force for a process of a kind; `who` names it in the log."""
        first = self._first[kind]
        if first is None:
            self._first[kind] = sandbox
            self._write()
        elif sandbox.missing != first.missing:
            log.warning("sandbox of %s is not that of the first of the %s: %s", who, kind, sandbox)

    def _write(self) -> None:
        told = {kind: sandbox for kind, sandbox in self._first.items() if sandbox is not None}
        if len(told) < len(self._first):
            return
        have = "; ".join(f"{kind}: {', '.join(sandbox.in_force) or 'nothing'}" for kind, sandbox in told.items())
        lacking = [f"{kind}: {', '.join(sandbox.missing)}" for kind, sandbox in told.items() if sandbox.missing]
        level = logging.WARNING if lacking else logging.INFO
        log.log(level, "sandbox of the %s%s", have, f"; not in force for the {'; '.join(lacking)}" if lacking else "")
