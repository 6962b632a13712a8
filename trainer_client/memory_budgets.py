"""Memory budgets: what of a node's memory one rank's loader may hold. Pure; where the memory is read is node_memory.

Budgets are the node's, divided evenly by its ranks: eight ranks hold no more than one did.
"""

from __future__ import annotations

from dataclasses import dataclass

from framefeed.errors import BadInput
from trainer_client.fleet.dispatch_limits import DispatchLimits

_PREFETCH_PART, _INFLIGHT_PART = 4, 32  # of the node's memory, where no budget is given: a fourth and a 32nd
_PREFETCH_RANK_BYTES = 2 << 30  # and never more than this a rank
_INFLIGHT_RANK_BYTES = DispatchLimits().inflight_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeBudgets:
    """What the user gives a node whose memory `local_ranks` ranks share; None is derived from the memory there is."""

    prefetch_bytes: int | None
    inflight_bytes: int | None
    local_ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RankBudgets:
    """What one rank may hold: batches made ahead, and clips asked for and not yet received."""

    prefetch_bytes: int
    inflight_bytes: int


def rank_budgets(node: NodeBudgets, *, memory_bytes: int | None, clip_bytes: int, batch_clips: int) -> RankBudgets:
    """A rank's even part of each budget.

    One that is not given is a fourth (prefetch) and a 32nd (in flight) of `memory_bytes`, at most 2 GiB and 256 MiB a
    rank, and at least what a rank cannot do without: one batch and one clip. Raises BadInput for a given one that holds
    less than that.
    """
    ranks, batch_bytes = node.local_ranks, clip_bytes * batch_clips
    for name, given, least_bytes, least in (
        ("prefetch_bytes", node.prefetch_bytes, batch_bytes, f"one batch of {batch_clips} clips of {clip_bytes} bytes"),
        ("inflight_bytes", node.inflight_bytes, clip_bytes, f"one clip of {clip_bytes} bytes"),
    ):
        if given is not None and given // ranks < least_bytes:
            raise BadInput(
                f"is {_shown(given)} for {_of_ranks(ranks)}, less than {least} for each: wanted at least "
                f"{_shown(least_bytes * ranks)}",
                of="loader",
                field=name,
            )
    if memory_bytes is None:
        memory_bytes = 1 << 62
    prefetch_bytes = min(memory_bytes // _PREFETCH_PART // ranks, _PREFETCH_RANK_BYTES)
    inflight_bytes = min(memory_bytes // _INFLIGHT_PART // ranks, _INFLIGHT_RANK_BYTES)
    return RankBudgets(
        prefetch_bytes=max(prefetch_bytes, batch_bytes)
        if node.prefetch_bytes is None
        else node.prefetch_bytes // ranks,
        inflight_bytes=max(inflight_bytes, clip_bytes) if node.inflight_bytes is None else node.inflight_bytes // ranks,
    )


def check_batch(*, local_ranks: int, memory_bytes: int | None, clip_bytes: int, batch_clips: int) -> None:
    """Raises BadInput where one batch for each rank of the node is more than the memory there is."""
    batch_bytes = clip_bytes * batch_clips
    if memory_bytes is not None and batch_bytes * local_ranks > memory_bytes:
        raise BadInput(
            f"is {batch_clips}: a batch of clips of {clip_bytes} bytes is {batch_bytes} bytes, for "
            f"{_of_ranks(local_ranks)}, and there are {memory_bytes} to be had here; wanted at most "
            f"{memory_bytes // local_ranks // clip_bytes}, or smaller clips",
            of="loader",
            field="batch_clips",
        )


def _shown(count: int) -> str:
    """A number of bytes, and as many MiB, rounded up, as hold it."""
    return f"{count} bytes ({-(-count >> 20)} MiB)"


def _of_ranks(ranks: int) -> str:
    return "1 rank" if ranks == 1 else f"{ranks} ranks of this node"
