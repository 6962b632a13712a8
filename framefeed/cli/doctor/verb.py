"""The verb `doctor`: whether this machine, and servers that run, are fit; each finding says what to change.

What a package knows of itself it says by an entry point of the group `framefeed.probes`: decode_server of CPUs and
codecs, trainer_client of servers. It knows neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, cast

import tyro
from rich.console import Console
from rich.text import Text

from framefeed.cli.doctor.collect_host import collect_host
from framefeed.cli.doctor.finding import Asked, Finding, Level, Probe, bad, findings_as_json, warn, worst
from framefeed.cli.doctor.host_checks import check_host, check_speed
from framefeed.cli.doctor.mounts import WANTED
from framefeed.cli.doctor.read_speed import measure_reading
from framefeed.client_files import ClientFiles
from framefeed.errors import BadInput, FramefeedError

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.BAD: "red"}


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what to change on this machine, or of running servers. The exit code is 0 where all is well, 1 where
    something could be better, 2 where something will not work."""

    root: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of videos: its storage is looked at, and read for --read-s; its manifest says what servers are asked."""
    servers: tuple[str, ...] = ()
    """Servers that run, as `train` takes them: each is reached, asked who it is and for a clip, and measured."""
    clips_s: float = 0.0
    """Clips a second that training takes, of 4x224x224: storage and network are measured against it. 0: not known."""
    nfs: str = ""
    """SERVER or SERVER:PORT of NFS that is to be mounted: looked at before the mount, which else hangs for minutes."""
    nfs_options: str = WANTED
    """What it is to be mounted with."""
    ports: tuple[int, ...] = (5555, 9555)
    """Ports that servers on this machine are to have."""
    read_s: float = 3.0
    """Read the root for so long; 0 reads nothing."""
    limit_s: float = 5.0
    """One server may take so long for each answer."""
    json: bool = False
    """Print JSON."""
    client: Annotated[ClientFiles, tyro.conf.arg(name="")] = field(default_factory=ClientFiles)

    def run(self) -> None:
        """Print the findings. Raises BadInput for options that cannot be used, SystemExit with the level of the worst
        finding if that is not OK.
        """
        self._check()
        found = list(self.look())
        if self.json:
            print(findings_as_json(found))
        else:
            _print(found)
        if worst(found) is not Level.OK:
            raise SystemExit(int(worst(found)))

    def look(self) -> Iterator[Finding]:
        """All findings: of the machine, then of each probe. Blocks for seconds."""
        facts = collect_host(
            root=self.root, ports=self.ports, nfs=self.nfs, nfs_options=self.nfs_options, limit_s=self.limit_s
        )
        yield from check_host(facts)
        if self.root is not None and self.read_s:
            speed = measure_reading(self.root, for_s=self.read_s)
            yield from check_speed(speed, folder=str(self.root), clips_s=self.clips_s)
        asked = self._asked()
        for point in sorted(entry_points(group="framefeed.probes"), key=lambda point: point.name):
            yield from _ask(point, asked)

    def _check(self) -> None:
        for name in ("clips_s", "read_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise BadInput(f"--{name.replace('_', '-')} is {getattr(self, name):g}, wanted 0 or more")
        if not 0 < self.limit_s <= 3600:
            raise BadInput(f"--limit-s is {self.limit_s:g}, wanted more than 0 and at most 3600")
        if strange := [port for port in self.ports if not 0 < port < 1 << 16]:
            raise BadInput(f"--ports has {strange[0]}, wanted 1 to 65535")
        try:
            there = self.root is None or self.root.is_dir()
        except OSError as error:  # a mount whose server is away
            raise BadInput(f"root {self.root} cannot be looked at: {error.strerror}") from None
        if not there:
            raise BadInput(f"root {self.root} is not a folder; wanted one of videos")

    def _asked(self) -> Asked:
        files = {one.name: path for one in fields(self.client) if (path := getattr(self.client, one.name)) is not None}
        return Asked(
            root=self.root, servers=self.servers, clips_s=self.clips_s, limit_s=self.limit_s, credentials=files
        )


def _ask(point: EntryPoint, asked: Asked) -> Sequence[Finding]:
    try:
        probe = cast(Probe, point.load())
    except ImportError as error:
        change = f"install the package {error.name!r}, or leave it where this machine needs it not"
        return [warn(point.name, f"cannot be looked at: {error}", change)]
    try:
        return probe(asked)
    except BadInput:
        raise
    except FramefeedError as error:
        return [bad(point.name, str(error), "what the line says")]


def _print(found: Sequence[Finding]) -> None:
    console = Console(highlight=False)
    for finding in found:
        line = Text(f"{finding.level.name.lower():<5}", style=_COLOURS[finding.level])
        line.append(f"{finding.what}: {finding.seen}", style="default")
        if finding.change:
            line.append(f"\n     → {finding.change}", style="bold")
        console.print(line, soft_wrap=True)
    counts = {level: sum(finding.level is level for finding in found) for level in Level}
    console.print(f"{counts[Level.OK]} ok, {counts[Level.WARN]} to improve, {counts[Level.BAD]} wrong")
