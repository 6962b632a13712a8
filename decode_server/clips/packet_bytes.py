"""The bytes of packets, each as it was when it was indexed, or an error that says whose fault it is.

It reads through a library, one range at a time when its first packet is asked for or ahead of that, and keeps the last
few ranges; it plans no reads and decodes nothing.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from decode_server.clips.library import Library
from decode_server.media.packet_index import PacketIndex
from framefeed.errors import Cancelled, CorruptMedia, StorageFault

HELD_BYTES = 16 << 20  # of ranges: packets of one stream lie in nearly the order in which they are decoded
_TURNS = 4  # times that all ranges may be read, for files in which they do not


@dataclass(slots=True)
class _Range:
    start: int
    end: int
    data: memoryview
    before: memoryview | None = None  # what an earlier read of it gave

    def packet(self, data: memoryview, offset: int, size: int) -> memoryview:
        return data[offset - self.start : offset - self.start + size]


class PacketBytes:
    """The packets in byte ranges of one file. `read_s` is how many seconds reading them took so far."""

    def __init__(
        self, library: Library, index: PacketIndex, reads: Sequence[tuple[int, int]], *, what: str = ""
    ) -> None:
        """`reads` are ranges [start, end) in file order that do not overlap; `what` they are for, for people. Reads
        nothing yet.
        """
        self.read_s = 0.0
        self._library, self._index, self._reads = library, index, reads
        self._starts = [start for start, _ in reads]
        self._what = what
        self._held: OrderedDict[int, _Range] = OrderedDict()
        self._held_bytes = 0
        self._left_bytes = _TURNS * sum(end - start for start, end in reads)

    @property
    def ahead_bytes(self) -> int:
        """The most that `read_ahead` can read."""
        return min(sum(end - start for start, end in self._reads), HELD_BYTES)

    def read_ahead(self, limit_bytes: int, *, cancelled: Callable[[], bool]) -> int:
        """Read the first ranges that fit in so many bytes, and in what is held; returns how many bytes they were.

        Its time is no part of `read_s`. Blocks and raises as Library.read does, and Cancelled before a range is read
        that is not wanted any more.
        """
        limit_bytes, got_bytes = min(limit_bytes, HELD_BYTES), 0
        for number, (start, end) in enumerate(self._reads):
            if got_bytes + end - start > limit_bytes:
                break
            if cancelled():
                raise Cancelled("the clip is not wanted any more")
            self._range(number)
            got_bytes += end - start
        self.read_s = 0.0
        return got_bytes

    def packet(self, ordinal: int) -> memoryview:
        """A packet's bytes. Where they differ from what was indexed, its range is read once more, past all caches.

        Blocks and raises as Library.read does, and raises:
            CorruptMedia: they differ and are the same again: the file is not as indexed.
            NotHere: so it is, because it was replaced meanwhile.
            StorageFault: they are others each time they are read.
        """
        place = int(self._index.offset[ordinal]), int(self._index.size[ordinal])
        held = self._range(bisect_right(self._starts, place[0]) - 1)
        data = held.packet(held.data, *place)
        if zlib.crc32(data) == self._index.crc32[ordinal]:
            return data
        if held.before is None:
            held.before, held.data = held.data, self._read(held.start, held.end, anew=True)
            data = held.packet(held.data, *place)
            if zlib.crc32(data) == self._index.crc32[ordinal]:
                self._library.watch.count("misread")
                return data
        if data == held.packet(held.before, *place):
            self._library.watch.count("altered")
            altered = CorruptMedia(f"{self._index.where(ordinal)}: its bytes differ from those that were indexed")
            raise self._library.verdict(self._index, altered)
        self._library.watch.count("misread")
        raise StorageFault(f"{self._index.where(ordinal)}: its bytes are others each time they are read")

    def _range(self, number: int) -> _Range:
        """A range, read if it is not held."""
        held = self._held.get(number)
        if held is not None:
            return held
        start, end = self._reads[number]
        self._left_bytes -= end - start
        if self._left_bytes < 0:
            raise CorruptMedia(f"{self._index.path}: its packets lie too far out of order; index the root again")
        while self._held and self._held_bytes + end - start > HELD_BYTES:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= dropped.end - dropped.start
        held = self._held[number] = _Range(start, end, self._read(start, end))
        self._held_bytes += end - start
        return held

    def _read(self, start: int, end: int, *, anew: bool = False) -> memoryview:
        began_s = perf_counter()
        try:
            return memoryview(self._library.read(self._index, start, end, anew=anew))
        except CorruptMedia as error:
            raise CorruptMedia(f"{error}{self._what}") from None
        finally:
            self.read_s += perf_counter() - began_s
