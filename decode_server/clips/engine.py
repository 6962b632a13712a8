"""One clip, whole, or several of one video together: plan, read, decode, crop and scale into the caller's buffers.

One Engine per thread. It knows no sockets and no queues, and draws no random number that the request does not seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import av
import numpy as np
import numpy.typing as npt

from decode_server.clips.clip_cost import CostLimits
from decode_server.clips.clip_reader import ClipReader, ReadClips
from decode_server.clips.decoder import Decoder, wanted
from decode_server.clips.framing import Framing
from decode_server.clips.library import Library
from decode_server.clips.orient import blacken
from decode_server.clips.packet_bytes import PacketBytes
from decode_server.clips.plan import ChunkPlan, ClipPlan
from decode_server.clips.swscale import Scaler
from framefeed.clip import ClipInfo, Colour
from framefeed.errors import BadRequest, Cancelled, CorruptMedia
from framefeed.request import ClipRequest

Buffer = memoryview | npt.NDArray[np.uint8]
Clip = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Course:
    """A decode under way: the seconds of its stages so far, and whether it is still wanted."""

    stage_s: dict[str, float]
    cancelled: Callable[[], bool]


class Engine:
    """Decodes clips of a library. Owns its codec and scaler contexts; `close` frees them."""

    def __init__(self, library: Library, *, limits: CostLimits = CostLimits()) -> None:  # noqa: B008  # it is frozen
        """`limits` are what each clip may cost."""
        self._reader = ClipReader(library, limits=limits)
        self._decoder = Decoder()
        self._scaler = Scaler()

    def decode(self, request: ClipRequest, out: Buffer) -> ClipInfo:
        """Write the clip's pixels, `request.clip_bytes` of them, into `out` and say how it came about.

        Blocks on storage and decoding. `out` holds undefined bytes if it raises: BadRequest, TooCostly, UnknownVideo,
        CorruptMedia, UnsupportedMedia (no server can) or StorageFault (another try may).
        """
        return self.decode_together([request], [out])[0]

    def decode_together(
        self,
        requests: Sequence[ClipRequest],
        outs: Sequence[Buffer],
        *,
        cancelled: Callable[[], bool] = wanted,
        ahead: ReadClips | None = None,
    ) -> list[ClipInfo]:
        """As `decode` for each of several clips, which costs least if they are of one video and their spans overlap:
        a packet that several need is read and decoded once. Bytes and packets are shared out evenly; times are of all.
        `ahead` is what a ClipReader gave for these requests, perhaps in another thread; it is used up.

        Raises as `decode` does, for any of the clips: which one it is shows when each is decoded by itself. Raises
        Cancelled at the next packet once `cancelled`, asked before each, is true.
        """
        read = ahead if ahead is not None else self._reader.open(requests)
        plans = read.plans
        clips = [_clip_view(request, out) for request, out in zip(requests, outs, strict=True)]
        for plan, clip in zip(plans, clips, strict=True):
            for place in np.flatnonzero(plan.padding).tolist():
                blacken(clip[place], full_range=plan.colour.full_range)
        stage_s = {"read": read.read_s, "decode": 0.0, "scale": 0.0}  # to plan is to read packet indices
        chunks = [chunk for chunk, _ in read.chunks]
        while read.chunks:  # what was decoded is let go
            self._decode_chunk(plans, *read.chunks.pop(0), clips, _Course(stage_s, cancelled))
        read_bytes = _shares(sum(end - start for chunk in chunks for start, end in chunk.reads), len(plans))
        fed_packets = _shares(sum(len(run.feed) for chunk in chunks for run in chunk.runs), len(plans))
        return [
            ClipInfo(
                pts_s=plan.pts_s,
                box=plan.box,
                flipped=plan.flipped,
                colour=plan.colour,
                read_bytes=read_bytes[number],
                fed_packets=fed_packets[number],
                stage_s=dict(stage_s),
                placed=plan.placed,
                padding=plan.padding,
            )
            for number, plan in enumerate(plans)
        ]

    def plan(self, request: ClipRequest) -> ClipPlan:
        """The plan of a clip within the limits; reads packet indices, no media. Raises as `decode` does."""
        return self._reader.plan(request)

    def frames(
        self,
        chunk: ChunkPlan,
        stage_s: dict[str, float],
        *,
        packets: PacketBytes | None = None,
        cancelled: Callable[[], bool] = wanted,
    ) -> Iterator[tuple[tuple[int, ...], av.VideoFrame]]:
        """Yield (places in the clip, decoded frame) for the kept frames of a chunk, as the codec outputs them, from
        `packets`, which are read anew if not given.

        Adds the seconds spent reading to `stage_s`. The frame is valid until the next one is asked for. Raises
        Cancelled as decode_together does.
        """
        if cancelled():
            raise Cancelled("the clip is not wanted any more")
        packets = packets or self._reader.packets(chunk)
        before_s = stage_s["read"]
        for run in chunk.runs:
            for ordinal, frame in self._decoder.frames(chunk.index, run, packets.packet, cancelled=cancelled):
                stage_s["read"] = before_s + packets.read_s
                yield run.keep[ordinal], frame
        stage_s["read"] = before_s + packets.read_s

    def close(self) -> None:
        """Free the contexts; idempotent. The library is its owner's to close."""
        self._decoder.close()
        self._scaler.close()

    def _decode_chunk(
        self, plans: list[ClipPlan], chunk: ChunkPlan, packets: PacketBytes, clips: list[Clip], course: _Course
    ) -> None:
        index, stage_s = chunk.index, course.stage_s
        targets = [(number, frame) for number, clip in enumerate(clips) for frame in clip]  # by place
        framings: dict[tuple[int, Colour], Framing] = {}
        colour = index.colour
        scale_s, began, read_s = 0.0, perf_counter(), stage_s["read"]
        for places, frame in self.frames(chunk, stage_s, packets=packets, cancelled=course.cancelled):
            if (frame.width, frame.height, frame.format.name) != (index.width_px, index.height_px, index.pixel_format):
                raise CorruptMedia(
                    f"{index.where(frame.pts or 0)}: the frame is {frame.width}x{frame.height} "
                    f"{frame.format.name}, and indexed as {index.width_px}x{index.height_px} {index.pixel_format}"
                )
            scaling = perf_counter()
            if index.colours:
                colour = index.colour_of(frame.pts or 0)
            clip, written = -1, targets[places[0]][1]
            for place in places:  # clip by clip
                number, target = targets[place]
                if number == clip:
                    target[...] = written
                    continue
                framing = framings.get((number, colour))
                if framing is None:
                    framing = Framing(self._scaler, plans[number], index, colour=colour, frame_shape=target.shape)
                    framings[number, colour] = framing
                framing.write(frame, target)
                clip, written = number, target
            scale_s += perf_counter() - scaling
        stage_s["scale"] += scale_s
        stage_s["decode"] += perf_counter() - began - scale_s - (stage_s["read"] - read_s)


def _shares(total: int, parts: int) -> list[int]:
    """A total in nearly equal parts."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _clip_view(request: ClipRequest, out: Buffer) -> Clip:
    flat = np.frombuffer(out, dtype=np.uint8) if isinstance(out, memoryview) else out.reshape(-1)
    if flat.size < request.clip_bytes:
        raise BadRequest(f"buffer holds {flat.size} bytes, the clip needs {request.clip_bytes}")
    return flat[: request.clip_bytes].reshape(request.shape)
