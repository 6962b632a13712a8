"""The verb `targets`: servers of a registry as targets of Prometheus (file_sd); it neither asks nor judges them.

An entry that is no longer renewed stays a target until it is swept, so that a server that fell silent is seen as down.
"""

from __future__ import annotations

import json
import logging
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import tyro

from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput, StorageFault
from framefeed.server_entry import SUFFIX, read_entry

log = logging.getLogger("framefeed.targets")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Tell Prometheus which servers a registry has.

    The file is kept up to date until SIGTERM or Ctrl-C.
    """

    registry: Annotated[Path, tyro.conf.Positional]
    """Folder that servers were started with, as --registry."""
    out: Path
    """File to write, such as deploy/prometheus/targets/decode.json: as a whole, and only when servers came or went."""
    every_s: float = 5.0
    """Look so often; 0 writes it once and ends."""

    def run(self) -> None:
        """Look and write until a stop signal. Raises BadInput for a registry or time that cannot be used, StorageFault
        if the file cannot be written.
        """
        if not self.every_s >= 0:
            raise BadInput(f"--every-s is {self.every_s:g}, wanted 0 or more")
        written = None
        with StopSignals() as stops:
            while not stops.last:
                targets = self.look()
                if targets != written:
                    self.write(targets)
                    written = targets
                if self.every_s == 0:
                    return
                select.select([stops], [], [], self.every_s)

    def look(self) -> list[str]:
        """HOST:PORT of each server's metrics. What is no entry is left out. Raises BadInput for a missing folder."""
        found, doubts = find_targets(self.registry)
        for name, why in doubts.items():
            log.warning("%s is left out: %s", name, why)
        return found

    def write(self, targets: list[str]) -> None:
        """Replace the file. Raises StorageFault if that fails."""
        part = self.out.with_name(self.out.name + ".part")
        try:
            part.write_text(json.dumps([{"targets": targets, "labels": {}}], indent=1) + "\n")
            part.rename(self.out)
        except OSError as error:
            raise StorageFault(f"--out {self.out} cannot be written: {error.strerror}") from None


def find_targets(registry: Path) -> tuple[list[str], dict[str, str]]:
    """HOST:PORT of each server's metrics, and by name of file why the others are no entries. Raises BadInput for a
    missing folder.
    """
    if not registry.is_dir():
        raise BadInput(f"registry {registry} is no folder; wanted the one of framefeed serve --registry")
    found, doubts = set(), {}
    for path in registry.glob(f"*{SUFFIX}"):
        try:
            found.add(urlsplit(read_entry(path).metrics_url).netloc)
        except FileNotFoundError:  # it left meanwhile
            continue
        except (OSError, ValueError) as error:
            doubts[path.name] = str(error)
    return sorted(found - {""}), doubts
