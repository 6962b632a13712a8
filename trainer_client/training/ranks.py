"""What processes of one run tell each other about rows and numbers; knows no models, and is one process unless told.

Axes: B clips of this process, W processes, R values of a row. Everything here is a collective: all ranks call it, in
the same order. On a GPU none of it blocks this thread.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from framefeed.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process is `rank` of `world`; beyond one of them torch.distributed's default group is joined already."""

    rank: int = 0
    world: int = 1

    def gather(self, rows_BR: Tensor) -> Tensor:
        """The rows of all ranks, (W B, R) in rank order, which is the order of the global batch, with gradient.

        A rank's gradient is the sum of all ranks' gradients of its rows; as ranks' gradients of weights are averaged,
        it is that of the mean of their losses. All ranks have as many rows.
        """
        if self.world == 1:
            return rows_BR
        gathered: Tensor = _Gather.apply(rows_BR, self)  # type: ignore[no-untyped-call]
        return gathered

    def mean(self, values: Tensor) -> Tensor:
        """The mean of each value over all ranks, without gradient, the same on every rank."""
        if self.world == 1:
            return values.detach()
        summed = values.detach().clone()
        dist.all_reduce(summed)
        return summed / self.world

    def first_says(self, word: str) -> str:
        """What rank 0 calls this with, on every rank. Blocks until it has."""
        if self.world == 1:
            return word
        said = [word]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    def all_say(self, word: str) -> list[str]:
        """What each rank calls this with, in rank order. Blocks until all have."""
        said = [word] * self.world
        if self.world > 1:
            dist.all_gather_object(said, word)
        return said

    def share_of(self, global_clips: int) -> int:
        """Clips of each rank in a global batch. Raises BadInput if it does not divide."""
        return clips_of_a_rank(global_clips, world=self.world)


def clips_of_a_rank(global_clips: int, *, world: int) -> int:
    """Clips of each of `world` ranks in a global batch. Raises BadInput if it does not divide."""
    if global_clips < world or global_clips % world:
        fits = -(-global_clips // world) * world
        raise BadInput(
            f"--batch-clips is {global_clips}, clips of a step that do not divide among {world} processes (--nproc, or "
            f"torchrun's); wanted a multiple of {world}, such as {fits}"
        )
    return global_clips // world


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows_BR: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks  # type: ignore[attr-defined]
        parts = [torch.empty_like(rows_BR, memory_format=torch.contiguous_format) for _ in range(ranks.world)]
        dist.all_gather(parts, rows_BR.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks  # type: ignore[attr-defined]
        summed = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(ranks.world)[ranks.rank], None
