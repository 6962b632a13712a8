"""A run of batches as other trainers iterate it: one epoch at each iteration, as dictionaries of tensors.

It knows the loader's state, and neither servers, models nor whose trainer it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from torch import Tensor

from framefeed.errors import BadInput
from trainer_client.loader import ClipLoader
from trainer_client.training.torch_batches import TorchBatch, to_torch

Inputs = dict[str, Tensor]
MakeInputs = Callable[[TorchBatch], Inputs]
"""What a step is given of a batch; `batch.batch.samples` has the targets."""

State = dict[str, int | str | None]


def clip_tensors(batch: TorchBatch) -> Inputs:
    """All of a batch that is a tensor: `pixels` uint8 as in Batch, `indices`, `positions`, `epochs`, `seeds` (B,)."""
    names = ("pixels", "indices", "positions", "epochs", "seeds")
    return {name: getattr(batch, name) for name in names}


class EpochBatches:
    """Iterating it goes on where the run stands, to the end of that epoch: of a resumed one what is left of it.

    Its state is after the batches that it gave, so a trainer that takes none ahead saves what it has used. Closing the
    loader is its maker's.
    """

    def __init__(self, loader: ClipLoader, make: MakeInputs = clip_tensors) -> None:
        self.loader, self._make = loader, make

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.loader.steps_per_epoch

    def __iter__(self) -> Iterator[Inputs]:
        """Blocks and raises as next(ClipLoader) does."""
        batches = self.loader.made_by(lambda batch: self._make(to_torch(batch)))
        return islice(batches, len(self) - self.steps_done % len(self))

    @property
    def steps_done(self) -> int:
        """Batches that were given, those of processes before this one too."""
        state = self.loader.state_dict()
        position, global_clips = state["position"], state["global_batch_clips"]
        assert isinstance(position, int)
        assert isinstance(global_clips, int)
        return position // global_clips

    def state_dict(self) -> State:
        """See ClipLoader."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See ClipLoader."""
        self.loader.load_state_dict(state)


def check_endless(steps: int | None, epochs: float | None, *, whose: str) -> None:
    """Raise BadInput for options that end a run which a trainer ends."""
    if steps is not None or epochs is not None:
        seen = f"steps is {steps} and epochs {epochs}"
        raise BadInput(f"loader: {seen} in the options, wanted None for both: {whose} says when the run ends")
