"""Budgets are the node's: any number of ranks together stay within them, and each can work at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from trainer_client.memory_budgets import NodeBudgets, RankBudgets, rank_budgets

CLIP_BYTES = 16 * 224 * 224 * 3
MIB, GIB = 1 << 20, 1 << 30


def budgets(
    ranks: int, *, prefetch: int | None = None, inflight: int | None = None, memory: int | None = None, clips: int = 64
) -> RankBudgets:
    node = NodeBudgets(prefetch_bytes=prefetch, inflight_bytes=inflight, local_ranks=ranks)
    return rank_budgets(node, memory_bytes=memory, clip_bytes=CLIP_BYTES, batch_clips=clips)


def test_eight_ranks_share_what_one_would_have_alone() -> None:
    one, eighth = budgets(1, prefetch=4 * GIB, inflight=256 * MIB), budgets(8, prefetch=4 * GIB, inflight=256 * MIB)
    assert one == RankBudgets(prefetch_bytes=4 * GIB, inflight_bytes=256 * MIB)
    assert eighth == RankBudgets(prefetch_bytes=512 * MIB, inflight_bytes=32 * MIB)


@pytest.mark.parametrize(
    ("ranks", "memory", "prefetch", "inflight"),
    [
        (1, 1024 * GIB, 2 * GIB, 256 * MIB),  # as before budgets were the node's
        (8, 1024 * GIB, 2 * GIB, 256 * MIB),
        (8, 32 * GIB, 1 * GIB, 128 * MIB),  # 8 GiB and 1 GiB of 32, not 16 and 2
        (1, 4 * GIB, 1 * GIB, 128 * MIB),
        (8, None, 2 * GIB, 256 * MIB),
    ],
)
def test_without_budgets_a_rank_has_its_part_of_what_is_there(
    ranks: int, memory: int | None, prefetch: int, inflight: int
) -> None:
    assert budgets(ranks, memory=memory) == RankBudgets(prefetch_bytes=prefetch, inflight_bytes=inflight)


def test_however_little_there_is_a_rank_gets_a_batch_and_a_clip() -> None:
    assert budgets(8, memory=GIB) == RankBudgets(prefetch_bytes=64 * CLIP_BYTES, inflight_bytes=4 * MIB)
    assert budgets(8, memory=0) == RankBudgets(prefetch_bytes=64 * CLIP_BYTES, inflight_bytes=CLIP_BYTES)


def test_a_given_budget_that_does_not_hold_them_for_all_ranks_is_one_line() -> None:
    batches = 8 * 64 * CLIP_BYTES
    assert budgets(8, prefetch=batches).prefetch_bytes == 64 * CLIP_BYTES
    with pytest.raises(
        BadInput,
        match=rf"prefetch_bytes is {batches - 1} bytes .* for 8 ranks of this node.*least {batches} bytes \(\d+ MiB\)$",
    ):
        budgets(8, prefetch=batches - 1)
    with pytest.raises(
        BadInput, match=rf"inflight_bytes is {CLIP_BYTES} bytes \(3 MiB\) for 2 ranks .* one clip of {CLIP_BYTES} b"
    ):
        budgets(2, inflight=CLIP_BYTES)
    assert budgets(1, inflight=CLIP_BYTES).inflight_bytes == CLIP_BYTES


@given(st.integers(1, 16), st.integers(0, 1 << 42), st.integers(1, 128))
def test_all_ranks_together_take_a_fourth_and_a_32nd_unless_that_is_too_little_to_work_with(
    ranks: int, memory: int, clips: int
) -> None:
    got = budgets(ranks, memory=memory, clips=clips)
    assert got.prefetch_bytes >= clips * CLIP_BYTES
    assert got.inflight_bytes >= CLIP_BYTES
    assert got.prefetch_bytes * ranks <= max(memory // 4, ranks * clips * CLIP_BYTES)
    assert got.inflight_bytes * ranks <= max(memory // 32, ranks * CLIP_BYTES)
