"""A slot's memory is used again, and never while anything can still see it."""

from __future__ import annotations

import gc

import numpy as np

from trainer_client.feed.slots import SlotPool, ordinary_memory


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, nbytes: int) -> memoryview:
        self.calls += 1
        return ordinary_memory(nbytes)


def test_memory_is_used_again_when_the_batch_is_gone() -> None:
    allocate = Counting()
    pool = SlotPool((2, 3, 4), spare=2, allocate=allocate)
    for _ in range(5):
        slot = pool.take()
        assert slot.shape == (2, 3, 4)
        assert slot.flags.writeable
        assert slot.flags.c_contiguous
        del slot
    gc.collect()
    assert allocate.calls == 1


def test_a_view_of_a_view_keeps_the_memory() -> None:
    pool = SlotPool((2, 8), spare=2)
    slot = pool.take()
    slot[:] = 7
    views = [slot[1][2:].reshape(2, 3), slot.T, memoryview(slot[0]), np.asarray(slot)[None]]
    del slot
    for _ in range(3):
        pool.take()[:] = 1
    assert all((np.asarray(view) == 7).all() for view in views)


def test_idle_memory_is_bounded() -> None:
    allocate = Counting()
    pool = SlotPool((4,), spare=2, allocate=allocate)
    held = [pool.take() for _ in range(5)]
    assert allocate.calls == 5
    held.clear()
    held = [pool.take() for _ in range(5)]
    assert allocate.calls == 5 + 3


def test_a_batch_outlives_the_pool() -> None:
    pool = SlotPool((4,), spare=1)
    slot = pool.take()
    slot[:] = 3
    del pool
    assert slot.tolist() == [3, 3, 3, 3]
