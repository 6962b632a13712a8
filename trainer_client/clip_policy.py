"""ClipPolicy: how a sample becomes a ClipRequest; knows neither the order of samples nor who answers.

One policy makes clips of one shape, so a batch of them is one array.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from framefeed.crops import Crop
from framefeed.request import ClipRequest, Interpolation, PixelFormat
from framefeed.sampling import Sampling
from trainer_client.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPolicy:
    """Which frames, which box, which size and pixel format. Raises BadRequest when a field is out of its limits."""

    sampling: Sampling
    crop: Crop
    width_px: int = 224
    height_px: int = 224
    hflip_probability: float = 0.0
    pixel_format: PixelFormat = "rgb24"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        self.request(Sample(video="any", start_s=0.0, end_s=1.0), seed=0)

    def request(self, sample: Sample, seed: int) -> ClipRequest:
        """The request for one sample; `seed` is framefeed.draws.clip_seed of (run seed, epoch, index)."""
        return ClipRequest(
            video=sample.video,
            start_s=sample.start_s,
            end_s=sample.end_s,
            sampling=self.sampling,
            crop=self.crop,
            width_px=self.width_px,
            height_px=self.height_px,
            seed=seed,
            hflip_probability=self.hflip_probability,
            pixel_format=self.pixel_format,
            interpolation=self.interpolation,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one clip, uint8: (T, Y, X, 3) rgb24 or (T, Y*3/2, X) yuv420p."""
        return self.request(Sample(video="any", start_s=0.0, end_s=1.0), seed=0).shape

    @property
    def clip_bytes(self) -> int:
        """Bytes of one clip."""
        return math.prod(self.shape)
