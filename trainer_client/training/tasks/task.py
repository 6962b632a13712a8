"""The seam that every task is on: rows of clips, then a loss over all of them. It knows no task, optimizer or process.

A row depends on its clip alone, so any split of a batch into micro-batches and ranks makes the same rows; what compares
clips is the loss, which is given the rows of the whole rank and may gather those of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

from torch import Tensor, nn

from trainer_client.feed.batch import Batch
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.ranks import Ranks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipInputs:
    """What a model is given: tensors whose first axis is the clips. A task adds its own to it.

    `seeds_B`, int64, are what all that is random in the model follows. `frames_B`, on the host, is how many frames of
    each clip are of the video, where clips are padded to one length.
    """

    x_BCTYX: Tensor
    seeds_B: Tensor
    frames_B: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.seeds_B)

    def part(self, rows: slice) -> Self:
        """The same of some clips: views, nothing is copied."""
        given = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: of[rows] for name, of in given.items() if of is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """float32 scalars: `total` is what gradients are of; `parts` are shown beside it, by name."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


InputsT = TypeVar("InputsT", bound=ClipInputs)


class Task(Protocol[InputsT]):
    """What is trained. Weights are entered through `trunk` alone, and by `loss` through what of `model` is not in it.

    `trunk` is the model, or the part of it that makes rows: whoever spreads a run over processes puts its wrapper in
    the place. The rest, heads over all rows, is computed alike by every rank.
    """

    model: nn.Module
    trunk: nn.Module
    coupled: bool
    """Whether a clip's loss depends on other clips: then a batch in parts has to be passed twice (GradCache)."""

    def on_host(self, batch: Batch) -> Mapping[str, Tensor]:
        """What `prepare` needs beside pixels, tensors by name whose first axis is the clips: tokens, masks, labels.

        It is made off the training thread, ahead of the step, and copied. Raises BadInput for a wrong label.
        """
        ...

    def prepare(self, batch: DeviceBatch) -> InputsT:
        """What the model is given, by the clips' seeds; uses no weights and does not wait for the device."""
        ...

    def rows(self, x: InputsT) -> Tensor:
        """One row of each clip, (B, …): features, logits or losses; by `trunk`, in the caller's autocast."""
        ...

    def loss(self, rows: Tensor, x: InputsT, ranks: Ranks) -> Losses:
        """The loss of float32 rows; its mean over ranks, which hold as many clips each, is the run's."""
        ...

    def after_step(self, step: int) -> None:
        """What follows the optimizer's step: clamp a temperature, move a target."""
        ...
