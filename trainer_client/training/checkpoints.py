"""Checkpoints of a run: folders that are whole or not there, of one configuration, the newest few and the best kept.

It knows names, headers and folders, not when to save nor what a run is. A checkpoint is made in a hidden folder that
nobody can guess, into which every rank writes its part, and takes its place by one rename when all parts are there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from framefeed.errors import BadInput, StorageFault
from framefeed_models.weights.checkpoint_folder import (
    FORMAT,
    HEADER_NAME,
    MODEL_NAME,
    CheckpointError,
    Header,
    Layout,
    check_parts,
    differing_tensors,
    fill,
    folder_name,
    layout,
    numbered,
    read_header,
    read_part,
)
from trainer_client.training.best_score import BestScore
from trainer_client.training.data_states import data_of_rank
from trainer_client.training.part_writer import why_not, write_new
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import PRECISION, DataState

_HIDDEN = re.compile(r"\.step_\d{9,}\.[0-9a-f]{16}\.part")
_OF_DATA = ("samples", "annotations")  # of a configuration
_OLD_NAME = re.compile(r"step_\d{9,}\.pt")

Config = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A whole checkpoint, as one rank goes on from it. `data` is its loader's state, `changes` what the run has
    changed since, as one line, `best` the best score so far."""

    path: Path
    step: int
    data: DataState
    layout: Mapping[str, Layout]
    changes: str
    best: BestScore | None

    @property
    def names(self) -> Collection[str]:
        """Of the tensors in it."""
        return self.layout.keys()

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Read all tensors, of divided ones this rank's part. Raises BadInput if it has others."""
        theirs = {n: part for n, part in self.layout.items() if n in tensors or not n.startswith(PRECISION)}
        if wrong := differing_tensors(theirs, tensors):
            raise BadInput(f"checkpoint {self.path} is of another model or optimizer: {wrong}")
        try:
            fill(self.path, tensors)
        except CheckpointError as error:
            raise BadInput(f"checkpoint {self.path} is damaged: {error}") from None


class Checkpoints:
    """The checkpoints in FOLDER/step_* of a run with this `config`: options that decide which weights come out.

    `config` holds what JSON can say; what is named in `may_change` may be another when the run goes on. The newest
    `keep` stay, and the best. `model` is what config.json says of the model, {} for none. All ranks have one, with the
    same `token`; rank 0 alone commits.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: Config,
        keep: int,
        may_change: frozenset[str] = frozenset(),
        model: Config | None = None,
    ) -> None:
        if keep < 1:
            raise BadInput(f"is {keep}, wanted at least 1", of="checkpoints", field="keep")
        self.folder = folder
        self.model = dict(model or {})
        self.token = secrets.token_hex(8)
        self._config = _plain(config)
        self._keep = keep
        self._may_change = may_change

    def hidden(self, step: int) -> Path:
        """Where a checkpoint is made."""
        return self.folder / f".{folder_name(step)}.{self.token}.part"

    def open_hidden(self, step: int) -> int:
        """A descriptor of that folder, which is made unless another rank has. Raises StorageFault."""
        path = self.hidden(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.mkdir()
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StorageFault(f"checkpoint {path} cannot be written: {error.strerror}") from None

    def commit(self, step: int, *, world: int, best: BestScore | None = None) -> Path:
        """Let the parts that all ranks have written be a checkpoint, and old ones go. Blocks until that is on storage.

        Raises StorageFault; what was there before stays.
        """
        path, hidden = self.folder / folder_name(step), self.hidden(step)
        said = {"framefeed_checkpoint": FORMAT, "step": step, "world": world, "config": self._config}
        said |= {"best": best.as_json()} if best else {}
        try:
            made = self.open_hidden(step)
            try:
                for name, body in ((MODEL_NAME, self.model), (HEADER_NAME, said)):
                    if body:
                        write_new(made, name, iter([memoryview(json.dumps(body, indent=1).encode() + b"\n")]))
                os.fsync(made)
            finally:
                os.close(made)
            if os.path.lexists(path):  # a damaged one that the run did not go on from
                self._remove(path)
            os.rename(hidden, path)
            self._sync()
            self._prune({step, best.step} if best else {step})
        except OSError as error:
            raise StorageFault(f"checkpoint {path} cannot be written: {why_not(error)}") from None
        return path

    def clear_leftovers(self) -> None:
        """Remove what a killed run has left of checkpoints that it was making: while no run is in this folder."""
        if self.folder.is_dir():
            for path in [path for path in self.folder.iterdir() if _HIDDEN.fullmatch(path.name)]:
                with contextlib.suppress(OSError):
                    shutil.rmtree(path)

    def earlier(self) -> str:
        """The name of the newest checkpoint there, whole or not, or of a file of an earlier version; "" for none."""
        found = [path.name for _, path in numbered(self.folder)]
        return found[-1] if found else old_file(self.folder)

    def newest_whole(self, ranks: Ranks, *, tell: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is whole, after one line about each that is not; None if there is none at all.

        A collective: each rank reads some of the parts to the end. Raises BadInput if there are some and none is whole.
        """
        said = ranks.first_says("/".join(path.name for _, path in reversed(numbered(self.folder))))
        names = [name for name in said.split("/") if name]
        for name in names:
            path = self.folder / name
            if not (damage := next(filter(None, ranks.all_say(_damage(path, ranks))), "")):
                return path
            tell(f"checkpoint {path} is damaged ({damage}); the one before is taken")
        if names:
            raise BadInput(f"{self.folder} has {len(names)} checkpoints, none of them whole; wanted another --out")
        return None

    def load(self, path: Path, ranks: Ranks) -> StoredRun:
        """A whole checkpoint, for this rank to go on from. Raises BadInput for one of another version or run."""
        try:
            header = read_header(path)
            theirs = config_of(header)
            states = [read_part(path, rank).data for rank in range(header.world)]
            found, best = layout(path, world=header.world), BestScore.read(header.said.get("best"))
        except CheckpointError as error:
            raise BadInput(f"checkpoint {path} is damaged: {error}") from None
        kept, mine = ({n: v for n, v in c.items() if n not in self._may_change} for c in (theirs, self._config))
        if differences := differing(kept, mine):
            kind = (
                "on another data set"
                if any(kept.get(name) != mine.get(name) for name in _OF_DATA)
                else "of another run"
            )
            raise BadInput(f"checkpoint {path} is {kind}: {differences}; use the same or another --out")
        return StoredRun(
            path=path,
            step=header.step,
            data=data_of_rank(states, rank=ranks.rank, world=ranks.world),
            layout=found,
            changes=differing(theirs, self._config),
            best=best,
        )

    def _prune(self, stay: set[int]) -> None:
        found = numbered(self.folder)
        for _, path in [(step, path) for step, path in found[: -self._keep] if step not in stay]:
            self._remove(path)

    def _remove(self, path: Path) -> None:
        """First out of sight, so that no half of it is ever taken for a checkpoint."""
        away = self.folder / f".{path.name}.{secrets.token_hex(8)}.part"
        os.rename(path, away)
        shutil.rmtree(away, ignore_errors=True) if not away.is_symlink() else away.unlink()

    def _sync(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def old_file(folder: Path) -> str:
    """The name of a checkpoint of an earlier version, a single file, in a run's folder; "" if there is none."""
    return max((path.name for path in folder.glob("step_*.pt") if _OLD_NAME.fullmatch(path.name)), default="")


def config_of(header: Header) -> Config:
    """The options of the run that wrote it. Raises CheckpointError if it names none."""
    config = header.said.get("config")
    if not isinstance(config, dict):
        raise CheckpointError("config is no JSON object")
    return config


def differing(theirs: Config, ours: Config) -> str:
    """What differs between two configurations, as one line; empty if nothing does."""
    seen = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    told = "; ".join(f"{name} was {theirs.get(name)} and is {ours.get(name)}" for name in seen)
    return " ".join(told[:2000].split("\n"))


def _damage(path: Path, ranks: Ranks) -> str:
    """Why a checkpoint is not whole, as far as this rank looks; "" if it sees nothing."""
    try:
        header = read_header(path)
        if folder_name(header.step) != path.name:
            raise CheckpointError(f"it says that it is after step {header.step}")
        check_parts(path, ranks=_shared(range(header.world), ranks))
        layout(path, world=header.world)
    except CheckpointError as error:
        return str(error)
    return ""


def _shared(numbers: Sequence[int], ranks: Ranks) -> Sequence[int]:
    return numbers[ranks.rank :: ranks.world]


def _plain(config: Config) -> dict[str, object]:
    """The configuration as JSON gives it back, so that a tuple equals the list it was saved as."""
    plain: dict[str, object] = json.loads(json.dumps(dict(config)))
    return plain
