"""The videos of a root: its manifest and its packet indices, read when first needed and kept.

It finds which chunks a span touches, and tells what is damaged from what was replaced since; it decodes nothing.
"""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from decode_server.clips.index_files import IndexFiles, look, unpack_look
from decode_server.clips.read_watch import ReadWatch
from decode_server.clips.storage import Seams, Storage
from decode_server.media.packet_index import PacketIndex, unpack_index
from decode_server.sources.file_names import as_path
from decode_server.sources.outside_links import read_outside
from framefeed.errors import BadInput, CorruptMedia, FramefeedError, NotHere, UnknownVideo
from framefeed.manifest import MANIFEST_NAME, PACKETS_NAME, Manifest, VideoEntry, identity_of, read_manifest
from framefeed.mapped_manifest import shared_manifest
from framefeed.quarantine import Quarantine, read_quarantine
from framefeed.show_value import show_value

log = logging.getLogger("framefeed.library")

_INDEX_CACHE_BYTES = 32 << 20
_HASHED_BYTES = 1 << 30  # of packet indices: some 10 s


class Library:
    """A root's manifest (read once), packet indices (up to 32 MiB of them kept) and open files. Thread-safe.

    `index_folder` is where the manifest lies when that is not the root itself. The quarantine lists of both folders are
    read once too and honoured, unless told not to. What was changed after `since_s`, by the wall clock and by default
    now, was replaced and not damaged. `memory`, a descriptor that several processes share, is where the manifest is
    held then, once for all of them. Files that links lead to outside of the root are read only if `follow_links`;
    `folders` are all that it reads in. `identity` is the data set's: for a manifest of version 1 it is found by reading
    all packet indices, and "" where these are too large for that. Raises BadInput when the manifest is missing, empty
    or damaged.
    """

    def __init__(
        self,
        root: Path,
        *,
        index_folder: Path | None = None,
        honour_quarantine: bool = True,
        seams: Seams | None = None,
        since_s: float | None = None,
        memory: int | None = None,
        follow_links: bool = False,
    ) -> None:
        self._root, self._folder = root, index_folder or root
        self._since_s = time.time() if since_s is None else since_s
        self.manifest, self._opened = self._opened_manifest(memory)
        outside = read_outside(self._folder)
        if outside and not follow_links:
            raise BadInput(
                f"root {root} was indexed with --follow-links, and files of it lie in {outside[0]}: wanted "
                "'framefeed serve --follow-links', or an index without such files"
            )
        self.folders = (root, self._folder, *outside)
        folders = dict.fromkeys((root, index_folder or root))
        self.quarantine = read_quarantine(*folders) if honour_quarantine else Quarantine()
        self.watch = ReadWatch()
        self.media = Storage(root, watch=self.watch, seams=seams, outside=outside)
        self._records = Storage(index_folder or root, watch=self.watch, seams=seams)
        self._lock = threading.Lock()
        self._indices: OrderedDict[int, tuple[PacketIndex, int]] = OrderedDict()
        self._cached_bytes = 0
        self.identity = self.manifest.identity or self._identity_of_version_1()

    def _opened_manifest(self, memory: int | None) -> tuple[Manifest, IndexFiles]:
        if memory is None:
            return read_manifest(self._folder), self._look()
        manifest, looked = shared_manifest(self._folder, memory, lambda: self._look().pack())
        return manifest, unpack_look(looked)

    def _look(self) -> IndexFiles:
        try:
            return look(self._folder)
        except OSError as error:
            raise BadInput(f"index {self._folder}: {error.filename} cannot be read ({error.strerror})") from None

    def entry(self, video: str) -> VideoEntry:
        """The manifest's entry of a video. Raises UnknownVideo, or CorruptMedia for one that cannot be."""
        try:
            entry = self.manifest.videos.get(video)
        except BadInput as error:
            raise CorruptMedia(f"{error}; run 'framefeed index' again") from None
        if entry is None:
            raise UnknownVideo(
                f"video {show_value(video)} is not in the manifest of {len(self.manifest.videos)} videos"
            )
        return entry

    def chunks(self, entry: VideoEntry, start_s: float, end_s: float) -> list[tuple[float, PacketIndex]]:
        """(start in the video in s, packet index) of the chunks that the span [start_s, end_s) touches, in time order,
        from the one with the frame on show at its start: a pause may hold a frame over the ends of chunks.

        Raises CorruptMedia for a damaged record or a span that is quarantined, StorageFault when it cannot be read.
        """
        if bad := self.quarantine.touching(entry.video, start_s, end_s):
            raise CorruptMedia(f"{bad} (quarantined by 'framefeed {bad.found_by}')")
        touched = _touched(entry, start_s, end_s)
        found = [(entry.chunk_start_s[i], self.index(entry, i)) for i in touched]
        if touched.start and found[0][0] + found[0][1].times_s[0] > start_s:
            before = touched.start - 1
            found.insert(0, (entry.chunk_start_s[before], self.index(entry, before)))
        return found

    def index_bytes(self, entry: VideoEntry, start_s: float, end_s: float) -> int:
        """Bytes of the packet indices that `chunks` reads for a span, where none of them is in memory."""
        touched = _touched(entry, start_s, end_s)
        return sum(entry.record_bytes[touched.start : touched.stop])

    def read(self, index: PacketIndex, start: int, end: int, *, anew: bool = False) -> bytearray:
        """Bytes [start, end) of what an index describes, its media file or its sidecar, as Storage.read gives them.

        Blocks and raises as that does.
        """
        if index.sidecar:
            return self._records.read(index.sidecar, start, end, anew=anew)
        try:
            return self.media.read(index.path, start, end, anew=anew)
        except CorruptMedia as error:
            raise self.verdict(index, error) from None

    def verdict(self, index: PacketIndex, error: CorruptMedia) -> FramefeedError:
        """What to raise for a media file that is not as indexed: NotHere if it was replaced or removed meanwhile, so
        that it is the index that is old; else the error. Blocks on the storage.
        """
        if index.sidecar:
            return error  # it is never changed
        try:
            with self.watch.reading(index.path):
                changed_s = _changed_s(self._root, index)
        except OSError:
            return error
        if changed_s <= self._since_s:
            return error
        return NotHere(f"{error}; it was changed since this server started: index the root again")

    def outdated(self) -> str:
        """Why the index in the folder is not the one that was opened, "" if it is: what this library finds wrong with
        a clip says nothing then. Blocks on the storage.
        """
        try:
            with self.watch.reading(MANIFEST_NAME):
                now = look(self._folder)
        except OSError as error:
            return f"index {self._folder} cannot be looked at ({error.strerror})"
        except BadInput as error:
            return str(error)
        opened = self._opened
        why = opened.replaced_by(now, identity=self.identity) or opened.half_replaced_by(now)
        if why := why or now.half_replaced_since(self._since_s):
            return f"root {self._root} {why}; restart this server"
        self._opened = now
        return ""

    def close(self) -> None:
        """Close all files; idempotent."""
        self.media.close()
        self._records.close()

    def index(self, entry: VideoEntry, chunk: int) -> PacketIndex:
        """The packet index of a chunk by its number. Raises CorruptMedia or StorageFault."""
        offset = entry.record_offset[chunk]
        with self._lock:
            if offset in self._indices:
                self._indices.move_to_end(offset)
                self.watch.looked_up(in_memory=True)
                return self._indices[offset][0]
        self.watch.looked_up(in_memory=False)
        try:
            index = self._record(entry, chunk)
        except CorruptMedia:
            index = self._record(entry, chunk, anew=True)
            self.watch.count("misread")
        with self._lock:
            if offset not in self._indices:
                self._indices[offset] = (index, entry.record_bytes[chunk])
                self._cached_bytes += entry.record_bytes[chunk]
            while self._cached_bytes > _INDEX_CACHE_BYTES and len(self._indices) > 1:
                self._cached_bytes -= self._indices.popitem(last=False)[1][1]
        return index

    def _record(self, entry: VideoEntry, chunk: int, *, anew: bool = False) -> PacketIndex:
        offset, size = entry.record_offset[chunk], entry.record_bytes[chunk]
        where = f"{PACKETS_NAME}:{offset}"
        record = bytes(self._records.read(PACKETS_NAME, offset, offset + size, anew=anew)[:size])
        index = unpack_index(record, where=where)
        if entry.record_digest and index.digest != entry.record_digest[chunk]:
            raise CorruptMedia(
                f"packet index at {where} has digest {index.digest}, the manifest wants {entry.record_digest[chunk]}; "
                "index the root again"
            )
        return index

    def _identity_of_version_1(self) -> str:
        videos = self.manifest.videos
        total_bytes = sum(sum(entry.record_bytes) for entry in videos.values())
        advice = f"root {self._root} was indexed by an older version: run 'framefeed index' again"
        if total_bytes > _HASHED_BYTES:
            log.warning("%s; until then its %d MB of indices have no identity", advice, total_bytes // 1_000_000)
            return ""
        log.info("%s to have its identity written; now it is found from %d bytes", advice, total_bytes)
        return identity_of(
            {video: replace(entry, record_digest=self._digests(entry)) for video, entry in videos.items()}
        )

    def _digests(self, entry: VideoEntry) -> tuple[str, ...]:
        """The digests of a video's records, "" for one that is damaged."""
        digests = []
        for chunk in range(len(entry.record_offset)):
            try:
                digests.append(self._record(entry, chunk).digest)
            except CorruptMedia:
                digests.append("")
        return tuple(digests)


def _touched(entry: VideoEntry, start_s: float, end_s: float) -> range:
    """The numbers of the chunks that a span touches."""
    first = max(bisect.bisect_right(entry.chunk_start_s, start_s) - 1, 0)
    return range(first, max(bisect.bisect_left(entry.chunk_start_s, end_s) - 1, first) + 1)


def _changed_s(root: Path, index: PacketIndex) -> float:
    """When a media file was last written to or put in its place, by the storage's clock; if it is gone, when something
    was removed there. 0 if it is still the file that was indexed. Raises OSError.
    """
    path = root / as_path(index.path)
    try:
        status = path.stat()
    except FileNotFoundError:
        return next(folder for folder in path.parents if folder.exists()).stat().st_mtime
    if (status.st_size, status.st_mtime_ns) == (index.media_bytes, index.mtime_ns):
        return 0.0
    folder_s = path.parent.stat().st_ctime if path.parent != root else 0.0  # chunks are put there a folder at a time
    return max(status.st_mtime, folder_s)
