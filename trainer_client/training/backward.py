"""Gradients of a batch, taken whole or in micro-batches: a plain sum of means, or GradCache where clips are compared.

It knows rows and losses, not tasks or optimizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framefeed.errors import BadInput
from trainer_client.training.parallel import Parallel
from trainer_client.training.precision import Precision
from trainer_client.training.tasks.task import InputsT, Losses, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """How a batch is passed through a model: `micro_clips` at once (None: all), in which precision, on which ranks."""

    precision: Precision
    parallel: Parallel
    micro_clips: int | None = None

    def rows_of(self, clips: int) -> list[slice]:
        """The micro-batches of a rank's batch. Raises BadInput if they do not divide it."""
        size = clips if self.micro_clips is None else self.micro_clips
        if size < 1 or clips % size:
            raise BadInput(
                f"is {size}, wanted what divides the {clips} clips of a rank", of="batch", field="micro_clips"
            )
        return [slice(start, start + size) for start in range(0, clips, size)]


def backward(task: Task[InputsT], x: InputsT, passes: Passes) -> Losses:
    """Add the gradients of one rank's batch to those of the weights, averaged over ranks; its losses, detached.

    The same to rounding for any micro-batches: all that is random follows the clips' seeds, so rows that are computed
    again are the same rows. Does not wait for the device. Raises BadInput if micro-batches do not divide the batch.
    """
    parts = [x.part(rows) for rows in passes.rows_of(len(x))]
    losses = _cached(task, x, parts, passes) if task.coupled and len(parts) > 1 else _summed(task, parts, passes)
    passes.parallel.average_alone()
    return losses


def _summed(task: Task[InputsT], parts: Sequence[InputsT], passes: Passes) -> Losses:
    """Every micro-batch has as many clips, so the batch's mean is the mean of their means."""
    seen = list[Losses]()
    for number, part in enumerate(parts):
        with passes.parallel.gradients(last=number == len(parts) - 1):
            losses = task.loss(_rows(task, part, passes), part, passes.parallel.ranks)
            passes.precision.scaled(losses.total / len(parts)).backward()  # type: ignore[no-untyped-call]
        seen.append(losses)
    return Losses(
        total=_mean([losses.total for losses in seen]),
        parts={name: _mean([losses.parts[name] for losses in seen]) for name in seen[0].parts},
    )


def _cached(task: Task[InputsT], x: InputsT, parts: Sequence[InputsT], passes: Passes) -> Losses:
    """GradCache (Gao et al. 2021, §3.2): rows without graph, the loss of all, then each part again with its gradient.

    What compares the rows is learned in the second step, what makes them in the third.
    """
    with torch.no_grad():
        cached = torch.cat([_rows(task, part, passes) for part in parts])
    cached.requires_grad_()
    losses = task.loss(cached, x, passes.parallel.ranks)
    passes.precision.scaled(losses.total).backward()  # type: ignore[no-untyped-call]
    assert cached.grad is not None
    for number, (part, gradient) in enumerate(zip(parts, cached.grad.chunk(len(parts)), strict=True)):
        with passes.parallel.gradients(last=number == len(parts) - 1):
            torch.autograd.backward(_rows(task, part, passes), gradient)
    return _detached(losses)


def _rows(task: Task[InputsT], part: InputsT, passes: Passes) -> Tensor:
    with passes.precision.autocast():
        rows = task.rows(part)
    return rows.float()


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.detach() for value in values]).mean()


def _detached(losses: Losses) -> Losses:
    parts: Mapping[str, Tensor] = {name: value.detach() for name, value in losses.parts.items()}
    return Losses(total=losses.total.detach(), parts=parts)
