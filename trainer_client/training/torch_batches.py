"""PyTorch's view of batches: tensors over the same memory, without a copy. The one file of feeding that knows torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from trainer_client.feed.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TorchBatch:
    """A Batch whose arrays are also tensors: `pixels` uint8 as in Batch; `indices`, `positions`, `epochs` int64 (B,);
    `seeds` uint64 (B,). The memory is the Batch's, and is kept while any of the tensors is.

    An asynchronous copy to a device does not hold a tensor: keep this until the copy is done.
    """

    batch: Batch
    pixels: torch.Tensor
    indices: torch.Tensor
    positions: torch.Tensor
    epochs: torch.Tensor
    seeds: torch.Tensor

    def pin_memory(self) -> TorchBatch:
        """What DataLoader(pin_memory=True) asks for: these pixels if they are page-locked already, else a copy."""
        return replace(self, pixels=self.pixels.pin_memory())


def to_torch(batch: Batch) -> TorchBatch:
    """The tensors over one batch's memory, on the CPU; nothing is copied and nothing blocks."""
    return TorchBatch(
        batch=batch,
        pixels=torch.from_numpy(batch.pixels),
        indices=torch.from_numpy(batch.indices),
        positions=torch.from_numpy(batch.positions),
        epochs=torch.from_numpy(batch.epochs),
        seeds=torch.from_numpy(batch.seeds),
    )


def torch_batches(loader: Iterable[Batch]) -> Iterator[TorchBatch]:
    """The loader's batches as tensors. Blocks and raises as next(loader) does; closing the loader is the caller's."""
    for batch in loader:
        yield to_torch(batch)


def pinned_memory(nbytes: int) -> memoryview:
    """Page-locked memory for batch slots, so that `tensor.to(device, non_blocking=True)` does not block: pass it as
    ClipLoader's `allocate`. Slots are used again, so it is locked once. Raises RuntimeError where there is no CUDA.
    """
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
