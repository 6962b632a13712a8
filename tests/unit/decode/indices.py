"""Packet indices made up of GOP structures, with what each packet truly depends on; no media behind them."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from decode_server.media.packet_index import DISPOSABLE, KEY, PacketIndex
from framefeed.clip import Colour


@dataclass(frozen=True)
class Structure:
    """An index, and for each packet the packets that its frame depends on directly."""

    index: PacketIndex
    needs: list[set[int]]


def make_index(pts: list[int], flags: list[int], sizes: list[int], gaps: list[int]) -> PacketIndex:
    """An index of packets in decode order; `gaps` bytes of something else lie before each packet."""
    offsets = np.cumsum(np.array(gaps) + np.array([0, *sizes[:-1]]))
    return PacketIndex(
        path="v.mp4", sidecar="", stream=0, media_bytes=int(offsets[-1] + sizes[-1]), mtime_ns=0,
        decoder="h264", codec_tag="avc1", extradata=b"", width_px=512, height_px=288,
        pixel_format="yuv420p", sar=(1, 1), rotation_deg=0, mirrored=False, checked=False, colour=Colour(),
        time_base_s=(1, 30), origin_pts=0, duration_s=len(pts) / 30, offset=offsets.astype(np.int64),
        size=np.array(sizes, np.uint32), pts=np.array(pts, np.int64), flags=np.array(flags, np.uint8),
        crc32=np.zeros(len(pts), np.uint32),
    )  # fmt: skip


@st.composite
def structures(draw: st.DrawFn) -> Structure:
    """GOPs of I, P and B frames: open or closed, B frames disposable or a pyramid, in files with or without gaps."""
    pts: list[int] = []
    flags: list[int] = []
    needs: list[set[int]] = []
    show = 0
    open_gop = draw(st.booleans())
    for gop in range(draw(st.integers(1, 4))):
        key = anchor = len(pts)
        leading = draw(st.integers(0, 3)) if open_gop and gop else 0
        previous_anchor = _last_reference(flags, key)
        pts.append(show + leading)
        flags.append(KEY)
        needs.append(set())
        for b in range(leading):
            pts.append(show + b)
            flags.append(DISPOSABLE)
            needs.append({previous_anchor, key})
        show += leading + 1
        for _ in range(draw(st.integers(0, 4))):
            b_frames = draw(st.integers(0, 4))
            last, anchor = anchor, len(pts)
            pts.append(show + b_frames)
            flags.append(0)
            needs.append({last})
            middle = draw(st.booleans()) and b_frames > 2
            order = [1, 0, *range(2, b_frames)] if middle else list(range(b_frames))
            first_b = len(pts)
            for i, b in enumerate(order):
                pts.append(show + b)
                flags.append(0 if middle and i == 0 else DISPOSABLE)
                needs.append({last, anchor} | ({first_b} if middle and i else set()))
            show += b_frames + 1
    sizes = draw(st.lists(st.integers(1, 60_000), min_size=len(pts), max_size=len(pts)))
    gaps = draw(st.lists(st.sampled_from([0, 0, 500, 200_000]), min_size=len(pts), max_size=len(pts)))
    return Structure(index=make_index(pts, flags, sizes, gaps), needs=needs)


def _last_reference(flags: list[int], before: int) -> int:
    return next((i for i in range(before - 1, -1, -1) if not flags[i] & DISPOSABLE), 0)
