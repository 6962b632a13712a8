"""Sampling policies: which frames of a span become the clip. Pure functions of frame times, span and seed.

They know frame times in seconds, not videos, chunks or packets, so a policy means the same on any source. `pick` gives
one id into the frame times for each frame of the clip: a clip always has `frames` frames, and where the span ends
before they do, `short` says what stands in: "hold" repeats the last frame, "loop" begins again at the first, "pad"
leaves PADDING (black in the clip, reported in its ClipInfo, and dropped by Clip.truncated), "refuse" is a BadRequest.
"""

from __future__ import annotations

import math

import numpy as np

from framefeed.draws import SAMPLING, draw_below, draw_uniform
from framefeed.errors import BadRequest
from framefeed.policy import Policy
from framefeed.sampling_rules import PublishedRule
from framefeed.spans import (
    PADDING,
    FrameIds,
    Short,
    Times,
    check_frames,
    check_short,
    check_stride,
    check_view,
    frames_of_span,
    stand_in,
)

_INSTANT_S = 1e-6  # a frame that begins this soon after an instant is on show at it: instants are rounded sums
_MAX_OFFSET = 1 << 31


class Segments(Policy, frozen=True, kw_only=True, tag="segments"):
    """One frame from each of `frames` equal segments of the span: its midpoint, or a uniform draw (AVION, TSN).

    Segments are of time, so frames follow it where the rate varies. A span of fewer frames repeats them.
    """

    frames: int
    jitter: bool = False

    def __post_init__(self) -> None:
        check_frames(self.frames)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,), of the frames on show at each segment's instant."""
        start_s, end_s = span_s
        at = [draw_uniform(seed, stream=SAMPLING, counter=i) if self.jitter else 0.5 for i in range(self.frames)]
        instants_s = start_s + (np.arange(self.frames) + np.array(at)) * ((end_s - start_s) / self.frames)
        first, last = frames_of_span(times_s, span_s)
        ids: FrameIds = np.clip(np.searchsorted(times_s, instants_s, side="right") - 1, first, last)
        return ids


class Linspace(Policy, frozen=True, kw_only=True, tag="linspace"):
    """`frames` frames evenly from the span's first to its last, both included, rounded down.

    One frame is the first. A span of fewer frames repeats them.
    """

    frames: int

    def __post_init__(self) -> None:
        check_frames(self.frames)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,); the seed is not used."""
        del seed
        first, last = frames_of_span(times_s, span_s)
        return first + _spread(self.frames, last - first + 1)


class Dense(Policy, frozen=True, kw_only=True, tag="dense"):
    """`frames` frames, `stride` apart, from a window drawn in the span (`jitter`) or centred in it.

    A span shorter than the window is begun at its first frame.
    """

    frames: int
    stride: int
    jitter: bool = True
    short: Short = "hold"

    def __post_init__(self) -> None:
        check_frames(self.frames)
        check_stride(self.stride)
        check_short(self.short)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,)."""
        offsets = np.arange(self.frames, dtype=np.int64) * self.stride
        return _pick_window(offsets, times_s, span_s, seed=seed if self.jitter else None, short=self.short)


class DenseView(Policy, frozen=True, kw_only=True, tag="dense_view"):
    """Window `view` of `views` such as Dense takes, spread evenly from the span's start to its end; one is centred."""

    frames: int
    stride: int
    view: int
    views: int
    short: Short = "hold"

    def __post_init__(self) -> None:
        check_frames(self.frames)
        check_stride(self.stride)
        check_view(self.view, self.views)
        check_short(self.short)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,); the seed is not used."""
        del seed
        first, last = frames_of_span(times_s, span_s)
        count = last - first + 1
        spare = max(count - ((self.frames - 1) * self.stride + 1), 0)
        shift = spare // 2 if self.views == 1 else self.view * spare // (self.views - 1)
        offsets = shift + np.arange(self.frames, dtype=np.int64) * self.stride
        return _from(first, stand_in(offsets, count, self.short))


class FrameWindow(Policy, frozen=True, kw_only=True, tag="frame_window"):
    """`frames` frames spread evenly (as Linspace) over a window of `window_frames`, drawn in the span or centred."""

    frames: int
    window_frames: int
    jitter: bool = True
    short: Short = "hold"

    def __post_init__(self) -> None:
        check_frames(self.frames)
        if not 1 <= self.window_frames <= 1_000_000:
            raise BadRequest(f"sampling: window_frames is {self.window_frames}, wanted 1 to 1000000")
        check_short(self.short)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,)."""
        offsets = _spread(self.frames, self.window_frames)
        drawn = seed if self.jitter else None
        return _pick_window(offsets, times_s, span_s, seed=drawn, short=self.short, window=self.window_frames)


class Resampled(Policy, frozen=True, kw_only=True, tag="resampled"):
    """`frames` frames at a rate of `fps`, whatever the source's, from a window drawn in the span or centred in it.

    The window lasts frames / fps seconds: for a window of so many seconds ask for frames / seconds. Each frame is the
    one on show at its instant, so a rate above the source's repeats frames. A span shorter than the window is begun at
    its start.
    """

    frames: int
    fps: float
    jitter: bool = True
    short: Short = "hold"

    def __post_init__(self) -> None:
        check_frames(self.frames)
        if not 0.001 <= self.fps <= 1000:
            raise BadRequest(f"sampling: fps is {self.fps:g}, wanted 0.001 to 1000")
        check_short(self.short)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,)."""
        spare_s = max(span_s[1] - span_s[0] - self.frames / self.fps, 0.0)
        at = draw_uniform(seed, stream=SAMPLING) if self.jitter else 0.5
        return _pick_instants(spare_s * at + np.arange(self.frames) / self.fps, times_s, span_s, self.short)


class AtSeconds(Policy, frozen=True, kw_only=True, tag="at_seconds"):
    """The frames on show at these seconds after the start of the span, in the order given."""

    offsets_s: tuple[float, ...]
    short: Short = "refuse"

    def __post_init__(self) -> None:
        check_frames(self.frames)
        for offset_s in self.offsets_s:
            if not (math.isfinite(offset_s) and offset_s >= 0):
                raise BadRequest(f"sampling: offsets_s has {offset_s:g}, wanted seconds from the start of the span")
        check_short(self.short)

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return len(self.offsets_s)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,); the seed is not used. Raises BadRequest as `short` says."""
        del seed
        return _pick_instants(np.array(self.offsets_s), times_s, span_s, self.short)


class AtFrames(Policy, frozen=True, kw_only=True, tag="at_frames"):
    """These frames of the span, in the order given; 0 is the one on show at its start."""

    offsets_frames: tuple[int, ...]
    short: Short = "refuse"

    def __post_init__(self) -> None:
        check_frames(self.frames)
        for offset in self.offsets_frames:
            if not 0 <= offset < _MAX_OFFSET:
                raise BadRequest(f"sampling: offsets_frames has {offset}, wanted 0 to {_MAX_OFFSET - 1}")
        check_short(self.short)

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return len(self.offsets_frames)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,); the seed is not used. Raises BadRequest as `short` says."""
        del seed
        first, last = frames_of_span(times_s, span_s)
        return _from(first, stand_in(np.array(self.offsets_frames, np.int64), last - first + 1, self.short))


Sampling = (
    Segments | Linspace | Dense | DenseView | FrameWindow | Resampled | AtSeconds | AtFrames | PublishedRule
)  # fmt: skip


def _spread(frames: int, count: int) -> FrameIds:
    """Offsets 0 … count - 1, evenly, rounded down in whole numbers."""
    return np.arange(frames, dtype=np.int64) * (count - 1) // max(frames - 1, 1)


def _pick_window(
    offsets: FrameIds, times_s: Times, span_s: tuple[float, float], *, seed: int | None, short: Short, window: int = 0
) -> FrameIds:
    """Ids of a window that holds these offsets: drawn in the span by `seed`, centred without one."""
    first, last = frames_of_span(times_s, span_s)
    count = last - first + 1
    spare = max(count - max(window, int(offsets[-1]) + 1), 0)
    shift = spare // 2 if seed is None else draw_below(seed, spare + 1, stream=SAMPLING)
    return _from(first, stand_in(shift + offsets, count, short))


def _pick_instants(offsets_s: Times, times_s: Times, span_s: tuple[float, float], short: Short) -> FrameIds:
    """Ids of the frames on show at these seconds after the span's start."""
    length_s = span_s[1] - span_s[0]
    past = offsets_s >= length_s
    if short == "refuse" and past.any():
        raise BadRequest(
            f"sampling: the span lasts {length_s:g} s and the clip wants its second {offsets_s.max():g}; "
            "a longer span, or short='hold', 'loop' or 'pad'"
        )
    if short == "loop":
        offsets_s = offsets_s % length_s
    first, last = frames_of_span(times_s, span_s)
    on_show = np.searchsorted(times_s, span_s[0] + offsets_s + _INSTANT_S, side="right") - 1
    ids: FrameIds = np.clip(on_show, first, last)
    return np.where(past, PADDING, ids) if short == "pad" else ids


def _from(first: int, offsets: FrameIds) -> FrameIds:
    return np.where(offsets == PADDING, PADDING, first + offsets)
