"""Buckets: samples of many shapes and durations, grouped by the size and length of their clips; it knows no servers.

A batch is one array, so its clips have one size and length: a ClipLoader over buckets makes each batch of one, in which
nothing is lost or padded. (To put many shapes in one batch instead, ask for framefeed.crops.Letterbox and use
Batch.pixel_mask; for lengths, for a sampling that pads and Batch.frame_mask.)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from framefeed.option_types import shown
from framefeed.request import MAX_SIDE_PX
from framefeed.spans import MAX_FRAMES
from trainer_client.clip_policy import ClipPolicy
from trainer_client.samples import Dataset, spans_of

Indices = npt.NDArray[np.int64]
Shape = tuple[int, int, int]
"""Frames, height and width of a clip."""
_ROUNDING = 1e-6  # seconds of an annotation, times a rate


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortSide:
    """The size whose short side is `short_side_px` and whose long one keeps the aspect, up to `long_side_px`.

    Both are multiples of `multiple_px` (of patches and tubelets, say), the long side by rounding to the nearest one, so
    a coarse multiple makes few buckets and bends the aspect by at most half of it. Raises BadInput for sides that are
    not.
    """

    short_side_px: int = 224
    multiple_px: int = 16
    long_side_px: int = 448

    def __post_init__(self) -> None:
        if not 2 <= self.multiple_px <= MAX_SIDE_PX or self.multiple_px % 2:
            said = f"is {self.multiple_px}, wanted an even number from 2 to {MAX_SIDE_PX}"
            raise BadInput(said, of="size", field="multiple_px")
        for name in ("short_side_px", "long_side_px"):
            side_px = getattr(self, name)
            if not 0 < side_px <= MAX_SIDE_PX or side_px % self.multiple_px:
                wanted = f"a multiple of {self.multiple_px} up to {MAX_SIDE_PX}"
                raise BadInput(f"is {side_px}, wanted {wanted}", of="size", field=name)
        if self.long_side_px < self.short_side_px:
            said = f"is {self.long_side_px}, less than the short one, {self.short_side_px}"
            raise BadInput(said, of="size", field="long_side_px")

    def size_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(width, height) of the clips of a video whose displayed frames have this size."""
        short, long = sorted((width_px, height_px))
        steps = round(self.short_side_px * long / short / self.multiple_px)
        side_px = min(max(steps * self.multiple_px, self.short_side_px), self.long_side_px)
        return (side_px, self.short_side_px) if width_px >= height_px else (self.short_side_px, side_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLengths:
    """How many frames a sample's clip has: the most of `frames` that it has the time for at `frames_per_s`, or the
    fewest where it has not the time for any. Raises BadInput for numbers that are none.
    """

    frames: tuple[int, ...]
    frames_per_s: float = 8.0

    def __post_init__(self) -> None:
        if not self.frames or list(self.frames) != sorted(set(self.frames)) or not 0 < self.frames[0] <= MAX_FRAMES:
            said = f"is {self.frames}, wanted numbers from 1 to {MAX_FRAMES} that grow"
            raise BadInput(said, of="lengths", field="frames")
        if not 0 < self.frames_per_s < math.inf:
            said = f"is {self.frames_per_s:g}, wanted a positive number"
            raise BadInput(said, of="lengths", field="frames_per_s")

    def numbers_of(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Which of `frames` the clips of samples have that last so long, int64 (samples,)."""
        at = np.searchsorted(np.array(self.frames), seconds * self.frames_per_s + _ROUNDING, side="right")
        return np.maximum(at - 1, 0)


class PolicyOf(Protocol):
    """Makes the policy of one shape of clips."""

    def __call__(self, *, frames: int, height_px: int, width_px: int) -> ClipPolicy: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Buckets:
    """What a ClipLoader takes in place of one policy: policy b makes the clips of the samples `members[b]`.

    `members` are int64 (samples,) each, numbers of samples of one data set. Every batch is of one bucket, every sample
    is used once an epoch, and a step is of the same bucket on all ranks.
    Raises BadInput for a bucket without samples, or not as many policies as buckets.
    """

    policies: tuple[ClipPolicy, ...]
    members: tuple[Indices, ...]

    def __post_init__(self) -> None:
        sizes = [len(members) for members in self.members]
        if not sizes or min(sizes) < 1 or len(self.policies) != len(sizes):
            raise BadInput(f"buckets: {len(self.policies)} policies for {sizes} samples, wanted at least one each")

    @property
    def clip_bytes(self) -> int:
        """Bytes of the largest clip."""
        return max(policy.clip_bytes for policy in self.policies)

    @cached_property
    def digest(self) -> str:
        """A hash of all policies and of which sample is whose."""
        whole = hashlib.blake2b(digest_size=8)
        for policy, members in zip(self.policies, self.members, strict=True):
            whole.update(f"{policy.digest} {len(members)}\n".encode())
            whole.update(members.astype("<i8").tobytes())
        return f"v1-{whole.hexdigest()}"

    def __str__(self) -> str:
        shapes = (f"{len(of)} of {policy.shape}" for policy, of in zip(self.policies, self.members, strict=True))
        return f"{len(self.members)} buckets: {', '.join(shapes)}"


def policies_of(policy: ClipPolicy | Buckets) -> tuple[tuple[ClipPolicy, ...], tuple[Indices, ...]]:
    """The policies, and the samples of each; none of one that makes the clips of all. Raises BadInput for neither."""
    if isinstance(policy, Buckets):
        return policy.policies, policy.members
    if isinstance(policy, ClipPolicy):
        return (policy,), ()
    raise BadInput(f"loader: policy is {shown(policy)}, wanted a ClipPolicy, or Buckets of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRule:
    """Which clips samples have: `size` says how large by the video's shape, `lengths` how long by the sample's seconds.

    A bucket of fewer than `at_least` samples, wanted: a global batch, joins the one whose clips are most alike, so that
    no batch has one sample several times.
    """

    size: ShortSide
    lengths: ClipLengths
    at_least: int = 1


def into_buckets(dataset: Dataset, manifest: Manifest, rule: BucketRule, policy_of: PolicyOf) -> Buckets:
    """The dataset's samples by the shape of their clips, shortest and smallest first. Blocks as `spans_of` does.

    Raises BadInput for a sample of a video that the manifest does not list.
    """
    spans = spans_of(dataset)
    sizes = [_size_of(video, manifest, rule.size) for video in spans.videos]
    known = sorted({size for size in sizes if size is not None})
    number_of = np.array([-1 if size is None else known.index(size) for size in sizes], np.int64)[spans.video_of]
    if (number_of < 0).any():
        index = int((number_of < 0).argmax())
        video = spans.videos[int(spans.video_of[index])]
        raise BadInput(f"buckets: sample {index} is of {video!r}, which is not in the manifest")
    shapes = [(frames, *size) for frames in rule.lengths.frames for size in known]
    bucket_of = rule.lengths.numbers_of(spans.seconds) * len(known) + number_of
    counts = {shape: count for shape, count in zip(shapes, np.bincount(bucket_of).tolist(), strict=False) if count}
    homes = _homes(counts, at_least=rule.at_least)
    kept = sorted(set(homes.values()))
    home_of = np.array([kept.index(homes[shape]) if shape in homes else -1 for shape in shapes])[bucket_of]
    return Buckets(
        policies=tuple(policy_of(frames=frames, height_px=height, width_px=width) for frames, height, width in kept),
        members=tuple(np.flatnonzero(home_of == number) for number in range(len(kept))),
    )


def _size_of(video: str | None, manifest: Manifest, size: ShortSide) -> tuple[int, int] | None:
    """(height, width) of a video's clips; None if it is not in the manifest."""
    entry = None if video is None else manifest.videos.get(video)
    if entry is None:
        return None
    width_px, height_px = size.size_px(entry.width_px, entry.height_px)
    return height_px, width_px


def _homes(counts: Mapping[Shape, int], *, at_least: int) -> dict[Shape, Shape]:
    """The shape whose bucket each shape's samples are in: the smallest buckets join others until all are large."""
    homes, left = {shape: shape for shape in counts}, dict(counts)
    while len(left) > 1 and min(left.values()) < at_least:
        small = min(left, key=lambda shape: (left[shape], shape))
        count = left.pop(small)
        near = min(left, key=lambda shape: (_unlike(small, shape), shape))
        left[near] += count
        homes = {shape: near if home == small else home for shape, home in homes.items()}
    return homes


def _unlike(one: Shape, other: Shape) -> float:
    """How much two shapes differ: by factors, axis by axis."""
    return sum(abs(math.log(a / b)) for a, b in zip(one, other, strict=True))
