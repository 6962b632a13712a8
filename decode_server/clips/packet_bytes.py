"""The bytes of packets, each as it was when it was indexed, or an error that says whose fault it is.

It reads through a library; it plans no reads and decodes nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from decode_server.clips.library import Library
from decode_server.media.packet_index import PacketIndex
from framefeed.errors import CorruptMedia, StorageFault


@dataclass(slots=True)
class _Range:
    start: int
    end: int
    data: memoryview
    before: memoryview | None = None  # what an earlier read of it gave

    def packet(self, data: memoryview, offset: int, size: int) -> memoryview:
        return data[offset - self.start : offset - self.start + size]


class PacketBytes:
    """Byte ranges of one file, read when this is built, and the packets in them."""

    def __init__(self, library: Library, index: PacketIndex, reads: Sequence[tuple[int, int]]) -> None:
        """`reads` are ranges [start, end) in file order. Blocks and raises as Library.read does."""
        self._library, self._index = library, index
        self._ranges = [_Range(start, end, self._read(start, end)) for start, end in reads]

    def packet(self, ordinal: int) -> memoryview:
        """A packet's bytes. Where they differ from what was indexed, its range is read once more, past all caches.

        Raises:
            CorruptMedia: they differ and are the same again: the file is not as indexed.
            NotHere: so it is, because it was replaced meanwhile.
            StorageFault: they are others each time they are read.
        """
        place = int(self._index.offset[ordinal]), int(self._index.size[ordinal])
        held = next(held for held in reversed(self._ranges) if held.start <= place[0])
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

    def _read(self, start: int, end: int, *, anew: bool = False) -> memoryview:
        return memoryview(self._library.read(self._index, start, end, anew=anew))
