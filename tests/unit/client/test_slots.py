"""A slot's memory is used again, and never while anything can still see it."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from trainer_client.feed.slots import SlotPool, lend, ordinary_memory


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, nbytes: int) -> memoryview:
        self.calls += 1
        return ordinary_memory(nbytes)


def test_memory_is_used_again_when_the_batch_is_gone() -> None:
    allocate = Counting()
    pool = SlotPool(24, spare=2, allocate=allocate)
    for _ in range(5):
        slot = pool.take((2, 3, 4))
        assert slot.shape == (2, 3, 4)
        assert slot.flags.writeable
        assert slot.flags.c_contiguous
        del slot
    gc.collect()
    assert allocate.calls == 1


def test_batches_of_many_shapes_share_the_memory_of_the_largest() -> None:
    allocate = Counting()
    pool = SlotPool(24, spare=2, allocate=allocate)
    for shape in ((2, 3, 4), (1, 5), (4, 6), (2, 2, 2)):
        slot = pool.take(shape)
        assert slot.shape == shape
        slot[:] = 1
        del slot
    gc.collect()
    assert allocate.calls == 1


def test_a_view_of_a_view_keeps_the_memory() -> None:
    pool = SlotPool(16, spare=2)
    slot = pool.take((2, 8))
    slot[:] = 7
    views = [slot[1][2:].reshape(2, 3), slot.T, memoryview(slot[0]), np.asarray(slot)[None]]
    del slot
    for _ in range(3):
        pool.take((2, 8))[:] = 1
    assert all((np.asarray(view) == 7).all() for view in views)


def test_idle_memory_is_bounded() -> None:
    allocate = Counting()
    pool = SlotPool(4, spare=2, allocate=allocate)
    held = [pool.take((4,)) for _ in range(5)]
    assert allocate.calls == 5
    held.clear()
    held = [pool.take((4,)) for _ in range(5)]
    assert allocate.calls == 5 + 3


def test_a_batch_outlives_the_pool() -> None:
    pool = SlotPool(4, spare=1)
    slot = pool.take((4,))
    slot[:] = 3
    del pool
    assert slot.tolist() == [3, 3, 3, 3]


class Copy:
    """A copy to a device that is done when a test says so."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done


def test_a_slot_that_a_copy_reads_is_not_used_again_before_it_is_done() -> None:
    allocate = Counting()
    pool = SlotPool(6, spare=4, allocate=allocate)
    first, second = Copy(), Copy()
    slot = pool.take((2, 3))
    slot[:] = 7
    reads = memoryview(slot)  # what a device would read: it does not hold the slot
    address = slot.ctypes.data
    del reads
    assert lend(slot[1][1:], until=first)
    assert lend(slot, until=second)
    del slot
    for done in (False, False, True):
        held = [pool.take((2, 3)) for _ in range(3)]
        assert all(other.ctypes.data != address for other in held), "while one of its copies is not done"
        for other in held:
            other[:] = 1
        del held, other
        first.done, second.done = True, done
    assert address in [slot.ctypes.data for slot in [pool.take((2, 3)) for _ in range(4)]]
    assert allocate.calls == 4


def test_a_copy_outlives_the_pool_and_its_memory_is_kept_until_then() -> None:
    memory = list[weakref.ref[np.ndarray]]()

    def allocate(nbytes: int) -> memoryview:
        array = np.empty(nbytes, np.uint8)
        memory.append(weakref.ref(array))
        return array.data

    pool, copy = SlotPool(4, spare=1, allocate=allocate), Copy()
    slot = pool.take((4,))
    lend(slot, until=copy)
    del slot, pool
    other = SlotPool(4, spare=1)
    other.take((4,))
    gc.collect()
    assert memory[0]() is not None, "the copy still reads it"
    copy.done = True
    other.take((4,))
    gc.collect()
    assert memory[0]() is None


def test_memory_that_is_no_slot_s_is_its_owner_s() -> None:
    assert not lend(np.zeros((2, 3), np.uint8), until=Copy())
