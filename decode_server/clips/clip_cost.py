"""What a clip costs a server, known from its plan before a byte of media is read, and how much one may cost. Pure.

It knows plans and the manifest's sizes; it reads nothing and measures no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from framefeed.errors import BadInput, TooCostly
from framefeed.request import ClipRequest
from framefeed.show_value import show_value

if TYPE_CHECKING:  # who only sets limits, the front, needs no arrays
    from decode_server.clips.plan import ClipPlan

MAX_READ_MIB = 256
# 64 frames of 1080p, each the last one of a GOP of 250: 64 * 250 * 1920 * 1080 = 33,178 Mpx, a minute or more of a
# core. 64 frames in a row of 4096x4096 behind such a GOP are 5,268.
MAX_DECODE_MPX = 34_000
_MIB, _MPX = 1 << 20, 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLimits:
    """The most that one clip may read (its packets and their indices, MiB) and decode (all frames that are fed to the
    codec for it, the ones before the wanted ones included, in millions of pixels).
    """

    read_mib: int = MAX_READ_MIB
    decode_mpx: int = MAX_DECODE_MPX

    def __post_init__(self) -> None:
        for name in ("read_mib", "decode_mpx"):
            if getattr(self, name) < 1:
                raise BadInput(f"--max-{name.replace('_', '-')} is {getattr(self, name)}, wanted at least 1")

    def check_indices(self, request: ClipRequest, index_bytes: int) -> None:
        """Before packet indices of so many bytes are read to plan a clip. Raises TooCostly."""
        if index_bytes > self.read_mib * _MIB:
            raise TooCostly(
                f"{_name(request)}: the packet indices of its span are {index_bytes / _MIB:.1f} MiB, wanted at most "
                f"{self.read_mib} (--max-read-mib)"
            )

    def check(self, request: ClipRequest, plan: ClipPlan) -> None:
        """Before any media is read for a plan. Raises TooCostly, which says seen, wanted and the option."""
        if (read := read_bytes(plan)) > self.read_mib * _MIB:
            raise TooCostly(
                f"{_name(request)}: it would read {read / _MIB:.1f} MiB, wanted at most {self.read_mib} "
                "(--max-read-mib); chunk the video, or take a shorter span"
            )
        if (decoded := decode_px(plan)) > self.decode_mpx * _MPX:
            raise TooCostly(
                f"{_name(request)}: {decoded / _MPX:.0f} Mpx would be decoded for it, wanted at most "
                f"{self.decode_mpx} (--max-decode-mpx); chunk the video with shorter GOPs, or take a shorter span"
            )


def read_bytes(plan: ClipPlan) -> int:
    """Bytes of media that the plan reads."""
    return sum(end - start for chunk in plan.chunks for start, end in chunk.reads)


def decode_px(plan: ClipPlan) -> int:
    """Pixels of all the frames that the plan feeds to a codec, at their coded size."""
    return sum(
        chunk.index.width_px * chunk.index.height_px * sum(len(run.feed) for run in chunk.runs) for chunk in plan.chunks
    )


def _name(request: ClipRequest) -> str:
    return f"clip of {show_value(request.video)} [{request.start_s:g}, {request.end_s:g}) s"
