"""Checkpoints of small runs, written as a run's ranks write them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer_client.training.best_score import BestScore
from trainer_client.training.checkpoints import Checkpoints
from trainer_client.training.part_writer import Staging, part_writing
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import DataState, TrainState

TOKEN = "0" * 16


def kept_in(folder: Path, *, keep: int = 9, **config: object) -> Checkpoints:
    """The checkpoints there, of a run with these options; every rank makes the same."""
    kept = Checkpoints(folder, config=config, keep=keep)
    kept.token = TOKEN
    return kept


def write_part(kept: Checkpoints, state: TrainState, ranks: Ranks = Ranks()) -> None:  # noqa: B008 - frozen
    """Write a rank's part, to storage."""
    pieces = Staging(ranks).copy(state.tensors)
    writing = part_writing(kept.open_hidden(state.step), pieces, rank=ranks.rank, data=state.data, what="part")
    assert writing.done(wait_s=60)


def save(kept: Checkpoints, state: TrainState, *, best: BestScore | None = None) -> Path:
    """Write a checkpoint of a run of one process."""
    write_part(kept, state)
    return kept.commit(state.step, world=1, best=best)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A state that is kept in memory, apart from the run that it is of."""

    step: int
    tensors: Mapping[str, Tensor]
    data: DataState = field(default_factory=dict)

    @classmethod
    def of(cls, state: TrainState) -> Kept:
        copies = {name: tensor.detach().clone() for name, tensor in state.tensors.items()}
        return cls(step=state.step, tensors=copies, data=state.data)

    @property
    def names(self) -> Collection[str]:
        return self.tensors.keys()

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            tensor.copy_(self.tensors[name])


def said_of(error: Any) -> str:
    """The one line of an error."""
    line = str(error.value)
    assert "\n" not in line
    return line
