"""What a server on the trainer's own machine takes of it, at the sizes that machines and containers have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from trainer_client.local_plan import LocalPlan, Machine, plan_local

GIB = 1 << 30
CLIP_BYTES = 16 * 224 * 224 * 3


def plan(cpus: int = 96, *, rank: int = 0, wanted: int | None = None, **machine: Any) -> LocalPlan:
    known = {"quota_cpus": None, "memory_bytes": 512 * GIB, "ranks": 1, **machine}
    return plan_local(Machine(cpus=range(cpus), **known), rank=rank, cpus=wanted, clip_bytes=CLIP_BYTES)


def test_a_rank_alone_leaves_one_cpu_to_its_trainer() -> None:
    assert plan(96) == LocalPlan(cpus=tuple(range(1, 96)), buffer_pool_mib=256)
    assert plan(2).cpus == (1,)


def test_eight_ranks_have_even_parts_beside_their_own_cpus() -> None:
    parts = [plan(96, ranks=8, rank=rank).cpus for rank in range(8)]
    assert [len(part) for part in parts] == [11] * 8
    assert parts[1] == tuple(range(13, 24))
    assert len({cpu for part in parts for cpu in part}) == 88


def test_a_rank_that_is_pinned_has_its_cpus_for_itself() -> None:
    assert plan(12, ranks=8, rank=5, pinned=True).cpus == tuple(range(1, 12))


def test_a_quota_counts_as_so_many_cpus_of_all_ranks_together() -> None:
    assert len(plan(96, quota_cpus=16.5).cpus) == 15
    assert len(plan(96, quota_cpus=16.0, ranks=2, rank=1).cpus) == 7
    assert len(plan(96, quota_cpus=0.5).cpus) == 1


def test_where_memory_is_short_there_are_fewer_and_the_pool_is_smaller() -> None:
    small = plan(96, memory_bytes=2 * GIB)
    assert (len(small.cpus), small.buffer_pool_mib) == (4, 128)
    assert plan(96, memory_bytes=1 << 20).buffer_pool_mib == 32
    assert plan(96, memory_bytes=None).buffer_pool_mib == 256


def test_a_pool_has_room_for_some_clips_however_large() -> None:
    machine = Machine(cpus=range(4), quota_cpus=None, memory_bytes=GIB, ranks=1)
    assert plan_local(machine, rank=0, cpus=None, clip_bytes=100 << 20).buffer_pool_mib == 800


def test_as_many_as_are_wanted_up_to_all() -> None:
    assert plan(8, wanted=8).cpus == tuple(range(8))
    with pytest.raises(
        BadInput, match=r"local_cpus is 5, wanted 1 to 4: rank 1 of 2 of this node has .* of the 8 CPUs"
    ):
        plan(8, ranks=2, rank=1, wanted=5)


@given(
    st.sets(st.integers(0, 255), min_size=1),
    st.integers(1, 16),
    st.none() | st.floats(0.1, 300),
    st.none() | st.integers(1 << 20, 1 << 40),
)
def test_whatever_there_is_every_rank_has_a_cpu_that_it_may_run_on(
    cpus: set[int], ranks: int, quota_cpus: float | None, memory_bytes: int | None
) -> None:
    machine = Machine(cpus=cpus, quota_cpus=quota_cpus, memory_bytes=memory_bytes, ranks=ranks)
    plans = [plan_local(machine, rank=rank, cpus=None, clip_bytes=CLIP_BYTES) for rank in range(ranks)]
    assert all(one.cpus and set(one.cpus) <= cpus for one in plans)
    taken = [cpu for one in plans for cpu in one.cpus]
    if len(cpus) >= ranks:
        assert len(taken) == len(set(taken))
    if len(cpus) >= 2 * ranks:
        assert len(taken) <= len(cpus) - ranks, "each trainer has one"
