"""Where a run computes and in which precision; knows no model or data."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from framefeed.errors import BadInput
from trainer_client.feed.slots import Allocate, ordinary_memory
from trainer_client.training.torch_batches import pinned_memory


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """What a recipe's user chooses about computing."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU if there is one."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of matrix products and attention. Weights, optimizer and loss are fp32 in both."""
    threads: int = 0
    """CPU threads of torch; 0 leaves it to torch. 1 where decode servers share the cores."""

    def open(self) -> Compute:
        """Choose the device and set the process's threads. Raises BadInput for a device that is not there."""
        if self.threads < 0:
            raise BadInput(f"--threads is {self.threads}, wanted 0 or more")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("--device is cuda and torch sees no GPU; wanted auto or cpu")
        if self.threads:
            torch.set_num_threads(self.threads)
        on_gpu = self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available())
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        return Compute(device=torch.device("cuda" if on_gpu else "cpu"), dtype=dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """A device and the dtype of its matrix products."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """Within it matrix products run in `dtype`."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def move(self, tensor: Tensor) -> Tensor:
        """The tensor on the device. From pinned memory the copy is asynchronous: keep the source until it is done."""
        return tensor.to(self.device, non_blocking=True)

    @property
    def allocate(self) -> Allocate:
        """What makes the memory of batch slots: page-locked for a GPU."""
        return pinned_memory if self.device.type == "cuda" else ordinary_memory
