"""Buckets: samples of videos of many shapes, grouped so that each group's clips have one size that keeps the aspect.

A batch is one array, so its clips have one size; a loader over each bucket gives batches that lose and pad nothing. (To
put many shapes in one batch instead, ask for framefeed.crops.Letterbox and use Batch.pixel_mask.) It knows no servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.draws import ORDER, permutation
from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from framefeed.request import MAX_SIDE_PX
from trainer_client.samples import Dataset, Sample

Indices = npt.NDArray[np.int64]


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
            raise BadInput(f"size: multiple_px is {self.multiple_px}, wanted an even number from 2 to {MAX_SIDE_PX}")
        for name in ("short_side_px", "long_side_px"):
            side_px = getattr(self, name)
            if not 0 < side_px <= MAX_SIDE_PX or side_px % self.multiple_px:
                raise BadInput(
                    f"size: {name} is {side_px}, wanted a multiple of {self.multiple_px} up to {MAX_SIDE_PX}"
                )
        if self.long_side_px < self.short_side_px:
            raise BadInput(f"size: long_side_px is {self.long_side_px}, less than the short one, {self.short_side_px}")

    def size_px(self, width_px: int, height_px: int) -> tuple[int, int]:
        """(width, height) of the clips of a video whose displayed frames have this size."""
        short, long = sorted((width_px, height_px))
        steps = round(self.short_side_px * long / short / self.multiple_px)
        side_px = min(max(steps * self.multiple_px, self.short_side_px), self.long_side_px)
        return (side_px, self.short_side_px) if width_px >= height_px else (self.short_side_px, side_px)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bucket:
    """The samples whose clips are `width_px` by `height_px`: a Dataset, with their `indices` (int64) in the whole."""

    width_px: int
    height_px: int
    dataset: Dataset
    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> Sample:
        return self.dataset[int(self.indices[index])]


def bucket_by_size(dataset: Dataset, manifest: Manifest, size: ShortSide) -> list[Bucket]:
    """The dataset's samples by the size of their clips, smallest first; blocks while it looks at each sample once.

    Give each its own loader, with a ClipPolicy of its size. Raises BadInput for a sample of a video that the manifest
    does not list.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for index in range(len(dataset)):
        video = dataset[index].video
        entry = manifest.videos.get(video)
        if entry is None:
            raise BadInput(f"buckets: sample {index} is of {video!r}, which is not in the manifest")
        found.setdefault(size.size_px(entry.width_px, entry.height_px), []).append(index)
    return [
        Bucket(width_px=width_px, height_px=height_px, dataset=dataset, indices=np.array(indices, np.int64))
        for (width_px, height_px), indices in sorted(found.items())
    ]


def bucket_order(steps: Sequence[int], *, seed: int) -> Indices:
    """Which bucket feeds each step when bucket i is to feed steps[i]: int64 (sum,), shuffled by the seed.

    The same on all ranks, so all of them work on one size at a time. Blocks for 0.1 s a million steps.
    """
    owners = np.repeat(np.arange(len(steps), dtype=np.int64), np.array(steps, np.int64))
    return owners[permutation(seed, stream=ORDER, n=len(owners))]
