"""The plan of one clip: request and packet indices in, bytes to read, packets to feed, frames to keep, box out.

Pure: no clock, no I/O, no decoder. It is where correctness of partial decoding is decided: what is fed is closed under
dependency, because it is every packet from the last usable key packet on, less those that nothing depends on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decode_server.media.packet_index import DISPOSABLE, PacketIndex
from framefeed.clip import Colour
from framefeed.crops import Box
from framefeed.errors import BadRequest, UnsupportedMedia
from framefeed.request import ClipRequest, Interpolation
from framefeed.spans import PADDING, FrameIds, Times

READ_GAP_BYTES = 64 << 10  # reading a smaller gap costs less than another read
READ_BYTES = 4 << 20  # at a time, unless one packet is larger: what is read and not yet decoded is bounded by it
SPAN_SLACK_S = 1.0  # annotations run over the end of their video by about this much


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One stretch of packets that decodes on its own: `feed` are packet ordinals in decode order, `keep` maps the
    ordinals whose frames are kept to their places in the clip (several, when a frame is repeated).
    """

    feed: npt.NDArray[np.int64]
    keep: dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPlan:
    """What to read and decode of one chunk: byte ranges [start, end) in file order, and runs in decode order."""

    index: PacketIndex
    reads: tuple[tuple[int, int], ...]
    runs: tuple[Run, ...]

    @property
    def first_s(self) -> float:
        """When the first kept frame shows, in seconds from the chunk's time 0."""
        numerator, denominator = self.index.time_base_s
        first_pts = min(int(self.index.pts[packet]) for run in self.runs for packet in run.keep)
        return (first_pts - self.index.origin_pts) * numerator / denominator


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """Everything that is decided about a clip before a byte is read. `pts_s` are times in the video; `placed` and
    `padding` are as in ClipInfo.
    """

    pts_s: tuple[float, ...]
    padding: tuple[bool, ...]
    box: Box
    placed: Box | None
    interpolation: Interpolation
    flipped: bool
    chunks: tuple[ChunkPlan, ...]

    @property
    def colour(self) -> Colour:
        """How the video spells colour, the same in all its chunks, and the first one's transfer."""
        return self.chunks[0].index.clip_colour


def plan_clip(request: ClipRequest, chunks: Sequence[tuple[float, PacketIndex]], *, duration_s: float) -> ClipPlan:
    """Plan a clip over the chunks, (start in the video in s, index) in time order, that its span touches.

    Raises BadRequest when the span or an explicit box lies outside the video, UnsupportedMedia when chunks of one
    video differ in size or colour, so that one crop cannot serve them.
    """
    check_span(request, duration_s)
    times_s = np.concatenate([start_s + index.times_s for start_s, index in chunks])
    if np.any(times_s[1:] < times_s[:-1]):
        raise UnsupportedMedia(f"{request.video}: its chunks overlap in time near {request.start_s:g} s")
    frames = request.sampling.pick(times_s, (request.start_s, min(request.end_s, duration_s)), request.seed)
    padding = frames == PADDING
    if padding.all():
        raise BadRequest(f"sampling: no frame of the clip lies in [{request.start_s:g}, {request.end_s:g}) s")
    first = chunks[0][1]
    for _, index in chunks[1:]:
        if (index.grid, index.colour) != (first.grid, first.colour):
            raise UnsupportedMedia(f"{request.video}: {index.path} differs from {first.path} in size or colour")
    box = first.grid.snapped(request.crop.choose(*first.display_px, request.seed))
    plans: list[ChunkPlan] = []
    base = 0
    for _, index in chunks:
        count = len(index.shown)
        places = np.flatnonzero((frames >= base) & (frames < base + count))
        if len(places):
            keep: dict[int, list[int]] = {}
            for packet, place in zip(index.shown[frames[places] - base].tolist(), places.tolist(), strict=True):
                keep.setdefault(packet, []).append(place)
            plans.append(_chunk_plan(index, keep))
        base += count
    return ClipPlan(
        pts_s=_times_of(frames, times_s),
        padding=tuple(padding.tolist()) if padding.any() else (),
        box=box,
        placed=request.placed(box),
        interpolation=request.interpolation,
        flipped=request.flipped,
        chunks=tuple(plans),
    )


def merged(plans: Sequence[ClipPlan]) -> tuple[ChunkPlan, ...]:
    """What to read and decode for several clips of one video, every packet once.

    Places count on from clip to clip, as if each lay behind the one before.
    """
    if len(plans) == 1:
        return plans[0].chunks
    keeps: dict[int, tuple[PacketIndex, dict[int, list[int]]]] = {}
    base = 0
    for plan in plans:
        for chunk in plan.chunks:
            _, keep = keeps.setdefault(id(chunk.index), (chunk.index, {}))
            for packet, places in (kept for run in chunk.runs for kept in run.keep.items()):
                keep.setdefault(packet, []).extend(base + place for place in places)
        base += len(plan.pts_s)
    return tuple(_chunk_plan(index, keep) for index, keep in keeps.values())


def _times_of(frames: FrameIds, times_s: Times) -> tuple[float, ...]:
    """The time of each frame; a padding frame has that of the last kept one before it, or of the first kept one."""
    kept = np.flatnonzero(frames != PADDING)
    stand_ins = kept[np.maximum(np.searchsorted(kept, np.arange(len(frames)), side="right") - 1, 0)]
    return tuple(times_s[frames[stand_ins]].tolist())


def check_span(request: ClipRequest, duration_s: float) -> None:
    """Raise BadRequest if the request's span lies outside a video of this duration."""
    if request.start_s >= duration_s or request.end_s > duration_s + SPAN_SLACK_S:
        raise BadRequest(
            f"span [{request.start_s:g}, {request.end_s:g}) s lies outside {request.video}, "
            f"which is {duration_s:.3f} s long"
        )


def _chunk_plan(index: PacketIndex, keep: dict[int, list[int]]) -> ChunkPlan:
    runs = tuple(_runs(index, keep))
    return ChunkPlan(index=index, reads=_reads(index, runs), runs=runs)


def _runs(index: PacketIndex, keep: dict[int, list[int]]) -> list[Run]:
    """Runs that cover the kept packets; kept packets whose stretches overlap share one."""
    stretches: list[tuple[int, list[int]]] = []
    for packet in sorted(keep, reverse=True):
        key = _start_of(index, packet)
        if stretches and packet >= stretches[-1][0]:
            start, packets = stretches.pop()
            stretches.append((min(start, key), [packet, *packets]))
        else:
            stretches.append((key, [packet]))
    return [_run(index, key, packets, keep) for key, packets in reversed(stretches)]


def _run(index: PacketIndex, key: int, packets: list[int], keep: dict[int, list[int]]) -> Run:
    stretch = slice(key, packets[-1] + 1)
    # Leading pictures, shown before the key packet, may depend on the GOP before it, and nothing after depends on them.
    needed = ((index.flags[stretch] & DISPOSABLE) == 0) & (index.pts[stretch] >= index.pts[key])
    needed[np.array(packets) - key] = True
    return Run(feed=key + np.flatnonzero(needed), keep={packet: tuple(keep[packet]) for packet in packets})


def _start_of(index: PacketIndex, packet: int) -> int:
    """The last key packet from which this packet's frame decodes exactly.

    A leading picture (shown before the key packet that precedes it, as in open GOPs) may depend on the GOP before.
    """
    keys = index.keys
    at = int(np.searchsorted(keys, packet, side="right")) - 1
    while at > 0 and index.pts[keys[at]] > index.pts[packet]:
        at -= 1
    return int(keys[max(at, 0)])


def _reads(index: PacketIndex, runs: Sequence[Run]) -> tuple[tuple[int, int], ...]:
    """Byte ranges that hold the fed packets, each packet in one, joined where the gap between them is small and the
    range does not become long.
    """
    fed = np.concatenate([run.feed for run in runs])
    starts = index.offset[fed]
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], (starts + index.size[fed])[order]
    ends = np.maximum.accumulate(ends)
    cuts = np.flatnonzero(starts[1:] > ends[:-1] + READ_GAP_BYTES)
    firsts, lasts = np.concatenate([[0], cuts + 1]), np.concatenate([cuts, [len(starts) - 1]])
    reads: list[tuple[int, int]] = []
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        at = first
        while ends[last] - starts[at] > READ_BYTES and at < last:
            fit = int(np.searchsorted(ends[at : last + 1], starts[at] + READ_BYTES, side="right"))
            end = at + max(fit, 1)  # the first packet that is left for the next range
            while end <= last and starts[end] < ends[end - 1]:
                end += 1  # packets that overlap stay together
            if end > last:
                break
            reads.append((int(starts[at]), int(ends[end - 1])))
            at = end
        reads.append((int(starts[at]), int(ends[last])))
    return tuple(reads)
