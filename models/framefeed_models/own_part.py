"""The part of a tensor that this process holds, and the whole of it. It knows no plan of who holds what."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def own_part(tensor: Tensor) -> Tensor:
    """A view of the elements here: all of a plain tensor, the local shard of one that FSDP2 has divided.

    For elementwise work in place, which needs nobody else's elements. It may have no elements.
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of it, without gradient: a plain tensor itself, one that FSDP2 has divided gathered, by all ranks at once."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached
