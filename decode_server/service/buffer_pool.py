"""The buffer pool: one anonymous shared memory that workers write pixels into and the front sends them from.

It hands out byte ranges, to each owner and principal no more than its share; it knows neither clips nor sockets. An
anonymous file (memfd) has no name, so nothing of it outlives its processes, however they end.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import stat
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from decode_server.service.fair_share import within_share
from framefeed.shm import LeaseWord

ALIGN_BYTES = 4096  # ranges begin on a page, so two workers never write the same cache line or page
# A principal whom nobody contends with leaves a sixteenth for who comes, and by first clips of its owners a bit less.
ALONE_TIMES_FREE, FIRST_TIMES_FREE = 15, 63
LEASE_WORDS = 1024  # connections that can be lent buffers at once
_WORD_BYTES = 8
LEASE_WORDS_BYTES = LEASE_WORDS * _WORD_BYTES  # behind the ranges


@dataclass(frozen=True, slots=True)
class Buffer:
    """A range of the buffer pool that someone owns until it is freed."""

    offset: int
    length_bytes: int

    @property
    def end(self) -> int:
        """Offset of the first byte after the range."""
        return self.offset + self.length_bytes


class RangeAllocator:
    """First-fit allocation of byte ranges: pure bookkeeping, ranges never overlap and none is lost."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes - total_bytes % ALIGN_BYTES
        self.used_bytes = 0
        self._free = [Buffer(0, self.total_bytes)] if self.total_bytes else []  # by offset, never two adjacent
        self._taken: dict[int, tuple[Buffer, bytes, str]] = {}
        self._held_bytes: Counter[bytes | str] = Counter()  # by owner and by principal

    def fits(self, length_bytes: int) -> bool:
        """Whether a range of this length can ever be had."""
        return _aligned(length_bytes) <= self.total_bytes

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

    def allocate(self, length_bytes: int, *, owner: bytes = b"", principal: str = "") -> Buffer | None:
        """The lowest free range of at least `length_bytes`, or None if there is none now."""
        need = _aligned(length_bytes)
        for i, hole in enumerate(self._free):
            if hole.length_bytes < need:
                continue
            buffer = Buffer(hole.offset, need)
            rest = Buffer(buffer.end, hole.length_bytes - need)
            self._free[i : i + 1] = [rest] if rest.length_bytes else []
            self._taken[buffer.offset] = buffer, owner, principal
            for holder in (owner, principal):
                self._held_bytes[holder] += need
            self.used_bytes += need
            return buffer
        return None

    def free(self, buffer: Buffer) -> None:
        """Give a range back, once."""
        taken, owner, principal = self._taken.pop(buffer.offset, (None, b"", ""))
        assert taken == buffer, f"buffer pool: {buffer} is not allocated"
        self.used_bytes -= buffer.length_bytes
        for holder in (owner, principal):
            self._held_bytes[holder] -= buffer.length_bytes
            if not self._held_bytes[holder]:
                del self._held_bytes[holder]
        i = bisect_left(self._free, buffer.offset, key=lambda hole: hole.offset)
        start, end, low, high = buffer.offset, buffer.end, i, i
        if i > 0 and self._free[i - 1].end == start:
            start, low = self._free[i - 1].offset, i - 1
        if i < len(self._free) and self._free[i].offset == end:
            end, high = self._free[i].end, i + 1
        self._free[low:high] = [Buffer(start, end - start)]


def _aligned(length_bytes: int) -> int:
    return max(-(-length_bytes // ALIGN_BYTES) * ALIGN_BYTES, ALIGN_BYTES)


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


class BufferPool:
    """The shared memory and its ranges. `fd` is for workers to inherit; `close` is idempotent.

    Behind the ranges lie words of eight bytes, by which who reads buffers can tell whether they are still its own.
    Memory is taken from the system only where it is written, lowest addresses first. Raises OSError or
    OverflowError if it cannot be made.
    """

    def __init__(self, total_bytes: int) -> None:
        self.ranges = RangeAllocator(total_bytes)
        self.fd = os.memfd_create("framefeed-buffers", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            size_bytes = self.ranges.total_bytes + LEASE_WORDS_BYTES
            os.ftruncate(self.fd, size_bytes)
            # No worker, however broken, can shrink it and so kill the front with SIGBUS.
            os.fchmod(self.fd, stat.S_IRUSR)  # who is handed a descriptor to read cannot make one to write of it
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map = mmap.mmap(self.fd, size_bytes)
        except (OSError, OverflowError):
            os.close(self.fd)
            raise
        self._view = memoryview(self._map)
        self._address = _address(self._view)
        self._words = self._view[self.ranges.total_bytes :].cast("Q")
        self._free_words = list(range(LEASE_WORDS))
        self._lease_numbers = 0

    def view(self, buffer: Buffer, length_bytes: int) -> memoryview:
        """The first bytes of a range, without a copy."""
        return self._view[buffer.offset : buffer.offset + length_bytes]

    def offset_of(self, view: memoryview) -> int:
        """Where a view that `view` returned begins."""
        return _address(view) - self._address

    def open_lease_word(self) -> LeaseWord | None:
        """A word of its own for a connection that will be lent buffers; None if all are in use."""
        if not self._free_words:
            return None
        place = self._free_words.pop()
        self._lease_numbers += 1
        self._words[place] = self._lease_numbers
        return LeaseWord(self.ranges.total_bytes + place * _WORD_BYTES, self._lease_numbers)

    def revoke(self, word: LeaseWord) -> None:
        """Before the buffers lent to a connection are used again: it can see from now on that they are not its own."""
        place = (word.offset - self.ranges.total_bytes) // _WORD_BYTES
        assert self._words[place] == word.number, f"buffer pool: {word} is revoked twice"
        self._words[place] = 0
        self._free_words.append(place)

    def open_to_read(self) -> int:
        """A descriptor that cannot be written through; the caller closes it."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the memory back, unless a transport still holds a part of it: then it goes when that does."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        with contextlib.suppress(BufferError):
            self._words.release()
            self._view.release()
            self._map.close()

    def __repr__(self) -> str:
        return f"BufferPool({self.ranges.used_bytes} of {self.ranges.total_bytes} bytes used)"
