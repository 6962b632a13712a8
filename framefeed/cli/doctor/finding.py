"""What a check found, and what findings come to. Values; they know no checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Protocol

import msgspec


class Level(IntEnum):
    """How bad it is; the number is the exit code of a command that found nothing worse."""

    OK = 0
    WARN = 1
    BAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, what was seen, and what to change, "" where nothing is to be."""

    level: Level
    what: str
    seen: str
    change: str = ""

    def __post_init__(self) -> None:
        assert bool(self.change) == (self.level is not Level.OK), self


def good(what: str, seen: str) -> Finding:
    """Nothing to change."""
    return Finding(level=Level.OK, what=what, seen=seen)


def warn(what: str, seen: str, change: str) -> Finding:
    """It works, and could be better or safer."""
    return Finding(level=Level.WARN, what=what, seen=seen, change=change)


def bad(what: str, seen: str, change: str) -> Finding:
    """It will not work."""
    return Finding(level=Level.BAD, what=what, seen=seen, change=change)


def worst(findings: Sequence[Finding]) -> Level:
    """OK of none."""
    return max((finding.level for finding in findings), default=Level.OK)


def findings_as_json(findings: Sequence[Finding]) -> str:
    """One JSON object: `level`, and `findings` in the order in which they were made."""
    rows = [{**asdict(finding), "level": finding.level.name.lower()} for finding in findings]
    told = {"level": worst(findings).name.lower(), "findings": rows}
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a doctor is asked about: a folder of videos (None: none), addresses of servers, the clips a second that
    training takes (0: not known), how long one server may take, and files of a client's credentials by option.
    """

    root: Path | None = None
    servers: tuple[str, ...] = ()
    clips_s: float = 0.0
    limit_s: float = 5.0
    credentials: dict[str, Path]


class Probe(Protocol):
    """What an entry point of the group `framefeed.probes` loads: the part of a doctor that its package knows."""

    def __call__(self, asked: Asked) -> Sequence[Finding]:
        """Look and judge. Blocks for seconds at most. Raises FramefeedError where it cannot look at all."""
