"""What a recipe says of its clips: which frames, which box, mirrored or not; knows no data, model or server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from framefeed.crops import CentreCrop, Crop, MultiScaleCrop, RandomResizedCrop, ResizedCentreCrop
from framefeed.sampling import Dense, Sampling, Segments
from framefeed.sampling_rules import PublishedRule
from trainer_client.clip_policy import ClipPolicy

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
    """Least and largest width over height of a random_resized crop."""
    hflip: float = 0.5
    """Probability that a clip is mirrored."""
    pixel_format: Literal["yuv420p", "rgb24"] = "yuv420p"
    """How clips travel: yuv420p is half the bytes, and the trainer's device converts it."""

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
            return Dense(frames=frames, stride=self.stride_frames)
        if self.sampling == "segments":
            return Segments(frames=frames, jitter=True)
        stride = self.stride_frames if self.sampling in _DENSE_RULES else 1
        return PublishedRule(rule=self.sampling, frames=frames, stride=stride, train=True)

    def _crop(self, height_px: int, width_px: int) -> Crop:
        if self.crop == "random_resized":
            return RandomResizedCrop(scale=self.crop_scale, ratio=self.crop_ratio)
        if self.crop == "multi_scale":
            return MultiScaleCrop(snap_px=min(height_px, width_px))
        if self.crop == "resized_centre":
            return ResizedCentreCrop(ratio=width_px / height_px)
        return CentreCrop(width_px=width_px, height_px=height_px)
