"""The videos of a root: its manifest and its packet indices, read when first needed and kept.

It finds which chunks a span touches; it decodes nothing.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from pathlib import Path

from decode_server.clips.read_watch import ReadWatch
from decode_server.clips.storage import Seams, Storage
from decode_server.media.packet_index import PacketIndex, unpack_index
from framefeed.errors import CorruptMedia, UnknownVideo
from framefeed.manifest import PACKETS_NAME, Manifest, VideoEntry, read_manifest
from framefeed.quarantine import Quarantine, read_quarantine

_INDEX_CACHE_BYTES = 32 << 20


class Library:
    """A root's manifest (read once), packet indices (up to 32 MiB of them kept) and open files. Thread-safe.

    `index_folder` is where the manifest lies when that is not the root itself. The quarantine lists of both folders are
    read once too and honoured, unless told not to. Raises BadInput when the manifest is missing, empty or damaged.
    """

    def __init__(
        self,
        root: Path,
        *,
        index_folder: Path | None = None,
        honour_quarantine: bool = True,
        seams: Seams | None = None,
    ) -> None:
        self.manifest: Manifest = read_manifest(index_folder or root)
        folders = dict.fromkeys((root, index_folder or root))
        self.quarantine = read_quarantine(*folders) if honour_quarantine else Quarantine()
        self.watch = ReadWatch()
        self.media = Storage(root, watch=self.watch, seams=seams)
        self._records = Storage(index_folder or root, watch=self.watch, seams=seams)
        self._lock = threading.Lock()
        self._indices: OrderedDict[int, tuple[PacketIndex, int]] = OrderedDict()
        self._cached_bytes = 0

    def entry(self, video: str) -> VideoEntry:
        """The manifest's entry of a video. Raises UnknownVideo."""
        entry = self.manifest.videos.get(video)
        if entry is None:
            raise UnknownVideo(f"video {video!r} is not in the manifest of {len(self.manifest.videos)} videos")
        return entry

    def chunks(self, entry: VideoEntry, start_s: float, end_s: float) -> list[tuple[float, PacketIndex]]:
        """(start in the video in s, packet index) of the chunks that the span [start_s, end_s) touches, in time order.

        Raises CorruptMedia for a damaged record or a span that is quarantined, StorageFault when it cannot be read.
        """
        if bad := self.quarantine.touching(entry.video, start_s, end_s):
            raise CorruptMedia(f"{bad} (quarantined by 'framefeed {bad.found_by}')")
        first = max(bisect.bisect_right(entry.chunk_start_s, start_s) - 1, 0)
        last = max(bisect.bisect_left(entry.chunk_start_s, end_s) - 1, first)
        return [(entry.chunk_start_s[i], self.index(entry, i)) for i in range(first, last + 1)]

    def read(self, index: PacketIndex, start: int, end: int, *, anew: bool = False) -> bytearray:
        """Bytes [start, end) of what an index describes, its media file or its sidecar, as Storage.read gives them.

        Blocks and raises as that does.
        """
        if index.sidecar:
            return self._records.read(index.sidecar, start, end, anew=anew)
        return self.media.read(index.path, start, end, anew=anew)

    def close(self) -> None:
        """Close all files; idempotent."""
        self.media.close()
        self._records.close()

    def index(self, entry: VideoEntry, chunk: int) -> PacketIndex:
        """The packet index of a chunk by its number. Raises CorruptMedia or StorageFault."""
        offset, size = entry.record_offset[chunk], entry.record_bytes[chunk]
        with self._lock:
            if offset in self._indices:
                self._indices.move_to_end(offset)
                self.watch.looked_up(in_memory=True)
                return self._indices[offset][0]
        self.watch.looked_up(in_memory=False)
        try:
            index = self._record(offset, size)
        except CorruptMedia:
            index = self._record(offset, size, anew=True)
            self.watch.count("misread")
        with self._lock:
            if offset not in self._indices:
                self._indices[offset] = (index, size)
                self._cached_bytes += size
            while self._cached_bytes > _INDEX_CACHE_BYTES and len(self._indices) > 1:
                self._cached_bytes -= self._indices.popitem(last=False)[1][1]
        return index

    def _record(self, offset: int, size: int, *, anew: bool = False) -> PacketIndex:
        record = bytes(self._records.read(PACKETS_NAME, offset, offset + size, anew=anew)[:size])
        return unpack_index(record, where=f"{PACKETS_NAME}:{offset}")
