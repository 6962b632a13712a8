"""The buffer pool's ranges never overlap and none is lost; its memory is shared and cannot be shrunk."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.range_allocator import ALIGN_BYTES, Buffer, RangeAllocator
from decode_server.service.workers.shared_map import map_shared
from framefeed.request import MAX_CLIP_BYTES

PAGES = 16


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 6 * ALIGN_BYTES), st.floats(0, 1, exclude_max=True)), max_size=60))
def test_ranges_never_overlap_and_none_is_lost(steps: list[int | float]) -> None:
    """An int allocates so many bytes; a fraction frees the range at that place of the list of those taken."""
    ranges = RangeAllocator(PAGES * ALIGN_BYTES)
    taken: list[Buffer] = []
    for step in steps:
        if isinstance(step, int):
            buffer = ranges.allocate(step)
            if buffer is not None:
                assert buffer.length_bytes >= step
                assert 0 <= buffer.offset < buffer.end <= ranges.total_bytes
                assert all(buffer.end <= other.offset or other.end <= buffer.offset for other in taken)
                taken.append(buffer)
            else:
                used = sorted(taken, key=lambda other: other.offset)
                edges = [0, *(edge for other in used for edge in (other.offset, other.end)), ranges.total_bytes]
                assert max(b - a for a, b in zip(edges[::2], edges[1::2], strict=True)) < max(step, 1)
        elif taken:
            ranges.free(taken.pop(int(step * len(taken))))
        assert ranges.used_bytes == sum(buffer.length_bytes for buffer in taken)
    for buffer in taken:
        ranges.free(buffer)
    whole = ranges.allocate(PAGES * ALIGN_BYTES)
    assert whole == Buffer(0, PAGES * ALIGN_BYTES), "what is free is not in one piece again"


PART_PAGES = 12  # of three parts, which are more than the pool together


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.one_of(st.integers(1, 6), st.floats(0, 1, exclude_max=True))), max_size=80)
)
def test_all_parts_together_take_no_more_memory_than_the_pool_s(steps: list[tuple[int, int | float]]) -> None:
    """Workers write all of what they are given; what `reclaim` gives is memory no more."""
    ranges = RangeAllocator(
        PAGES * ALIGN_BYTES, parts=3, part_bytes=PART_PAGES * ALIGN_BYTES, part_step_bytes=PAGES * ALIGN_BYTES
    )
    taken: list[Buffer] = []
    resident: set[int] = set()  # pages
    for part, step in steps:
        if isinstance(step, int):
            free_bytes, buffer = ranges.total_bytes - ranges.used_bytes, ranges.allocate(step * ALIGN_BYTES, part=part)
            if buffer is None:
                whole = ranges.part(part)
                inside = [other for other in taken if whole.offset <= other.offset < whole.end]
                edges = [
                    whole.offset,
                    *(e for b in sorted(inside, key=offset_of) for e in (b.offset, b.end)),
                    whole.end,
                ]
                most = max(b - a for a, b in zip(edges[::2], edges[1::2], strict=True))
                assert step * ALIGN_BYTES > min(most, free_bytes), "there was room"
                continue
            assert ranges.part(part).offset <= buffer.offset < buffer.end <= ranges.part(part).end
            assert all(buffer.end <= other.offset or other.end <= buffer.offset for other in taken)
            for free in ranges.reclaim():
                assert all(free.end <= other.offset or other.end <= free.offset for other in (*taken, buffer))
                resident -= pages(free)
            taken.append(buffer)
            resident |= pages(buffer)
            assert len(resident) * ALIGN_BYTES <= ranges.resident_bytes <= ranges.total_bytes
        elif taken:
            ranges.free(taken.pop(int(step * len(taken))))
    for buffer in taken:
        ranges.free(buffer)
    for part in range(3):
        assert ranges.reclaim_part(part) == [ranges.part(part)], "what is free is not in one piece again"
    assert (ranges.used_bytes, ranges.resident_bytes) == (0, 0)


def offset_of(buffer: Buffer) -> int:
    return buffer.offset


def pages(buffer: Buffer) -> set[int]:
    return set(range(buffer.offset // ALIGN_BYTES, buffer.end // ALIGN_BYTES))


@pytest.mark.parametrize("workers", [1, 2, 16, 48])
@pytest.mark.parametrize("mib", [1, 256, 4096])
def test_the_largest_clip_that_a_pool_can_hold_fits_into_each_part(mib: int, workers: int) -> None:
    buffer_pool = BufferPool(mib << 20, parts=workers)
    largest_bytes = min(mib << 20, MAX_CLIP_BYTES)
    for part in range(workers):
        buffer = buffer_pool.allocate(largest_bytes, owner=b"", principal="", part=part)
        assert buffer is not None, "it fits into each part, one after another"
        whole = buffer_pool.ranges.part(part)
        assert whole.offset % (1 << 16) == 0, "a part begins on a page of any system"
        assert whole.offset <= buffer.offset < buffer.end <= whole.end
        buffer_pool.ranges.free(buffer)
    buffer_pool.close()


def resident_bytes(buffer_pool: BufferPool) -> int:
    return os.fstat(buffer_pool.fd).st_blocks * 512


def test_what_workers_write_in_turn_takes_the_memory_of_one_pool() -> None:
    buffer_pool = BufferPool(1 << 20, parts=8)
    for turn in range(16):
        buffer = buffer_pool.allocate(3 << 18, owner=b"", principal="", part=turn % 8)
        assert buffer is not None
        buffer_pool.view(buffer, 3 << 18)[:] = bytes([turn + 1]) * (3 << 18)
        assert resident_bytes(buffer_pool) <= 1 << 20
        buffer_pool.ranges.free(buffer)
    buffer_pool.worker_ended(15 % 8)
    assert resident_bytes(buffer_pool) == 0, "nobody holds anything, and the last worker is gone"
    buffer_pool.close()


def test_a_map_of_a_part_keeps_no_descriptor_and_is_of_that_part_alone() -> None:
    buffer_pool = BufferPool(1 << 20, parts=2)
    buffers = [buffer_pool.allocate(5, owner=b"", principal="", part=part) for part in range(2)]
    assert all(buffers)
    before = os.listdir("/proc/self/fd")
    maps = [
        map_shared(buffer_pool.fd, p.length_bytes, offset=p.offset, writable=True)
        for p in map(buffer_pool.ranges.part, range(2))
    ]
    assert os.listdir("/proc/self/fd") == before
    for number, view in enumerate(maps):
        view[:5] = b"clip%d" % number
    assert [bytes(buffer_pool.view(b, 5)) for b in buffers if b] == [b"clip0", b"clip1"]
    with pytest.raises(TypeError, match="read-only"):
        map_shared(buffer_pool.fd, 5)[0] = 1
    with pytest.raises(OSError, match="Invalid"):
        map_shared(buffer_pool.fd, 5, offset=1)
    buffer_pool.close()


def test_who_holds_on_to_buffers_always_leaves_room_for_one_more() -> None:
    """Clients come one after another and give nothing back: each takes what it may, and the next still finds room."""
    ranges = RangeAllocator(1024 * ALIGN_BYTES)
    held: dict[bytes, list[Buffer]] = {}
    for number in range(8):
        owner, before_bytes = bytes([number]), ranges.total_bytes - ranges.used_bytes
        assert ranges.within_share(owner, before_bytes), "who holds nothing may have anything that is free"
        held[owner] = []
        while ranges.within_share(owner, ALIGN_BYTES):
            buffer = ranges.allocate(ALIGN_BYTES, owner=owner)
            assert buffer is not None
            held[owner].append(buffer)
        assert len(held[owner]) * ALIGN_BYTES == before_bytes // 2 or before_bytes == ALIGN_BYTES
    for buffer in held.pop(b"\0"):
        ranges.free(buffer)
    assert ranges.within_share(b"\1", ALIGN_BYTES), "another may have more when one gives back"
    for buffer in (buffer for some in held.values() for buffer in some):
        ranges.free(buffer)
    assert (ranges.used_bytes, ranges.within_share(b"\1", ranges.total_bytes)) == (0, True)


def test_freeing_twice_or_what_was_never_taken_is_a_bug() -> None:
    ranges = RangeAllocator(PAGES * ALIGN_BYTES)
    buffer = ranges.allocate(1)
    assert buffer is not None
    ranges.free(buffer)
    for wrong in (buffer, Buffer(ALIGN_BYTES, ALIGN_BYTES)):
        with pytest.raises(AssertionError, match="not allocated"):
            ranges.free(wrong)


def test_fits_tells_never_from_not_now() -> None:
    ranges = RangeAllocator(PAGES * ALIGN_BYTES)
    assert ranges.allocate(PAGES * ALIGN_BYTES) is not None
    assert ranges.fits(PAGES * ALIGN_BYTES)
    assert ranges.allocate(1) is None
    assert not ranges.fits(PAGES * ALIGN_BYTES + 1)


def test_what_a_worker_writes_the_front_sees_and_nobody_can_shrink_it() -> None:
    buffer_pool = BufferPool(PAGES * ALIGN_BYTES)
    other = mmap.mmap(buffer_pool.fd, 0)
    buffer = buffer_pool.ranges.allocate(5)
    assert buffer is not None
    other[buffer.offset : buffer.offset + 5] = b"clips"
    assert bytes(buffer_pool.view(buffer, 5)) == b"clips"
    with pytest.raises(PermissionError):
        os.ftruncate(buffer_pool.fd, 0)
    other.close()
    buffer_pool.close()
    buffer_pool.close()


def test_closing_while_the_transport_holds_a_part_leaves_that_part_readable() -> None:
    buffer_pool = BufferPool(PAGES * ALIGN_BYTES)
    buffer = buffer_pool.ranges.allocate(5)
    assert buffer is not None
    part = buffer_pool.view(buffer, 5)
    buffer_pool.close()
    assert bytes(part) == b"\0" * 5
