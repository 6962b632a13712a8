"""Checkpoints of a run: files that are whole or not there, of one configuration, the newest few kept.

It knows what a TrainState holds, not what made it. Files are read without executing anything in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from framefeed.errors import BadInput, StorageFault
from framefeed.new_file import NewFile, drop_leftovers
from models.weights.torch_archive import load_archive
from trainer_client.training.run_state import TrainState

CHECKPOINT_VERSION = 2  # 1 named optimizer states by number, and kept random states, which now follow from the step
_STEPS = 1 << 62
_TENSORS = ("model", "precision", "average")
_KINDS: dict[str, type] = {"step": int, "optimizer": dict, "data": dict, **dict.fromkeys(_TENSORS, dict)}
_NAME = re.compile(r"step_(\d{9,})\.pt")

Config = Mapping[str, object]


class Checkpoints:
    """The checkpoints in FOLDER/step_*.pt of a run with this `config`: options that decide which weights come out.

    `config` holds what JSON can say; what is named in `may_change` may be another when the run goes on. The newest
    `keep` files stay.
    """

    def __init__(self, folder: Path, *, config: Config, keep: int, may_change: frozenset[str] = frozenset()) -> None:
        if keep < 1:
            raise BadInput(f"checkpoints: {keep} are to be kept, wanted at least 1")
        self.folder = folder
        self._config = _plain(config)
        self._keep = keep
        self._may_change = may_change

    def save(self, state: TrainState) -> Path:
        """Write a checkpoint and let the oldest beyond `keep` go. Blocks until it is on storage.

        Raises StorageFault if it cannot be written; what was there before stays.
        """
        body = {name: getattr(state, name) for name in TrainState.__slots__}
        body |= {"framefeed_checkpoint": CHECKPOINT_VERSION, "config": json.dumps(self._config)}
        path = self.folder / f"step_{state.step:09d}.pt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            drop_leftovers(self.folder)
            with NewFile(path) as new:
                torch.save(body, new.file)
                new.take_place()
            for _, old in _numbered(self.folder)[: -self._keep]:
                old.unlink()
        except (OSError, RuntimeError) as error:  # torch's own, where a file is full
            full = error if isinstance(error, OSError) else error.__context__
            why = full.strerror if isinstance(full, OSError) else str(error).partition("\n")[0]
            raise StorageFault(f"checkpoint {path} cannot be written: {why}") from None
        return path

    def latest(self) -> Path | None:
        """The checkpoint with the most steps; None if there is none."""
        return newest_checkpoint(self.folder)

    def load(self, path: Path) -> tuple[TrainState, str]:
        """The state in a checkpoint, on the CPU, and what of `may_change` has changed since, as one line.

        Raises BadInput if it is damaged, or of another version or run.
        """
        state, theirs = read_checkpoint(path)
        kept, mine = ({n: v for n, v in c.items() if n not in self._may_change} for c in (theirs, self._config))
        if differences := differing(kept, mine):
            raise BadInput(f"checkpoint {path} is of another run: {differences}; use the same or another --out")
        return state, differing(theirs, self._config)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps in a run's folder; None if there is none."""
    found = _numbered(folder)
    return found[-1][1] if found else None


def read_checkpoint(path: Path) -> tuple[TrainState, Config]:
    """The state in a checkpoint, on the CPU, and the configuration of its run.

    Raises BadInput if it is damaged or of another version.
    """
    try:
        body = load_archive(path)
        version = body.get("framefeed_checkpoint") if isinstance(body, dict) else None
        if version != CHECKPOINT_VERSION:
            shown = version if isinstance(version, int) else type(version).__name__
            raise BadInput(f"checkpoint {path} has version {shown}, wanted {CHECKPOINT_VERSION}")
        assert isinstance(body, dict)
        return _state(body), _config(body)
    except FileNotFoundError:
        raise BadInput(f"checkpoint {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"checkpoint {path} cannot be read ({error}); remove it to go on from the one before") from None


def _state(body: Mapping[str, object]) -> TrainState:
    """Raises ValueError unless each part is of its kind; what the optimizer's says is checked by who loads it."""
    for name, kind in _KINDS.items():
        if not isinstance(body.get(name), kind) or isinstance(body.get(name), bool):
            raise ValueError(f"{name} is a {type(body.get(name)).__name__}, wanted {kind.__name__}")
    state = TrainState(**{name: body[name] for name in TrainState.__slots__})  # type: ignore[arg-type]
    if not 0 <= state.step < _STEPS:
        raise ValueError(f"step is {state.step}, wanted 0 to {_STEPS}")
    for part in _TENSORS:
        for name, tensor in getattr(state, part).items():
            if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
                raise ValueError(f"a value of {part} is a {type(tensor).__name__}, wanted tensors by name")
    for key, value in state.data.items():
        if not (isinstance(key, str) and isinstance(value, int | str | None)):
            raise ValueError(f"a value of data is a {type(value).__name__}, wanted integers and texts by name")
    return state


def _config(body: Mapping[str, object]) -> Config:
    text = body.get("config")
    try:
        config = json.loads(text) if isinstance(text, str) else None
    except RecursionError:
        config = None
    if not isinstance(config, dict):
        raise ValueError("config is no JSON object")
    return config


def differing(theirs: Config, ours: Config) -> str:
    """What differs between two configurations, as one line; empty if nothing does."""
    seen = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    return "; ".join(f"{name} was {theirs.get(name)} and is {ours.get(name)}" for name in seen)


def _plain(config: Config) -> dict[str, object]:
    """The configuration as JSON gives it back, so that a tuple equals the list it was saved as."""
    plain: dict[str, object] = json.loads(json.dumps(dict(config)))
    return plain


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    names = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step_*.pt"))
    return sorted((int(match[1]), path) for match, path in names if match)
