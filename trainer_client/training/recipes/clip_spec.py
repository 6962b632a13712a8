"""What a recipe says of its clips: which frames, which box, mirrored or not; knows no data, model or server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from framefeed.crops import CentreCrop, Crop, MultiScaleCrop, RandomResizedCrop, ResizedCentreCrop
from framefeed.errors import BadInput, fields_named
from framefeed.request import MAX_SIDE_PX
from framefeed.sampling import Dense, Sampling, Segments
from framefeed.sampling_rules import PublishedRule
from framefeed.spans import MAX_STRIDE_FRAMES
from framefeed_models.tubelets import TubeletGrid
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.buckets import BucketRule, ClipLengths, ShortSide

_DENSE_RULES = ("avion_dense", "videomae_dense", "videomae_finetune")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """How clips are made of samples; the model says how many frames of what size."""

    sampling: Literal[
        "dense",
        "segments",
        "avion_sparse",
        "avion_dense",
        "lavila_segments",
        "videomae_dense",
        "videomae_finetune",
        "tsn_segments",
    ] = "dense"
    """Which frames: a random window of them (dense), one of each segment of the sample, or a published rule."""
    stride_frames: int = 4
    """Distance between two frames of a clip, in frames of the video; sparse rules (segments, avion_sparse,
    lavila_segments, tsn_segments) have none."""
    crop: Literal["random_resized", "multi_scale", "resized_centre", "centre"] = "random_resized"
    """Which box: of random area and shape, one of VideoMAE's sizes and places, the largest centred one, or the centred
    one at the frame's own scale."""
    crop_scale: tuple[float, float] = (0.5, 1.0)
    """Least and largest share of the picture's area that a random_resized crop takes."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width over height of a random_resized crop of a square clip; others' are in proportion."""
    hflip: float = 0.5
    """Probability that a clip is mirrored."""
    pixel_format: Literal["yuv420p", "rgb24"] = "yuv420p"
    """How clips travel: yuv420p is half the bytes, and the trainer's device converts it."""
    short: Literal["hold", "loop", "pad"] = "hold"
    """Where a sample has fewer frames than a dense clip: the last again (hold), all again (loop), or none (pad): then
    tokens of frames that are not there are neither computed nor attended to (--family clip or videomae, no mixup)."""
    buckets: bool = False
    """Batches of clips of one size and length each, as videos and samples ask for; the model's is the short side."""
    longest_px: int = 448
    """Of buckets: the most that the long side may have."""
    lengths: tuple[int, ...] = ()
    """Of buckets: how many frames clips may have; a sample's has the most that it lasts for. Default: the model's."""
    frames_per_s: float = 8.0
    """Of buckets: how many frames a second of a sample is worth."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("stride_frames", 1, MAX_STRIDE_FRAMES),
            ("longest_px", 2, MAX_SIDE_PX),
            ("hflip", 0, 1),
        ):
            if not least <= getattr(self, name) <= most:
                raise BadInput(f"is {getattr(self, name):g}, wanted {least} to {most}", of="clips", field=name)
        for name, lowest, highest in (("crop_scale", 0.0, 1.0), ("crop_ratio", 0.01, 100.0)):
            low, high = getattr(self, name)
            if not (low > 0 and lowest <= low <= high <= highest):
                said = f"is {low:g} {high:g}, wanted {lowest:g} < low <= high <= {highest:g}"
                raise BadInput(said, of="clips", field=name)
        with fields_named(frames="lengths"):
            ClipLengths(frames=self.lengths or (1,), frames_per_s=self.frames_per_s)
        if self.short != "hold" and self.sampling != "dense":
            raise BadInput(f"--short is {self.short} and --sampling {self.sampling}, wanted dense, or hold")
        if self.lengths and not self.buckets:
            raise BadInput(f"--lengths is {self.lengths} without --buckets, wanted both")
        if self.buckets and self.crop == "multi_scale":
            raise BadInput("--buckets with --crop multi_scale, whose boxes are of square clips; wanted another crop")

    @property
    def pads(self) -> bool:
        """Whether clips may have frames that are none."""
        return self.short == "pad"

    def bucket_rule(self, grid: TubeletGrid, *, at_least: int) -> BucketRule:
        """Which clips samples have, for a model of this grid; buckets of fewer samples join others.

        Raises BadInput for sizes and lengths that its cubes do not tile.
        """
        lengths = self.lengths or (grid.frames,)
        if any(frames % grid.tubelet_frames for frames in lengths):
            raise BadInput(f"--lengths is {lengths}, wanted multiples of the {grid.tubelet_frames} frames of a cube")
        with fields_named(frames="lengths", short_side_px="size_px", long_side_px="longest_px"):
            size = ShortSide(
                short_side_px=min(grid.height_px, grid.width_px),
                multiple_px=grid.patch_px,
                long_side_px=self.longest_px // grid.patch_px * grid.patch_px,
            )
            return BucketRule(
                size=size, lengths=ClipLengths(frames=lengths, frames_per_s=self.frames_per_s), at_least=at_least
            )

    def policy(self, *, frames: int, height_px: int, width_px: int) -> ClipPolicy:
        """The clips of a model that takes so many frames. Raises BadRequest for a size or stride out of its limits."""
        return ClipPolicy(
            sampling=self._sampling(frames),
            crop=self._crop(height_px, width_px),
            width_px=width_px,
            height_px=height_px,
            hflip_probability=self.hflip,
            pixel_format=self.pixel_format,
        )

    def _sampling(self, frames: int) -> Sampling:
        if self.sampling == "dense":
            return Dense(frames=frames, stride=self.stride_frames, short=self.short)
        if self.sampling == "segments":
            return Segments(frames=frames, jitter=True)
        stride = self.stride_frames if self.sampling in _DENSE_RULES else 1
        return PublishedRule(rule=self.sampling, frames=frames, stride=stride, train=True)

    def _crop(self, height_px: int, width_px: int) -> Crop:
        if self.crop == "random_resized":
            least, most = (ratio * width_px / height_px for ratio in self.crop_ratio)
            return RandomResizedCrop(scale=self.crop_scale, ratio=(least, most))
        if self.crop == "multi_scale":
            return MultiScaleCrop(snap_px=min(height_px, width_px))
        if self.crop == "resized_centre":
            return ResizedCentreCrop(ratio=width_px / height_px)
        return CentreCrop(width_px=width_px, height_px=height_px)
