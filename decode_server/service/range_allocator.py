"""Who has which bytes of the buffer pool, and how much of it is memory: pure bookkeeping, it touches none.

The pool lies in parts, one a worker, and its bytes may be had of any part as long as those that are in use, or were
written and not returned to the system, are no more than its size in all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from decode_server.service.fair_share import within_share

ALIGN_BYTES = 4096  # ranges begin on a page, so two threads never write the same cache line or page
# A principal whom nobody contends with leaves a sixteenth for who comes, and by first clips of its owners a bit less.
ALONE_TIMES_FREE, FIRST_TIMES_FREE = 15, 63


@dataclass(frozen=True, slots=True)
class Buffer:
    """A range of the buffer pool that someone owns until it is freed."""

    offset: int
    length_bytes: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the range."""
        return self.offset + self.length_bytes


class _Hole(NamedTuple):  # made twice a clip: three times as fast as a frozen dataclass
    """A free range, of which the bytes before `written_end` may have been written since the system had them."""

    offset: int
    end: int
    written_end: int

    @property
    def written_bytes(self) -> int:
        return self.written_end - self.offset


class RangeAllocator:
    """First-fit allocation of byte ranges in parts: ranges never overlap and none is lost.

    Part `i` begins at `i * part_step_bytes`. By default there is one, as large as all that may be had.
    """

    def __init__(
        self, total_bytes: int, *, parts: int = 1, part_bytes: int | None = None, part_step_bytes: int | None = None
    ) -> None:
        self.total_bytes = total_bytes - total_bytes % ALIGN_BYTES
        self.part_bytes = self.total_bytes if part_bytes is None else part_bytes
        self.used_bytes = 0
        self._step_bytes = self.part_bytes if part_step_bytes is None else part_step_bytes
        starts = [part * self._step_bytes for part in range(parts)]
        self._free = [[_Hole(s, s + self.part_bytes, s)] if self.part_bytes else [] for s in starts]  # each by offset
        self._written_bytes = 0  # of all holes
        self._taken: dict[int, tuple[Buffer, bytes, str]] = {}
        self._held_bytes: Counter[bytes | str] = Counter()  # by owner and by principal

    @property
    def resident_bytes(self) -> int:
        """The most memory that the pool may take now: after `reclaim` no more than `total_bytes`."""
        return self.used_bytes + self._written_bytes

    def part(self, number: int) -> Buffer:
        """The whole of a part, which nobody is given."""
        return Buffer(number * self._step_bytes, self.part_bytes)

    def fits(self, length_bytes: int) -> bool:
        """Whether a range of this length can ever be had."""
        return _aligned(length_bytes) <= min(self.total_bytes, self.part_bytes)

    def within_share(self, owner: bytes, length_bytes: int, *, principal: str = "", shares: int = 0) -> bool:
        """Whether an owner may have that much more, by what is free now: some room is always left for who has none.

        A principal's owners together may have all but a bit of it, and while others want some, for each of the
        principal's `shares` as much as is free.
        """
        free_bytes, more_bytes = self.total_bytes - self.used_bytes, _aligned(length_bytes)
        owned = self._held_bytes[owner]
        times = shares or (ALONE_TIMES_FREE if owned else FIRST_TIMES_FREE)
        if principal and not within_share(
            held=self._held_bytes[principal], more=more_bytes, free=free_bytes, times=times
        ):
            return False
        return within_share(held=owned, more=more_bytes, free=free_bytes)

    def allocate(self, length_bytes: int, *, owner: bytes = b"", principal: str = "", part: int = 0) -> Buffer | None:
        """The lowest free range of a part of at least `length_bytes`, or None if there is none now. What `reclaim`
        gives comes before it is written to.
        """
        need = _aligned(length_bytes)
        if self.used_bytes + need > self.total_bytes:
            return None
        holes = self._free[part]
        for i, hole in enumerate(holes):
            if hole.end - hole.offset < need:
                continue
            buffer = Buffer(hole.offset, need)
            rest = _Hole(buffer.end, hole.end, max(hole.written_end, buffer.end))
            holes[i : i + 1] = [rest] if rest.end > rest.offset else []
            self._written_bytes -= hole.written_bytes - rest.written_bytes
            self._taken[buffer.offset] = buffer, owner, principal
            for holder in (owner, principal):
                self._held_bytes[holder] += need
            self.used_bytes += need
            return buffer
        return None

    def reclaim(self) -> list[Buffer]:
        """Free ranges whose memory has to be returned to the system for all to be no more than `total_bytes`, the
        longest first.
        """
        ranges: list[Buffer] = []
        if self.resident_bytes <= self.total_bytes:
            return ranges
        written = [
            (hole.written_bytes, part, i) for part, holes in enumerate(self._free) for i, hole in enumerate(holes)
        ]
        for length_bytes, part, i in sorted(written, reverse=True):
            hole = self._free[part][i]
            self._free[part][i] = _Hole(hole.offset, hole.end, hole.offset)
            self._written_bytes -= length_bytes
            ranges.append(Buffer(hole.offset, length_bytes))
            if self.resident_bytes <= self.total_bytes:
                break
        return ranges

    def free(self, buffer: Buffer) -> None:
        """Give a range back, once."""
        taken, owner, principal = self._taken.pop(buffer.offset, (None, b"", ""))
        assert taken == buffer, f"buffer pool: {buffer} is not allocated"
        self.used_bytes -= buffer.length_bytes
        for holder in (owner, principal):
            self._held_bytes[holder] -= buffer.length_bytes
            if not self._held_bytes[holder]:
                del self._held_bytes[holder]
        holes = self._free[buffer.offset // self._step_bytes]
        i = bisect_left(holes, buffer.offset, key=lambda hole: hole.offset)
        before = holes[i - 1 : i] if i and holes[i - 1].end == buffer.offset else []
        after = holes[i : i + 1] if i < len(holes) and holes[i].offset == buffer.end else []
        start, end = before[0].offset if before else buffer.offset, after[0].end if after else buffer.end
        written_end = after[0].written_end if after else buffer.end
        holes[i - len(before) : i + len(after)] = [_Hole(start, end, written_end)]
        self._written_bytes += written_end - start
        for hole in before + after:
            self._written_bytes -= hole.written_bytes

    def reclaim_part(self, part: int) -> list[Buffer]:
        """All free ranges of a part, whoever wrote to them: to be returned to the system."""
        holes = self._free[part]
        self._written_bytes -= sum(hole.written_bytes for hole in holes)
        self._free[part] = [_Hole(hole.offset, hole.end, hole.offset) for hole in holes]
        return [Buffer(hole.offset, hole.end - hole.offset) for hole in holes]

    def __repr__(self) -> str:
        return f"RangeAllocator({self.used_bytes} of {self.total_bytes} bytes used, in {len(self._free)} parts)"


def _aligned(length_bytes: int) -> int:
    return max(-(-length_bytes // ALIGN_BYTES) * ALIGN_BYTES, ALIGN_BYTES)
