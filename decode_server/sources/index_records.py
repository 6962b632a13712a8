"""The index of a root on disk: packet records and the manifest that points into them, written together and read back.

It finds what need not be read again; it reads no media, only its size and time of change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from decode_server.media.lost_frames import lost_frames, lost_stretches
from decode_server.media.media_use import MediaUse
from decode_server.media.packet_index import DAMAGED, PacketIndex, unpack_index
from decode_server.sources.file_names import as_path
from decode_server.sources.root_files import MediaFile
from framefeed.errors import BadInput, FramefeedError
from framefeed.manifest import PACKETS_NAME, Manifest, Refusal, VideoEntry, read_manifest
from framefeed.new_file import NewFile, write_whole
from framefeed.quarantine import QuarantinedSpan, read_quarantine
from framefeed.regular_file import read_regular

UNFINISHED_FOLDER = "framefeed.unfinished"
"""Where, below the index folder, an index lies that was not finished, while there is a finished one."""
USES_NAME = "framefeed.uses.json"
_USES_BYTES = 1 << 32
_RULES = 2  # of what is used of a file: one more whenever an index of before is not to be believed any more
_PACKETS_BYTES = 1 << 36  # of all packet indices

Probed = tuple[PacketIndex, MediaUse]
"""What is known of a file that is used: where its packets lie, and what of it is left out."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A media file with what is known of it."""

    file: MediaFile
    index: PacketIndex
    use: MediaUse


def known_records(
    root: Path, folder: Path, *, check: bool, max_gap_s: float
) -> tuple[dict[str, Probed], dict[str, str]]:
    """Records of the last index, and of one that was not finished, whose files have not changed since (if `check`, of
    those that were checked); and what the video of each file was called.
    """
    known: dict[str, Probed] = {}
    named: dict[str, str] = {}
    for index_folder in (folder / UNFINISHED_FOLDER, folder):
        try:
            manifest = read_manifest(index_folder, partial=True)
            records = read_regular(index_folder / PACKETS_NAME, limit_bytes=_PACKETS_BYTES)
            uses = _read_uses(index_folder, max_gap_s=max_gap_s)
        except (BadInput, OSError):
            continue
        for entry in manifest.videos.values():
            for offset, size in zip(entry.record_offset, entry.record_bytes, strict=True):
                try:
                    index = unpack_index(
                        records[offset : offset + size], where=f"{index_folder / PACKETS_NAME}:{offset}"
                    )
                    named[index.path] = entry.video
                    status = (root / as_path(index.path)).stat()
                except (FramefeedError, OSError, ValueError):
                    continue
                whole = (
                    uses is not None
                    and (not index.sidecar or (folder / index.sidecar).is_file())
                    and (index.checked or not check)
                )
                if whole and (status.st_size, status.st_mtime_ns) == (index.media_bytes, index.mtime_ns):
                    known[index.path] = index, (uses or {}).get(index.path, MediaUse())
    return known, named


class _Uses(Struct):
    max_gap_s: float
    uses: dict[str, MediaUse]
    rules: int = 1


def write_uses(folder: Path, probed: Mapping[str, Probed], *, max_gap_s: float) -> None:
    """Write what of each file, by its path as text, is left out or noted, for the report of a later index, and the
    longest pause that was not cut out. Raises OSError.
    """
    told = {path: use for path, (_, use) in probed.items() if use.losses or use.notes}
    write_whole(folder / USES_NAME, msgspec.json.encode(_Uses(max_gap_s, told, _RULES)))


def _read_uses(folder: Path, *, max_gap_s: float) -> dict[str, MediaUse] | None:
    """What was written for this longest pause by these rules; None where they were others, or it cannot be read."""
    try:
        uses = msgspec.json.decode(read_regular(folder / USES_NAME, limit_bytes=_USES_BYTES), type=_Uses)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return uses.uses if (uses.max_gap_s, uses.rules) == (max_gap_s, _RULES) else None


def write_records(
    folder: Path, videos: Mapping[str, list[IndexedFile]], refused: tuple[Refusal, ...], *, finished: bool
) -> Manifest:
    """Write the packet records, then the manifest that points into them, of all videos or of those so far. Raises
    OSError.
    """
    entries: dict[str, VideoEntry] = {}
    with NewFile(folder / PACKETS_NAME) as new:
        for video, rows in videos.items():
            records = [row.index.pack() for row in rows]
            entries[video] = _entry(video, rows, records, at=new.file.tell())
            new.file.writelines(records)
        manifest = Manifest(videos=entries, refused=refused)
        identity = manifest.write(folder, just_before=new.take_place, finished=finished)
    return replace(manifest, identity=identity)


def write_lost(folder: Path, videos: Mapping[str, list[IndexedFile]]) -> None:
    """List the stretches of videos that are damaged in their files, in place of those that an index listed before, so
    that no window is planned over them. Raises OSError, and BadInput for a list that is damaged.
    """
    known = read_quarantine(folder)
    spans = [span for video, rows in videos.items() for row in rows for span in _lost_spans(video, row)]
    listed = known.replaced(spans, found_by="index")
    if listed.spans != known.spans:
        listed.write(folder)


def _lost_spans(video: str, row: IndexedFile) -> Iterator[QuarantinedSpan]:
    index = row.index
    if not (index.flags & DAMAGED).any():
        return
    edges_s = row.file.start_s + np.append(index.times_s, index.duration_s)
    for first, behind in lost_stretches(lost_frames(index.flags, index.pts, index.shown)):
        start_s, end_s = max(float(edges_s[first]), 0.0), float(edges_s[behind])
        if end_s > start_s:
            yield QuarantinedSpan(
                video=video, start_s=start_s, end_s=end_s, reason="damaged in its file", found_by="index"
            )


def _entry(name: str, rows: list[IndexedFile], records: list[bytes], *, at: int) -> VideoEntry:
    last = rows[-1]
    sizes = [len(record) for record in records]
    width_px, height_px = last.index.display_px
    return VideoEntry(
        video=name,
        codec=last.index.decoder,
        duration_s=last.file.start_s + last.index.duration_s,
        fps=sum(len(row.index.shown) for row in rows) / sum(row.index.duration_s for row in rows),
        width_px=width_px,
        height_px=height_px,
        media_bytes=sum(row.index.media_bytes for row in rows),
        chunk_start_s=tuple(row.file.start_s for row in rows),
        record_offset=tuple(accumulate(sizes[:-1], initial=at)),
        record_bytes=tuple(sizes),
        record_digest=tuple(row.index.digest for row in rows),
    )
