"""What a clip costs is known from its plan, and too much is refused by name before anything is read."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from decode_server.clips.clip_cost import MAX_DECODE_MPX, CostLimits, decode_px, read_bytes
from decode_server.clips.plan import READ_BYTES, ClipPlan, plan_clip
from decode_server.media.packet_index import KEY, PacketIndex
from framefeed.crops import ResizedCentreCrop
from framefeed.errors import BadInput, Permanent, TooCostly
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from tests.unit.decode.indices import make_index


def long_gops(*, packets: int, gop: int, packet_bytes: int, side_px: tuple[int, int] = (1920, 1080)) -> PacketIndex:
    flags = [KEY if number % gop == 0 else 0 for number in range(packets)]
    index = make_index(list(range(packets)), flags, [packet_bytes] * packets, [0] * packets)
    return replace(index, width_px=side_px[0], height_px=side_px[1])


def planned(index: PacketIndex, frames: int) -> tuple[ClipRequest, ClipPlan]:
    request = ClipRequest(
        video="v\x1b[2J", start_s=0, end_s=index.duration_s, sampling=Segments(frames=frames),
        crop=ResizedCentreCrop(), width_px=224, height_px=224,
    )  # fmt: skip
    return request, plan_clip(request, [(0.0, index)], duration_s=index.duration_s)


def test_the_longest_honest_clips_pass() -> None:
    """64 frames, one of each of 64 GOPs of 250 at 1080p; and 64 frames of 4096x4096 over one such GOP and the next."""
    for index in (
        long_gops(packets=64 * 250, gop=250, packet_bytes=10_000),
        long_gops(packets=314, gop=250, packet_bytes=500_000, side_px=(4096, 4096)),
    ):
        request, plan = planned(index, 64)
        CostLimits().check(request, plan)
    assert MAX_DECODE_MPX * 1e6 > 64 * 250 * 1920 * 1080


def test_too_much_to_read_is_refused_and_says_seen_wanted_and_option() -> None:
    index = long_gops(packets=1000, gop=1000, packet_bytes=400_000)
    request, plan = planned(index, 64)
    assert read_bytes(plan) > 350e6
    with pytest.raises(TooCostly, match=r"v\\x1b\[2J.* would read \d+.\d MiB, wanted at most 256 \(--max-read-mib\)"):
        CostLimits().check(request, plan)
    assert issubclass(TooCostly, Permanent), "no server will do it at any attempt: it is the clip's own"
    CostLimits(read_mib=400).check(request, plan)


def test_too_much_to_decode_is_refused_though_little_is_read() -> None:
    index = long_gops(packets=4000, gop=4000, packet_bytes=20, side_px=(4096, 4096))
    request, plan = planned(index, 2)
    assert read_bytes(plan) < 100_000
    assert decode_px(plan) == sum(len(run.feed) for run in plan.chunks[0].runs) * 4096 * 4096
    with pytest.raises(TooCostly, match=r"\d+ Mpx would be decoded .* 34000 \(--max-decode-mpx\)"):
        CostLimits().check(request, plan)


def test_indices_count_before_they_are_read() -> None:
    request, _ = planned(long_gops(packets=10, gop=5, packet_bytes=10), 2)
    CostLimits().check_indices(request, 255 << 20)
    with pytest.raises(TooCostly, match="indices"):
        CostLimits().check_indices(request, 257 << 20)


def test_limits_of_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="--max-read-mib is 0"):
        CostLimits(read_mib=0)


@pytest.mark.parametrize("packet_bytes", [1000, 70_000, 3 << 20, 5 << 20])
def test_long_ranges_are_read_in_pieces_and_each_packet_lies_in_one(packet_bytes: int) -> None:
    index = long_gops(packets=60, gop=60, packet_bytes=packet_bytes)
    _, plan = planned(index, 30)
    (chunk,) = plan.chunks
    assert all(end - start <= max(READ_BYTES, packet_bytes) for start, end in chunk.reads)
    assert all(before[1] <= after[0] for before, after in pairwise(chunk.reads))
    for packet in np.concatenate([run.feed for run in chunk.runs]).tolist():
        start, end = int(index.offset[packet]), int(index.offset[packet]) + packet_bytes
        assert sum(low <= start and end <= high for low, high in chunk.reads) == 1
