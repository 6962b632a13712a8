"""ClipPolicy: how a sample becomes a ClipRequest; knows neither the order of samples nor who answers.

One policy makes clips of one shape, so a batch of them is one array.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from framefeed.crops import Crop, ViewCrop
from framefeed.errors import BadRequest
from framefeed.option_types import settle_types
from framefeed.request import ClipRequest, Interpolation, PixelFormat
from framefeed.sampling import DenseView, Sampling
from framefeed.sampling_rules import PublishedRule
from trainer_client.samples import Sample

_Part = TypeVar("_Part", bound=Sampling | Crop)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPolicy:
    """Which frames, which box, which size and pixel format. Raises BadRequest when a field is out of its limits.

    A sampling or a crop of several views has all of them for samples to choose from; one whose `view` is not 0 has that
    one only.
    """

    sampling: Sampling
    crop: Crop
    width_px: int = 224
    height_px: int = 224
    hflip_probability: float = 0.0
    pixel_format: PixelFormat = "rgb24"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        settle_types(self, what="policy", error=BadRequest)
        self.request(Sample(video="any", start_s=0.0, end_s=1.0), seed=0)

    def request(self, sample: Sample, seed: int) -> ClipRequest:
        """The request for one sample; `seed` is framefeed.draws.clip_seed of (run seed, epoch, index).

        The crops of one window of frames are neighbours among the sample's views: servers may decode them together.
        Raises BadRequest for a view that the policy has not.
        """
        if not 0 <= sample.view < self.views:
            raise BadRequest(
                f"policy: view of [{sample.start_s:g}, {sample.end_s:g}) s of {sample.video} is {sample.view}, "
                f"wanted 0 to {self.views - 1}"
            )
        window, box = divmod(sample.view, _views(self.crop))
        return ClipRequest(
            video=sample.video,
            start_s=sample.start_s,
            end_s=sample.end_s,
            sampling=_at(self.sampling, window),
            crop=_at(self.crop, box),
            width_px=self.width_px,
            height_px=self.height_px,
            seed=seed,
            hflip_probability=self.hflip_probability,
            pixel_format=self.pixel_format,
            interpolation=self.interpolation,
        )

    @property
    def views(self) -> int:
        """Clips that make up one sample: windows of its frames x boxes of each; trainer_client.views lists them."""
        return _views(self.sampling) * _views(self.crop)

    @property
    def digest(self) -> str:
        """A hash of all that it says: policies of one digest make the same clips of the same samples."""
        spelled = msgspec.json.encode(self.request(Sample(video="any", start_s=0.0, end_s=1.0), seed=0))
        return f"v1-{hashlib.blake2b(spelled, digest_size=8).hexdigest()}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one clip, uint8: (T, Y, X, 3) rgb24 or (T, Y*3/2, X) yuv420p."""
        return self.request(Sample(video="any", start_s=0.0, end_s=1.0), seed=0).shape

    @property
    def clip_bytes(self) -> int:
        """Bytes of one clip."""
        return math.prod(self.shape)


def _views(part: Sampling | Crop) -> int:
    return part.views if isinstance(part, DenseView | PublishedRule | ViewCrop) and part.view == 0 else 1


def _at(part: _Part, view: int) -> _Part:
    return replace(part, view=view) if view and isinstance(part, DenseView | PublishedRule | ViewCrop) else part
