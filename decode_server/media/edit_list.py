"""Frames within an MP4's edit list that FFmpeg drops: reading in decode order, it ends at the first one that shows
behind the edit, though where frames are reordered some that show before it follow. It knows no timeline.
"""

from __future__ import annotations

from pathlib import Path

from av.error import FFmpegError

from decode_server.media.demux import Faults
from decode_server.media.stream_choice import OpenVideo


def dropped_inside(video: OpenVideo, path: Path) -> list[int]:
    """When the dropped frames would show, in ticks and in order, by the clock of those that are read; empty where the
    edits move frames by different times, for then it is not told what they leave out on purpose.

    Reads the whole file twice. Raises StorageFault, and what opening raises.
    """
    with video.again(path) as edited:
        shown = {packet.pos: packet.pts for packet in Faults().packets(edited) if not packet.is_discard}
    try:
        with video.again(path, advanced_editlist="0") as whole:
            told = {packet.pos: packet.pts for packet in Faults().packets(whole)}
    except FFmpegError:
        return []
    times = [pts for pts in shown.values() if pts is not None]
    moves = {told[at] - pts for at, pts in shown.items() if pts is not None and told.get(at) is not None}
    if len(moves) != 1 or not times:
        return []
    move = moves.pop()
    left_out = [pts - move for at, pts in told.items() if at not in shown and pts is not None]
    return sorted(pts for pts in left_out if min(times) < pts < max(times))
