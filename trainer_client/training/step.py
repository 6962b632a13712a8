"""The training step, on one screen; it knows a task's seam, and neither data sets, files nor a clock.

Nothing here waits for the device: whether the numbers were numbers is decided there, and read one step later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from framefeed.draws import draw_u64
from trainer_client.training.average import Average
from trainer_client.training.backward import Passes, backward
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.learning import Learning
from trainer_client.training.optimizers import set_rates
from trainer_client.training.tasks.task import InputsT, Losses, Task

_STEP_STREAM = 101  # of torch's generator, for draws that follow no clip


@dataclass(slots=True, kw_only=True)
class Run(Generic[InputsT]):
    """All that a step changes or needs. `step` counts those that are done."""

    task: Task[InputsT]
    learning: Learning
    passes: Passes
    average: Average
    seed: int
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNumbers:
    """One step's numbers on the host, the same on every rank. `skipped`: the weights are those of the step before.

    `scale` is what the loss was multiplied with.
    """

    loss: float
    grad_norm: float
    skipped: bool
    scale: float
    parts: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTensors:
    """A step's numbers on their way to the host."""

    values: Tensor
    names: tuple[str, ...]
    copied: torch.cuda.Event | None

    def read(self) -> StepNumbers:
        """The numbers. Blocks until the device has done the step."""
        if self.copied is not None:
            self.copied.synchronize()
        loss, norm, skipped, scale, *parts = self.values.tolist()
        named = dict(zip(self.names, parts, strict=True))
        return StepNumbers(loss=loss, grad_norm=norm, skipped=bool(skipped), scale=scale, parts=named)


def train_step(run: Run[InputsT], batch: DeviceBatch) -> StepTensors:
    """One optimizer step. One that is not finite, here or on another rank, leaves weights and optimizer as they are.

    Raises BadInput for a batch that the task or the micro-batches refuse.
    """
    optimizer, passes, model = run.learning.optimizer, run.passes, run.task.model
    model.train()
    optimizer.zero_grad(set_to_none=True)
    seed_step(run.seed, step=run.step, rank=passes.parallel.ranks.rank)
    scale = passes.precision.scale.clone()
    losses = backward(run.task, run.task.prepare(batch), passes)
    passes.precision.unscale([p.grad for p in model.parameters() if p.grad is not None])
    norm = passes.parallel.clip(model.parameters(), max_norm=run.learning.clip_norm)
    loss, *parts = passes.parallel.ranks.mean(_told(losses)).unbind()
    skipped = (~torch.isfinite(norm + loss)).float()
    skip_if(optimizer, skipped)
    set_rates(optimizer, run.learning.schedule.at(run.step))
    optimizer.step()
    passes.precision.update(skipped)
    run.task.after_step(run.step)
    run.average.update()
    run.step += 1
    return _on_the_way(torch.stack([loss, norm.float(), skipped, scale, *parts]), tuple(losses.parts))


def seed_step(seed: int, *, step: int, rank: int) -> None:
    """Set torch's generators for what follows no clip's seed, so that a run that resumes draws the same."""
    torch.manual_seed(draw_u64(seed, stream=_STEP_STREAM + rank, counter=step) >> 1)


def skip_if(optimizer: torch.optim.Optimizer, found_inf: Tensor) -> None:
    """Have the optimizer's next step do nothing if `found_inf`, a scalar on the device, is not 0.

    torch's fused optimizers and ours look at it there, as GradScaler's users know.
    """
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]


def _told(losses: Losses) -> Tensor:
    return torch.stack([value.detach().float() for value in (losses.total, *losses.parts.values())])


def _on_the_way(values: Tensor, names: tuple[str, ...]) -> StepTensors:
    if values.device.type != "cuda":
        return StepTensors(values=values.detach(), names=names, copied=None)
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values.detach(), non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return StepTensors(values=host, names=names, copied=copied)
