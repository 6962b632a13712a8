"""The verb `targets`: servers of a registry as targets of Prometheus (file_sd); it neither asks nor judges them.

An entry that is no longer renewed stays a target until it is swept, so that a server that fell silent is seen as down.
"""

from __future__ import annotations

import json
import logging
import select
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from framefeed.cli.stop_signals import StopSignals
from framefeed.errors import BadInput, StorageFault
from framefeed.new_file import write_whole
from framefeed.page_place import page_of
from framefeed.regular_file import strange_kind
from framefeed.server_entry import SUFFIX, host_id, read_entry
from framefeed.show_value import one_line

log = logging.getLogger("framefeed.targets")

_MOST_EVERY_S = 3600.0


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
        """Look and write until a stop signal. Raises BadInput for a registry, file or time that cannot be used,
        StorageFault if the file cannot be written. A registry that goes away later leaves the file as it is.
        """
        if not 0 <= self.every_s <= _MOST_EVERY_S:
            raise BadInput(f"--every-s is {self.every_s:g}, wanted 0 to {_MOST_EVERY_S:g}")
        if kind := strange_kind(self.out):
            raise BadInput(f"--out {self.out} is {kind}, wanted a file")
        turns = self.turns()
        with StopSignals() as stops:
            next(turns)
            while self.every_s and not stops.last:
                select.select([stops], [], [], self.every_s)
                next(turns)

    def turns(self) -> Iterator[None]:
        """Look, write what changed, and say what is new, once for each next(). Raises BadInput if the registry is not
        there at first, StorageFault if the file cannot be written.
        """
        written, said = self._look({})
        self.write(written)
        while True:
            yield
            try:
                targets, said = self._look(said)
            except BadInput as error:
                said = _say({str(self.registry): f"is not looked at: {error}; {self.out} stays as it is"}, said)
                continue
            if targets != written:
                self.write(targets)
                written = targets

    def _look(self, said: Mapping[str, str]) -> tuple[list[str], Mapping[str, str]]:
        """HOST:PORT of each server's metrics, and why others are left out, of which what is new is said. Raises
        BadInput for a missing folder.
        """
        found, doubts = find_targets(self.registry)
        return found, _say({name: f"is left out: {why}" for name, why in doubts.items()}, said)

    def write(self, targets: list[str]) -> None:
        """Replace the file. Raises StorageFault if that fails."""
        text = json.dumps([{"targets": targets, "labels": {}}], indent=1) + "\n"
        try:
            write_whole(self.out, text.encode())
        except OSError as error:
            raise StorageFault(f"--out {self.out} cannot be written: {error.strerror}") from None


def _say(doubts: Mapping[str, str], said: Mapping[str, str]) -> Mapping[str, str]:
    """Log those that were not said already; what is said now."""
    for name, why in doubts.items():
        if said.get(name) != why:
            log.warning("%s %s", one_line(name), one_line(why))
    return doubts


def find_targets(registry: Path) -> tuple[list[str], dict[str, str]]:
    """HOST:PORT of each server's metrics, as it is reached from here, and by name of file why the others are left out:
    what is no entry, has no address of a page, or has one that only its own machine reaches. Raises BadInput for a
    missing folder.
    """
    if not registry.is_dir():
        raise BadInput(f"registry {registry} is no folder; wanted the one of framefeed serve --registry")
    found, doubts, here = set(), {}, host_id()
    for path in registry.glob(f"*{SUFFIX}"):
        try:
            found.add(page_of(read_entry(path), here=here))
        except FileNotFoundError:  # it left meanwhile
            continue
        except (OSError, ValueError) as error:
            doubts[path.name] = str(error)
    return sorted(found - {""}), doubts
