"""Sampling rules as AVION, LaViLa, VideoMAE and TSN published them, by name, so that their runs can be reproduced.

Frame for frame what their code picks, with draws of our own: same distribution, another generator. They speak of
frame numbers at a constant rate; here a number is the frame on show in the middle of its interval, which is the same
frame at a constant rate and the right second otherwise. Sources: zhaoyue-zephyrus/AVION, facebookresearch/LaViLa,
MCG-NJU/VideoMAE, and TSN (Wang et al. 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from framefeed.draws import SAMPLING, draw_below, draw_uniform
from framefeed.errors import BadRequest
from framefeed.policy import Policy
from framefeed.show_value import show_value
from framefeed.spans import (
    PADDING,
    FrameIds,
    Times,
    check_frames,
    check_stride,
    check_view,
    frames_of_span,
)


class PublishedRule(Policy, frozen=True, kw_only=True, tag="published"):
    """A rule of PUBLISHED by name; an option that the rule does not have is refused, not ignored.

    `train` draws as the rule's training does; without it the rule is deterministic. `stride` is that of dense rules,
    `view` of `views` that of test rules. Sparse rules may pick frames up to half a frame outside the span, as published
    (`lavila_segments`: as many frames beyond a short one as the clip has), never outside the chunks that it touches.
    """

    rule: str
    frames: int
    stride: int = 1
    train: bool = False
    view: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        check_frames(self.frames)
        check_stride(self.stride)
        check_view(self.view, self.views)
        known = PUBLISHED.get(self.rule)
        if known is None:
            raise BadRequest(f"sampling: rule is {show_value(self.rule)}, wanted one of {', '.join(PUBLISHED)}")
        seen = {"stride": self.stride > 1, "train": self.train, "test": not self.train, "views": self.views > 1}
        for option, used in seen.items():
            if used and option not in known.takes:
                raise BadRequest(f"sampling: rule {self.rule} has no {option}; it has {', '.join(known.takes)}")
        if self.train and self.views > 1:
            raise BadRequest(f"sampling: rule {self.rule} has views in a test only, and train is set")

    def pick(self, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        """Ids into `times_s`, int64 (frames,); PADDING where the rule pads."""
        return PUBLISHED[self.rule].pick(self, times_s, span_s, seed)


@dataclass(frozen=True, slots=True)
class _Rule:
    pick: Callable[[PublishedRule, Times, tuple[float, float], int], FrameIds]
    takes: tuple[str, ...]


# Rules over numbered frames of a span [s, e) in seconds.


def _avion_sparse(rule: PublishedRule, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
    """T midpoints of T equal segments of [s, e]; training adds U(±½) · (e - s - 1) / T to each; truncated.

    AVION ends a span at the last frame at hand, so e is at most the number of that.
    """
    fps = _rate(times_s)
    s, e = _number(span_s[0], times_s, fps), _number(min(span_s[1], float(times_s[-1])), times_s, fps)
    at = s + (np.arange(rule.frames) + 0.5) * ((e - s) / rule.frames)
    if rule.train:
        draws = np.array([draw_uniform(seed, stream=SAMPLING, counter=i) for i in range(rule.frames)])
        at = at + (draws - 0.5) * ((e - s - 1) / rule.frames)
    return _ids(np.trunc(at), times_s, fps)


def _lavila_segments(rule: PublishedRule, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
    """T segments of (e - s - 1) / T frames, ends rounded: training draws in each, both ends included, else midpoint."""
    fps = _rate(times_s)
    s = _number(span_s[0], times_s, fps)
    e = min(s + max(int((span_s[1] - span_s[0]) * fps + 1e-6), rule.frames), len(times_s))
    edges = s + np.rint((e - s - 1) / rule.frames * np.arange(rule.frames + 1)).astype(np.int64)
    low, high = edges[:-1], np.minimum(edges[1:], e)
    if rule.train:
        picked = [
            lo + draw_below(seed, max(hi - lo, 0) + 1, stream=SAMPLING, counter=i)
            for i, (lo, hi) in enumerate(zip(low.tolist(), high.tolist(), strict=True))
        ]
        return _ids(np.array(picked), times_s, fps)
    return _ids((low + high) // 2, times_s, fps)


def _rate(times_s: Times) -> float:
    """Frames a second; 30 or 30000/1001 and the like exactly, where rounded time stamps come close to them."""
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:
        return 30.0
    seen = float((len(times_s) - 1) / (times_s[-1] - times_s[0]))
    for base in (1.0, 1000 / 1001):
        exact = round(seen / base) * base
        if abs(seen - exact) <= 2e-4 * seen:
            return exact
    return seen


def _number(at_s: float, times_s: Times, fps: float) -> int:
    """Python's round(at_s x fps), ties to even numbers of the video, counted from the first frame at hand."""
    base = round(float(times_s[0]) * fps)
    return round(base + (at_s - float(times_s[0])) * fps) - base


def _ids(numbers: Times | FrameIds, times_s: Times, fps: float) -> FrameIds:
    middles_s = times_s[0] + (np.asarray(numbers, np.float64) + 0.5) / fps
    ids: FrameIds = np.clip(np.searchsorted(times_s, middles_s, side="right") - 1, 0, len(times_s) - 1)
    return ids


# Rules over the N frames of a span, 0 to N - 1.


def _of_span(offsets: Callable[[PublishedRule, int, int], FrameIds]) -> _Pick:
    def pick(rule: PublishedRule, times_s: Times, span_s: tuple[float, float], seed: int) -> FrameIds:
        first, last = frames_of_span(times_s, span_s)
        found = offsets(rule, last - first + 1, seed)
        return np.where(found == PADDING, PADDING, first + found)

    return pick


_Pick = Callable[[PublishedRule, Times, tuple[float, float], int], FrameIds]


def _steps(rule: PublishedRule) -> FrameIds:
    return np.arange(rule.frames, dtype=np.int64) * rule.stride


def _start(spare: int, seed: int) -> int:
    """randint(spare + 1), 0 without room."""
    return draw_below(seed, spare + 1, stream=SAMPLING) if spare > 0 else 0


def _avion_dense(rule: PublishedRule, count: int, seed: int) -> FrameIds:
    """AVION's masked pre-training: start = randint(N - (T + 1) · stride), each frame + randint(stride), modulo N."""
    start = _start(count - (rule.frames + 1) * rule.stride - 1, seed)
    shifts = [draw_below(seed, rule.stride, stream=SAMPLING, counter=1 + i) for i in range(rule.frames)]
    return (start + _steps(rule) + np.array(shifts, np.int64)) % count


def _videomae_dense(rule: PublishedRule, count: int, seed: int) -> FrameIds:
    """VideoMAE's pre-training: start = randint(N - T · stride + 1); a short video stops two frames before its end."""
    start = _start(count - rule.frames * rule.stride, seed)
    most = max(count - 2, 0) // rule.stride * rule.stride
    return start + (_steps(rule) if count >= rule.frames * rule.stride else np.minimum(_steps(rule), most))


def _videomae_finetune(rule: PublishedRule, count: int, seed: int) -> FrameIds:
    """VideoMAE's and AVION's fine-tuning: a random window of T · stride frames, T linspaced in it with its end.

    A shorter video gives N // stride frames linspaced over it, then its last one. Their validation draws too.
    """
    window = rule.frames * rule.stride
    if count <= window:
        whole = count // rule.stride
        spread = np.arange(whole, dtype=np.int64) * count // max(whole - 1, 1)
        held = np.full(rule.frames - whole, count, np.int64)
        return np.minimum(np.concatenate((spread, held)), count - 1)
    at = np.arange(rule.frames, dtype=np.int64) * window // max(rule.frames - 1, 1)
    return _start(count - window - 1, seed) + np.minimum(at, window - 1)


def _avion_views(rule: PublishedRule, count: int, seed: int) -> FrameIds:
    """AVION's Kinetics test: start = int(k · (N - T · stride) / (views - 1)); a short video holds its last frame."""
    del seed
    spare = max(count - rule.frames * rule.stride, 0)
    return np.minimum(rule.view * spare // max(rule.views - 1, 1) + _steps(rule), count - 1)


def _videomae_views(rule: PublishedRule, count: int, seed: int) -> FrameIds:
    """VideoMAE's Kinetics test: windows of T among every stride-th frame; a short video holds the last of those."""
    del seed
    kept = -(-count // rule.stride)
    start = rule.view * max(kept - rule.frames, 0) // max(rule.views - 1, 1)
    return np.minimum(start + np.arange(rule.frames, dtype=np.int64), kept - 1) * rule.stride


def _tsn_segments(rule: PublishedRule, count: int, seed: int) -> FrameIds:
    """TSN and VideoMAE's SSv2: training draws one frame in each segment of N // T, a test takes int(N / T · (i + ½)),
    view v of several int(N / T · (i + v / views)). Training on fewer frames takes them as a test does; theirs took the
    first one T times.
    """
    at = np.arange(rule.frames, dtype=np.int64)
    if rule.train and count >= rule.frames:
        segment = count // rule.frames
        draws = [draw_below(seed, segment, stream=SAMPLING, counter=i) for i in range(rule.frames)]
        return at * segment + np.array(draws, np.int64)
    part, parts = (1, 2) if rule.views == 1 else (rule.view, rule.views)
    return count * (at * parts + part) // (rule.frames * parts)


def _lavila_dense(rule: PublishedRule, count: int, seed: int) -> FrameIds:
    """LaViLa's EGTEA and Charades: a random start in training, linspaced ones in a test; a short video is padded."""
    spare = max(count - rule.frames * rule.stride, 0)
    start = _start(spare, seed) if rule.train else rule.view * spare // max(rule.views - 1, 1)
    found = start + _steps(rule)
    return np.where(found < count, found, PADDING)


PUBLISHED: dict[str, _Rule] = {
    "avion_sparse": _Rule(_avion_sparse, ("train", "test")),
    "avion_dense": _Rule(_of_span(_avion_dense), ("train", "stride")),
    "avion_views": _Rule(_of_span(_avion_views), ("test", "stride", "views")),
    "lavila_segments": _Rule(_lavila_segments, ("train", "test")),
    "lavila_dense": _Rule(_of_span(_lavila_dense), ("train", "test", "stride", "views")),
    "videomae_dense": _Rule(_of_span(_videomae_dense), ("train", "stride")),
    "videomae_finetune": _Rule(_of_span(_videomae_finetune), ("train", "stride")),
    "videomae_views": _Rule(_of_span(_videomae_views), ("test", "stride", "views")),
    "tsn_segments": _Rule(_of_span(_tsn_segments), ("train", "test", "views")),
}
