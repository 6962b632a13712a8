"""Where and how a run computes: device, precision, micro-batches, spread over processes; knows no model or data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from framefeed.errors import BadInput
from trainer_client.feed.slots import Allocate, ordinary_memory
from trainer_client.training.backward import Passes
from trainer_client.training.parallel import Parallel, ParallelName
from trainer_client.training.precision import Precision, PrecisionName
from trainer_client.training.ranks import Ranks
from trainer_client.training.torch_batches import pinned_memory

_MOST = 100_000  # threads, processes, clips: more is a slip of the keyboard


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """What a recipe's user chooses about computing; all of it may change when a run resumes."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU if there is one."""
    precision: PrecisionName = "bf16"
    """Precision of matrix products and attention. Weights, optimizer and loss are fp32 in all; fp16 scales the loss."""
    threads: int = 0
    """CPU threads of torch; 0 leaves it to torch. 1 where decode servers share the cores."""
    nproc: int = 1
    """Processes to train with on this machine, one a GPU; or let torchrun start them."""
    parallel: ParallelName = "ddp"
    """With several processes: all weights on each (ddp), divided (fsdp2), or gradients and optimizer only
    (fsdp2-keep)."""
    compiled: Literal["auto", "on", "off"] = "auto"
    """Whether transformer blocks are compiled at their first step; auto does it on a GPU."""
    micro_clips: int | None = None
    """Clips that a process passes through the model at once; the step is the same to rounding. Default: all."""

    def __post_init__(self) -> None:
        for name, least in (("threads", 0), ("nproc", 1), ("micro_clips", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= _MOST:
                raise BadInput(f"is {value}, wanted {least} or more, at most {_MOST}", of="computing", field=name)
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("--device is cuda and torch sees no GPU; wanted auto or cpu")

    def where(self) -> torch.device:
        """The device of this process: with several processes on a node the GPU of its local rank."""
        on_gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")

    def open(self, ranks: Ranks | None = None) -> Compute:
        """Choose the device and set the process's threads."""
        if self.threads:
            torch.set_num_threads(self.threads)
        device = self.where()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        passes = Passes(
            precision=Precision(self.precision, device=device),
            parallel=Parallel(
                name=self.parallel,
                ranks=ranks or Ranks(),
                compiled=self.compiled == "on" or (self.compiled == "auto" and device.type == "cuda"),
            ),
            micro_clips=self.micro_clips,
        )
        return Compute(device=device, passes=passes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """A device, and how batches are passed through a model there."""

    device: torch.device
    passes: Passes

    @property
    def ranks(self) -> Ranks:
        """Which process of the run this is."""
        return self.passes.parallel.ranks

    @property
    def allocate(self) -> Allocate:
        """What makes the memory of batch slots: page-locked for a GPU."""
        return pinned_memory if self.device.type == "cuda" else ordinary_memory
