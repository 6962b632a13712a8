"""The buffer pool: one anonymous shared memory that workers write pixels into and the front sends them from.

It lies in parts, of which each worker sees one. It knows neither clips nor sockets; who gets which range is the
allocator's to say. An anonymous file (memfd) has no name, so nothing of it outlives its processes, however they end.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import mmap
import os
import stat
from collections.abc import Iterable

from decode_server.service.range_allocator import ALIGN_BYTES, Buffer, RangeAllocator
from framefeed.request import MAX_CLIP_BYTES
from framefeed.shm import LeaseWord

log = logging.getLogger("framefeed.serve")

LEASE_WORDS = 1024  # connections that can be lent buffers at once
_WORD_BYTES = 8
LEASE_WORDS_BYTES = LEASE_WORDS * _WORD_BYTES  # behind the ranges
_PAGE_BYTES = 1 << 16  # the largest that a system has: parts begin on one, so no two workers share one
_TIMES_SHARE = 2  # of the pool by the number of workers: a part is at least so large
_PUNCH_HOLE, _KEEP_SIZE = 2, 1  # fallocate(2)
_libc = ctypes.CDLL(None, use_errno=True)


def part_bytes_of(total_bytes: int, parts: int) -> int:
    """The length of each part of a pool: the largest clip fits into it, and twice what a worker's share would be.

    Only what is written takes memory, so parts may be more than the pool in all; and a worker that does what it likes
    with its part takes no more than that.
    """
    return total_bytes if parts == 1 else min(total_bytes, max(MAX_CLIP_BYTES, _TIMES_SHARE * total_bytes // parts))


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


class BufferPool:
    """The shared memory and its ranges. `fd` is for workers to inherit; `close` is idempotent.

    Behind the ranges lie words of eight bytes, by which who reads buffers can tell whether they are still its own.
    Memory is taken from the system only where it is written, lowest addresses of a part first, and `total_bytes` of it
    at most: what is free in some parts is returned before more is used in others. Raises OSError or OverflowError if
    it cannot be made.
    """

    def __init__(self, total_bytes: int, *, parts: int = 1) -> None:
        part_bytes = part_bytes_of(total_bytes, parts) // ALIGN_BYTES * ALIGN_BYTES
        step_bytes = -(-part_bytes // _PAGE_BYTES) * _PAGE_BYTES
        self.ranges = RangeAllocator(total_bytes, parts=parts, part_bytes=part_bytes, part_step_bytes=step_bytes)
        self._words_offset = parts * step_bytes
        self.fd = os.memfd_create("framefeed-buffers", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            size_bytes = self._words_offset + LEASE_WORDS_BYTES
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
        self._words = self._view[self._words_offset :].cast("Q")
        self._free_words = list(range(LEASE_WORDS))
        self._lease_numbers = 0
        self._returns = True

    def allocate(self, length_bytes: int, *, owner: bytes, principal: str, part: int) -> Buffer | None:
        """See RangeAllocator.allocate."""
        buffer = self.ranges.allocate(length_bytes, owner=owner, principal=principal, part=part)
        if buffer is not None:
            self._return(self.ranges.reclaim())
        return buffer

    def worker_ended(self, part: int) -> None:
        """Return to the system what is free of its part, which it may have written to."""
        self._return(self.ranges.reclaim_part(part))

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
        return LeaseWord(self._words_offset + place * _WORD_BYTES, self._lease_numbers)

    def revoke(self, word: LeaseWord) -> None:
        """Before the buffers lent to a connection are used again: it can see from now on that they are not its own."""
        place = (word.offset - self._words_offset) // _WORD_BYTES
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

    def _return(self, ranges: Iterable[Buffer]) -> None:
        for free in ranges:
            place = ctypes.c_long(free.offset), ctypes.c_long(free.length_bytes)
            if _libc.fallocate(self.fd, _PUNCH_HOLE | _KEEP_SIZE, *place) != 0 and self._returns:
                self._returns = False
                why = os.strerror(ctypes.get_errno())
                log.warning("the buffer pool may take more memory than it should, for none can be returned (%s)", why)

    def __repr__(self) -> str:
        return f"BufferPool({self.ranges.used_bytes} of {self.ranges.total_bytes} bytes used)"
