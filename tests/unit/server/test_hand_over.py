"""What was read ahead waits in order, bounded by tasks and bytes, and nobody waits for bytes."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from decode_server.service.workers.hand_over import HandOver
from decode_server.service.workers.read_depth import SPARE_TASKS, ReadDepth, most_spare, readers

PATIENCE_S = 20.0


@given(st.lists(st.integers(0, 100), max_size=30))
def test_no_more_is_reserved_than_there_is_and_all_comes_back(wanted: list[int]) -> None:
    hand_over: HandOver[int] = HandOver(tasks=1, limit_bytes=200)
    reserved = [hand_over.reserve(most_bytes) for most_bytes in wanted]
    assert sum(reserved) == min(sum(wanted), 200)
    assert all(got <= most for got, most in zip(reserved, wanted, strict=True))
    for got in reserved:
        hand_over.give_back(got)
    assert hand_over.reserve(1000) == 200


def test_who_reads_waits_while_enough_is_read() -> None:
    hand_over: HandOver[int] = HandOver(tasks=2)
    for task in (1, 2):
        hand_over.wait_for_room()
        hand_over.put(task)
    went_on = threading.Event()
    reader = threading.Thread(target=lambda: (hand_over.wait_for_room(), went_on.set()))
    reader.start()
    assert not went_on.is_set()
    assert hand_over.take() == 1
    assert went_on.wait(PATIENCE_S)
    reader.join(PATIENCE_S)
    assert hand_over.take() == 2


def test_a_task_wakes_one_that_waits_for_it() -> None:
    hand_over: HandOver[int] = HandOver(tasks=2)
    taken: list[int] = []
    decoders = [threading.Thread(target=lambda: taken.append(hand_over.take())) for _ in range(2)]
    for decoder in decoders:
        decoder.start()
    for task in (1, 2):
        hand_over.put(task)
    for decoder in decoders:
        decoder.join(PATIENCE_S)
    assert sorted(taken) == [1, 2]


@given(st.integers(1, 64), st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=50))
def test_a_worker_has_one_spare_task_to_as_many_as_it_can_read(threads: int, took: list[tuple[float, float]]) -> None:
    depth = ReadDepth(threads=threads)
    for storage_s, decode_s in took:
        depth.took(storage_s, decode_s)
        assert SPARE_TASKS <= depth.spare <= most_spare(threads) == SPARE_TASKS + readers(threads)


def test_the_slower_storage_is_the_more_is_read_at_a_time() -> None:
    def spare(storage_s: float, decode_s: float) -> int:
        depth = ReadDepth(threads=1)
        for _ in range(100):
            depth.took(storage_s, decode_s)
        return depth.spare

    assert spare(0.0, 0.005) == spare(0.0002, 0.005) == 1
    assert [spare(storage_s, 0.005) for storage_s in (0.001, 0.005, 0.01, 0.02, 1.0)] == [2, 3, 4, 7, 9]
    depth = ReadDepth(threads=1)
    depth.took(1.0, 0.005)
    for _ in range(200):
        depth.took(0.0, 0.005)
    assert depth.spare == 1, "once storage is fast again, as before"
