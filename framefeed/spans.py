"""Which frames a span of time shows, and what stands in for those that a policy wants past its end.

It knows frame times in seconds, not videos, chunks or packets; policies that choose among the frames are elsewhere.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadRequest
from framefeed.option_types import shown, whole_number
from framefeed.show_value import show_value

MAX_FRAMES = 512
MAX_STRIDE_FRAMES = 1000
PADDING = -1  # the id of a frame that is not there
Short = Literal["hold", "loop", "pad", "refuse"]

Times = npt.NDArray[np.float64]
FrameIds = npt.NDArray[np.int64]


def frames_of_span(times_s: Times, span_s: tuple[float, float]) -> tuple[int, int]:
    """First and last id of the frames on show in [start, end); at least the one on show at the start."""
    first = max(int(np.searchsorted(times_s, span_s[0], side="right")) - 1, 0)
    last = int(np.searchsorted(times_s, span_s[1], side="left")) - 1
    return first, max(first, last)


def stand_in(offsets: FrameIds, count: int, short: Short) -> FrameIds:
    """Offsets into `count` frames, with those past the last one held there, counted on from the first, PADDING or
    refused with BadRequest.
    """
    past = offsets >= count
    if short == "refuse" and past.any():
        raise BadRequest(
            f"sampling: the span shows {count} frames and the clip wants frame {int(offsets.max())} of it; "
            "a longer span, or short='hold', 'loop' or 'pad'"
        )
    if short == "loop":
        return offsets % count
    return np.where(past, count - 1 if short == "hold" else PADDING, offsets)


def check_frames(frames: int) -> None:
    """Raise BadRequest unless a clip may have so many frames."""
    if not whole_number(frames) or not 1 <= frames <= MAX_FRAMES:
        raise BadRequest(f"sampling: frames is {shown(frames)}, wanted 1 to {MAX_FRAMES}, a whole number")


def check_stride(stride: int) -> None:
    """Raise BadRequest unless kept frames may be so many source frames apart."""
    if not whole_number(stride) or not 1 <= stride <= MAX_STRIDE_FRAMES:
        wanted = f"1 to {MAX_STRIDE_FRAMES} frames, a whole number"
        raise BadRequest(f"sampling: stride is {shown(stride)}, wanted {wanted}")


def check_short(short: Short) -> None:
    """Raise BadRequest for a word that is no Short."""
    if short not in get_args(Short):
        raise BadRequest(f"sampling: short is {show_value(short)}, wanted one of {', '.join(get_args(Short))}")


def check_view(view: int, views: int) -> None:
    """Raise BadRequest unless 0 <= view < views."""
    if not (whole_number(view) and whole_number(views) and 1 <= views <= 1000 and 0 <= view < views):
        raise BadRequest(f"view is {shown(view)} of {shown(views)}, wanted 0 to views - 1 of 1 to 1000")
