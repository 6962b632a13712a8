"""Plans clips and reads their packets ahead of the decoder; decodes nothing, and knows no threads.

What it could not or should not read ahead is read by the decoder when it comes to it, so that a clip is the same
however much of it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from decode_server.clips.clip_cost import CostLimits
from decode_server.clips.decoder import wanted
from decode_server.clips.library import Library
from decode_server.clips.packet_bytes import PacketBytes
from decode_server.clips.plan import ChunkPlan, ClipPlan, check_span, merged, plan_clip
from framefeed.errors import Cancelled
from framefeed.request import ClipRequest


@dataclass(slots=True)
class ReadClips:
    """Clips that are decoded together: their plans, what to decode with where its packets come from, and the seconds
    that planning and reading ahead took.
    """

    plans: list[ClipPlan]
    chunks: list[tuple[ChunkPlan, PacketBytes]]
    read_s: float

    @property
    def ahead_bytes(self) -> int:
        """The most that `read_ahead` can read."""
        return sum(packets.ahead_bytes for _, packets in self.chunks)

    def read_ahead(self, limit_bytes: int, *, cancelled: Callable[[], bool] = wanted) -> None:
        """Read what comes first of the packets, up to so many bytes. Blocks on storage; raises as Library.read does,
        and Cancelled before a range is read once `cancelled` is true.
        """
        began = perf_counter()
        for _, packets in self.chunks:
            whole_bytes = packets.ahead_bytes
            got_bytes = packets.read_ahead(limit_bytes, cancelled=cancelled)
            limit_bytes -= got_bytes
            if got_bytes < whole_bytes:
                break
        self.read_s += perf_counter() - began


class ClipReader:
    """Plans and reads clips of a library, each within `limits`. Thread-safe, and holds nothing."""

    def __init__(self, library: Library, *, limits: CostLimits = CostLimits()) -> None:  # noqa: B008  # it is frozen
        self._library, self._limits = library, limits

    def plan(self, request: ClipRequest) -> ClipPlan:
        """The plan of a clip; reads packet indices, no media. Raises BadRequest, TooCostly, UnknownVideo, CorruptMedia,
        UnsupportedMedia (no server can) or StorageFault (another try may).
        """
        entry = self._library.entry(request.video)
        check_span(request, entry.duration_s)
        self._limits.check_indices(request, self._library.index_bytes(entry, request.start_s, request.end_s))
        chunks = self._library.chunks(entry, request.start_s, request.end_s)
        plan = plan_clip(request, chunks, duration_s=entry.duration_s)
        self._limits.check(request, plan)
        return plan

    def packets(self, chunk: ChunkPlan) -> PacketBytes:
        """The packets of a chunk, of which none is read yet."""
        return PacketBytes(self._library, chunk.index, chunk.reads, what=f" for its frame at {chunk.first_s:.3f} s")

    def open(self, requests: Sequence[ClipRequest], *, cancelled: Callable[[], bool] = wanted) -> ReadClips:
        """Plan clips that are decoded together; reads packet indices, no media.

        Raises as `plan` does, for any of the clips, and Cancelled before one is planned once `cancelled` is true.
        """
        began = perf_counter()
        plans = []
        for request in requests:
            if cancelled():
                raise Cancelled("the clip is not wanted any more")
            plans.append(self.plan(request))
        chunks = [(chunk, self.packets(chunk)) for chunk in merged(plans)]
        return ReadClips(plans, chunks, perf_counter() - began)
