"""Sampling policies: which frames of a span become the clip. Pure functions of frame times, span and seed.

They know frame times in seconds, not videos, chunks or packets, so a policy means the same on any source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.draws import SAMPLING, draw_below, draw_uniform
from framefeed.errors import BadRequest

MAX_FRAMES = 512

Times = npt.NDArray[np.float64]
FrameIds = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """One frame from each of `frames` equal segments of the span: its midpoint, or a uniform draw (AVION, TSN)."""

    frames: int
    jitter: bool = False

    def __post_init__(self) -> None:
        _check_frames(self.frames)

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,), of the frames on show at each segment's instant."""
        start_s, end_s = span_s
        at = [draw_uniform(seed, stream=SAMPLING, counter=i) if self.jitter else 0.5 for i in range(self.frames)]
        instants_s = start_s + (np.arange(self.frames) + np.array(at)) * ((end_s - start_s) / self.frames)
        first, last = _frames_of_span(times_s, span_s)
        ids: FrameIds = np.clip(np.searchsorted(times_s, instants_s, side="right") - 1, first, last)
        return ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """`frames` frames, `stride` apart, from a window drawn in the span (`jitter`) or centred in it.

    A span shorter than the window is begun at its first frame and holds its last one (VideoMAE).
    """

    frames: int
    stride: int
    jitter: bool = True

    def __post_init__(self) -> None:
        _check_frames(self.frames)
        if not 1 <= self.stride <= 1000:
            raise BadRequest(f"sampling: stride is {self.stride}, wanted 1 to 1000 frames")

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,)."""
        first, last = _frames_of_span(times_s, span_s)
        spare = last - first + 1 - ((self.frames - 1) * self.stride + 1)
        if spare <= 0:
            shift = 0
        else:
            shift = draw_below(seed, spare + 1, stream=SAMPLING) if self.jitter else spare // 2
        return np.minimum(first + shift + np.arange(self.frames, dtype=np.int64) * self.stride, last)


Sampling = Segments | Dense


def _check_frames(frames: int) -> None:
    if not 1 <= frames <= MAX_FRAMES:
        raise BadRequest(f"sampling: frames is {frames}, wanted 1 to {MAX_FRAMES}")


def _frames_of_span(times_s: Times, span_s: tuple[float, float]) -> tuple[int, int]:
    """First and last id of the frames on show in [start, end); at least the one on show at the start."""
    first = max(int(np.searchsorted(times_s, span_s[0], side="right")) - 1, 0)
    last = int(np.searchsorted(times_s, span_s[1], side="left")) - 1
    return first, max(first, last)
