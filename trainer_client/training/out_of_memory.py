"""What to say when a step does not fit in a device's memory: which micro-batch would. It knows steps, no recipes."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import torch
from torch import Tensor

from framefeed.errors import FramefeedError
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.step import Run
from trainer_client.training.tasks.task import InputsT

_MOMENTS = 2  # tensors of a parameter's size that AdamW keeps from its first step on


class OutOfMemory(FramefeedError):
    """A step needs more memory than the device has."""

    code = "out_of_memory"


@contextlib.contextmanager
def told(run: Run[InputsT], batch: DeviceBatch) -> Iterator[None]:
    """Around a step: raise OutOfMemory, in one line that says which micro-batch fits, for what torch raises."""
    failed = None
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # whose tensors are what fills the memory
        failed = str(error).splitlines()[0].rstrip(".") if str(error) else "torch says no more"
    if failed is not None:
        raise OutOfMemory(_line(run, batch, failed))


def _line(run: Run[InputsT], batch: DeviceBatch, why: str) -> str:
    passes, clips = run.passes, len(batch.batch)
    tried = passes.micro_clips or clips
    head = f"step {run.step}: {tried} clips at once do not fit in the device's memory ({why})"
    smaller = [size for size in range(tried - 1, 0, -1) if clips % size == 0]
    if passes.parallel.ranks.world > 1 and passes.parallel.name != "ddp":  # a trial would wait for the other ranks
        return f"{head}; wanted --micro-clips {smaller[0]} or less" if smaller else f"{head}; wanted a smaller model"
    for size in smaller:
        if _fits(run, batch, size):
            return f"{head}; --micro-clips {size} fits"
    return f"{head}, and not one does; wanted --checkpointing block, --parallel fsdp2 or a smaller model"


def _fits(run: Run[InputsT], batch: DeviceBatch, clips: int) -> bool:
    """Whether so many clips pass, forward and backward, with room for what the optimizer will keep."""
    parameters = [p for p in run.task.model.parameters() if p.requires_grad]
    moments = list[Tensor]()
    run.learning.optimizer.zero_grad(set_to_none=True)
    if batch.pixels.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        if not run.learning.optimizer.state:
            moments = [torch.empty_like(p) for p in parameters for _ in range(_MOMENTS)]
        x = run.task.prepare(batch)
        with run.passes.parallel.gradients(last=False):
            with run.passes.precision.autocast():
                rows = run.task.rows(x.part(slice(0, clips)))
            torch.autograd.backward(rows.float().sum())
        if batch.pixels.device.type == "cuda":
            torch.cuda.synchronize()
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        moments.clear()
        run.learning.optimizer.zero_grad(set_to_none=True)
    return True
