"""The roll of a node's ranks: what each rank of a run says of its plan, for the others on its node to compare.

A rank's entry is the name of an abstract Unix socket, which all processes can list (/proc/net/unix) and the kernel
takes back when its process dies, by kill -9 as well: nothing answers, and nothing is left behind. Entries are of one
run if they have its key, which says how ranks know each other: by torchrun's environment, by the run's name, or only by
the process that started them, and then a difference is told and not refused. It knows neither loaders nor servers.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from framefeed.errors import BadInput
from trainer_client.transports.fork_guard import FORKS_WAIT, let_go_when_forked

_log = logging.getLogger(__name__)

_LISTING = Path("/proc/net/unix")
_GRACE_S, _LOOK_S = 2.0, 0.05  # an entry that differs may be of a process that is ending
_LAUNCH = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
_PREFIX = "framefeed-rank"
_DIGITS = 6  # of the hash of what a rank says of one thing
_ENTRY = re.compile(rf"@{_PREFIX}-(?P<key>\w+)-(?P<number>\d+)-(?P<rank>\d+)-(?P<pid>\d+)-(?P<said>[0-9a-f.]*)$")
_made: Counter[str] = Counter()  # loaders of this process, by key: others' n-th is compared with its n-th


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """What entries of one run have in common; `sure` if entries with it are of one run beyond doubt."""

    key: str
    sure: bool


def run_key(run: str, work_class: str, environment: Mapping[str, str] = os.environ) -> RunKey:
    """The key of a run of this name as a process started here and so sees it."""
    launch = [environment.get(name, "") for name in _LAUNCH]
    sure = bool(run) or bool(environment.get("MASTER_PORT") or environment.get("TORCHELASTIC_RUN_ID"))
    by = [*launch, run] if sure else [str(os.getppid())]
    text = "\n".join([str(os.geteuid()), work_class, *by])
    return RunKey(key=hashlib.sha256(text.encode()).hexdigest()[:12], sure=sure)


class RankRoll:
    """One rank's entry. Whoever makes it closes it, which takes the entry back. One thread calls it."""

    def __init__(self, key: RunKey, *, rank: int, listing: Path = _LISTING) -> None:
        """Counts the entries that this process made for the key: only those of one number are compared."""
        self._key, self._rank, self._listing = key, rank, listing
        self._number = _made[key.key]
        _made[key.key] += 1
        self._entry: socket.socket | None = None
        with FORKS_WAIT:
            let_go_when_forked(self)

    def enter(self, plan: Mapping[str, object]) -> None:
        """Say what this rank's plan is, thing by thing, instead of what was said before, and compare with the others'.

        What is "" is not known, and differs from nothing. Blocks for 2 s, in which an entry that differs may go, before
        it raises BadInput naming what differs; where the key is not sure it is told in the log instead. Without
        abstract sockets nothing is compared.
        """
        said = ".".join(_hashed(value) for value in plan.values())
        if not self._bind(said):
            return
        until_s = time.monotonic() + _GRACE_S
        while why := self._against(said, list(plan)):
            if time.monotonic() > until_s:
                break
            time.sleep(_LOOK_S)
        if not why:
            return
        if self._key.sure:
            self.close()
            raise BadInput(why)
        _log.error("%s; if that is another run, give each a name (run=…)", why)

    def close(self) -> None:
        """Take the entry back. Idempotent."""
        self.forked()

    def forked(self) -> None:
        """See Inherited."""
        if self._entry is not None:
            self._entry.close()
            self._entry = None

    def _bind(self, said: str) -> bool:
        name = f"{_PREFIX}-{self._key.key}-{self._number}-{self._rank}-{os.getpid()}-{said}"
        with FORKS_WAIT:
            entry = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                entry.bind(f"\0{name}")
            except OSError:  # no abstract sockets here
                entry.close()
                return False
            self.close()
            self._entry = entry
        return True

    def _against(self, said: str, things: list[str]) -> str:
        """Which entry of another process does not go with this one, and why, in one line; "" if all do."""
        try:
            lines = self._listing.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        for line in lines:
            entry = _ENTRY.search(line)
            if entry is None or (entry["key"], int(entry["number"])) != (self._key.key, self._number):
                continue
            if int(entry["pid"]) == os.getpid():
                continue
            who = f"process {entry['pid']} of this node"
            if int(entry["rank"]) == self._rank:
                return f"rank {self._rank} is there twice: {who} has it too; wanted each rank once"
            theirs = entry["said"].split(".")
            if len(theirs) == len(things) and (others := _others(said.split("."), theirs, things)):
                mine = f"rank {self._rank}, process {os.getpid()}"
                return f"{who}, rank {entry['rank']} of the same run, has another {others} than {mine}: wanted one plan"
        return ""


def _hashed(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()[:_DIGITS] if value != "" else ""


def _others(mine: list[str], theirs: list[str], things: list[str]) -> str:
    pairs = zip(things, mine, theirs, strict=True)
    return ", ".join(thing for thing, one, other in pairs if one and other and one != other)
