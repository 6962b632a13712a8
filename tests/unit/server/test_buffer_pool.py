"""The buffer pool's ranges never overlap and none is lost; its memory is shared and cannot be shrunk."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_server.service.buffer_pool import ALIGN_BYTES, Buffer, BufferPool, RangeAllocator

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
