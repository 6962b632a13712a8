"""Copies of host tensors to the device that trains, on a stream of their own; it knows no batches and no model.

On a CPU a tensor is where it is needed already, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer_client.feed.slots import Copied

Tensors = Mapping[str, Tensor]


class Copying(Protocol):
    """Who copies. Both are called without waiting for a device, `begin` by the thread that prepares batches."""

    def begin(self, tensors: Tensors) -> Copies:
        """Begin to copy host tensors; what is not page-locked yet is made so."""
        ...

    def arrive(self, copies: Copies) -> None:
        """Have the calling thread's stream wait for copies, so that what it is given next may use them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Copies:
    """Tensors on the device, which may be read once `done`; None: at once."""

    tensors: dict[str, Tensor]
    done: Copied | None = None


class NoCopies:
    """The device is the host."""

    def begin(self, tensors: Tensors) -> Copies:
        """The tensors themselves."""
        return Copies(tensors=dict(tensors))

    def arrive(self, copies: Copies) -> None:
        """They are there."""


class StreamCopies:
    """Asynchronous copies on one side stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def begin(self, tensors: Tensors) -> Copies:
        """Returns at once; the host's memory has to stay as it is until `done`."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            pinned = {name: tensor if tensor.is_pinned() else tensor.pin_memory() for name, tensor in tensors.items()}
            moved = {name: tensor.to(self._device, non_blocking=True) for name, tensor in pinned.items()}
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        return Copies(tensors=moved, done=done)

    def arrive(self, copies: Copies) -> None:
        """Their memory is the side stream's, and is not given to its next copies before this stream has used it."""
        stream = torch.cuda.current_stream(self._device)
        assert isinstance(copies.done, torch.cuda.Event)
        stream.wait_event(copies.done)
        for tensor in copies.tensors.values():
            tensor.record_stream(stream)


def copying_to(device: torch.device) -> Copying:
    """How host tensors come to a device."""
    return StreamCopies(device) if device.type == "cuda" else NoCopies()
