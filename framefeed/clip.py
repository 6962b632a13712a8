"""Clip: what a server returns for a ClipRequest, with everything needed to say how it came about.

It knows nothing of how it travelled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field
from msgspec.structs import replace

from framefeed.crops import Box
from framefeed.show_value import show_value

Matrix = Literal["bt601", "bt709", "bt2020", "smpte240m", "fcc"]
Transfer = Literal["", "pq", "hlg"]
_MATRICES, _TRANSFERS = get_args(Matrix), get_args(Transfer)
STAGES = ("queue", "read", "decode", "scale")
_STAGES = frozenset(STAGES)


class Colour(Struct, frozen=True, kw_only=True):
    """How the luma and chroma of a clip code RGB; for an rgb24 clip, how those of its source did.

    `transfer` names that of HDR (SMPTE ST 2084, "pq"; ARIB STD-B67, "hlg"), of which values are passed on as they are
    and not tone-mapped, in RGB too.
    """

    matrix: Matrix = "bt601"
    full_range: bool = False
    transfer: Transfer = ""

    def __post_init__(self) -> None:
        if self.matrix not in _MATRICES:
            raise _no_colour("matrix", self.matrix, Matrix)
        if self.transfer not in _TRANSFERS:
            raise _no_colour("transfer", self.transfer, Transfer)


def _no_colour(name: str, seen: object, wanted: object) -> ValueError:
    return ValueError(f"colour: {name} is {show_value(seen)}, wanted one of {', '.join(get_args(wanted))}")


class ClipInfo(Struct, frozen=True, kw_only=True):
    """All that a reply says about a clip beside its pixels.

    `pts_s` are the times of the kept frames in the video (time deltas are their differences), `box` is the box that was
    cut from the displayed frame, `placed` where in the clip's picture it lies (None: it fills it), `padding` which
    frames are black because the span had no more (empty: none; their `pts_s` is that of the last kept frame before
    them). `stage_s` are the seconds spent in each of STAGES on the server, `fed_packets` and `read_bytes` what it cost.
    """

    pts_s: tuple[float, ...]
    box: Box
    flipped: bool
    colour: Colour
    read_bytes: int
    fed_packets: int
    stage_s: dict[str, float] = field(default_factory=dict)
    placed: Box | None = None
    padding: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not _STAGES.issuperset(self.stage_s):
            unknown = show_value(min(set(self.stage_s) - _STAGES))
            raise ValueError(f"clip: stages [{unknown}] are not among {STAGES}")
        if not (all(map(math.isfinite, self.pts_s)) and all(map(math.isfinite, self.stage_s.values()))):
            raise ValueError("clip: a time is not finite")
        if self.read_bytes < 0 or self.fed_packets < 0:
            raise ValueError(f"clip: read {self.read_bytes} bytes and {self.fed_packets} packets, wanted 0 or more")
        if self.padding and len(self.padding) != len(self.pts_s):
            raise ValueError(f"clip: {len(self.padding)} padding flags for {len(self.pts_s)} frame times")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Pixels uint8, (T, Y, X, 3) rgb24 or (T, Y*3/2, X) yuv420p, and their ClipInfo."""

    pixels: npt.NDArray[np.uint8]
    info: ClipInfo

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim not in (3, 4):
            raise ValueError(f"clip: pixels are {self.pixels.dtype} of {self.pixels.ndim} axes, wanted uint8 of 3 or 4")
        if len(self.info.pts_s) != len(self.pixels):
            raise ValueError(f"clip: {len(self.info.pts_s)} frame times for {len(self.pixels)} frames")

    def truncated(self) -> Clip:
        """The clip without its padding frames; itself if it has none. Copies the frames that stay."""
        if not any(self.info.padding):
            return self
        kept = [t for t, padded in enumerate(self.info.padding) if not padded]
        info = replace(self.info, pts_s=tuple(self.info.pts_s[t] for t in kept), padding=())
        return Clip(pixels=self.pixels[kept], info=info)
