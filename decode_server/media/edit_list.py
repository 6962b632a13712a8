"""Frames within an MP4's edit list that FFmpeg drops: reading in decode order, it ends at the first one that shows
behind the edit, though where frames are reordered some that show before it follow. It knows no timeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from av.error import FFmpegError

from decode_server.media.demux import Faults, Row
from decode_server.media.stream_choice import OpenVideo


def dropped_inside(video: OpenVideo, path: Path, rows: Sequence[Row]) -> list[int]:
    """When the dropped frames would show, in ticks and in order, by the clock of those that are read; empty where the
    edits move frames by different times, for then it is not told what they leave out on purpose.

    Reads the file once more, as far as its edits go, and only its head where they end with it. Raises StorageFault, and
    what opening raises.
    """
    listed = {entry.pos for entry in video.stream.index_entries}
    shown = {row.position: row.pts for row in rows if not row.discard and row.pts is not None}
    try:
        with video.again(path, advanced_editlist="0") as whole:
            held = [entry.pos for entry in whole.stream.index_entries]
            begun = next((n for n, at in enumerate(held) if at in shown), len(held))
            told = _told(whole, set(shown)) if set(held[begun:]) - listed else {}
    except FFmpegError:
        return []
    moves = {told[at] - pts for at, pts in shown.items() if at in told}
    if len(moves) != 1:
        return []
    move = moves.pop()
    left_out = [pts - move for at, pts in told.items() if at not in listed]
    return sorted(pts for pts in left_out if min(shown.values()) < pts < max(shown.values()))


def _told(whole: OpenVideo, shown: set[int | None]) -> dict[int | None, int]:
    """When packets show, by their position: of those `shown` and of all that may show before the last of these."""
    told: dict[int | None, int] = {}
    missing, latest = set(shown), None
    for packet in Faults().packets(whole):
        if not missing:
            latest = max(told.values()) if latest is None else latest
            if packet.dts is not None and packet.dts >= latest:
                break
        if packet.pts is not None:
            told[packet.pos] = packet.pts
        missing.discard(packet.pos)
    return told
