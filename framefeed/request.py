"""ClipRequest: a pure description of one clip. The same request gives the same bytes from any server, at any attempt.

It knows neither files nor servers; everything random about the clip follows from its seed.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from msgspec import Struct

from framefeed.crops import Box, Crop, Letterbox
from framefeed.draws import FLIP, draw_uniform
from framefeed.errors import BadRequest
from framefeed.sampling import Sampling
from framefeed.show_value import show_value

PixelFormat = Literal["rgb24", "yuv420p"]
Interpolation = Literal["bilinear", "bicubic"]
MAX_SIDE_PX = 4096
MAX_CLIP_BYTES = 1 << 28
MAX_VIDEO_NAME_BYTES = 512


class ClipRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One clip: the span [start_s, end_s) of `video`, T frames of it, one crop for all of them, one output size.

    `rgb24` clips are uint8 (T, Y, X, 3); `yuv420p` clips are uint8 (T, Y*3/2, X): per frame the I420 planes, with the
    source's own matrix and range, which the Clip names. Frames and rows that the source does not fill (see `sampling`
    and `crop`) are black. `interpolation` is antialiased where the box shrinks; bicubic is Catmull-Rom's (a = -1/2).
    Raises BadRequest when a field is out of its limits.
    """

    video: str
    start_s: float
    end_s: float
    sampling: Sampling
    crop: Crop
    width_px: int
    height_px: int
    seed: int = 0
    hflip_probability: float = 0.0
    pixel_format: PixelFormat = "rgb24"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if not 0 < _utf8_bytes(self.video) <= MAX_VIDEO_NAME_BYTES:
            raise BadRequest(
                f"request: video name has {len(self.video)} characters, wanted 1 to {MAX_VIDEO_NAME_BYTES}"
            )
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and 0 <= self.start_s < self.end_s):
            raise BadRequest(
                f"request: span of {self.video} is [{self.start_s:g}, {self.end_s:g}) s, wanted 0 <= start < end"
            )
        for name, side_px in (("width_px", self.width_px), ("height_px", self.height_px)):
            if not 2 <= side_px <= MAX_SIDE_PX or side_px % 2:
                raise BadRequest(f"request: {name} is {side_px}, wanted an even number from 2 to {MAX_SIDE_PX}")
        if not 0 <= self.seed < 1 << 64:
            raise BadRequest(f"request: seed is {self.seed}, wanted 0 to 2**64 - 1")
        if not 0 <= self.hflip_probability <= 1:
            raise BadRequest(f"request: hflip_probability is {self.hflip_probability}, wanted 0 to 1")
        if self.pixel_format not in ("rgb24", "yuv420p"):
            raise BadRequest(f"request: pixel_format is {show_value(self.pixel_format)}, wanted 'rgb24' or 'yuv420p'")
        if self.interpolation not in get_args(Interpolation):
            raise BadRequest(
                f"request: interpolation is {show_value(self.interpolation)}, wanted 'bilinear' or 'bicubic'"
            )
        if self.clip_bytes > MAX_CLIP_BYTES:
            raise BadRequest(f"request: the clip would be {self.clip_bytes} bytes, wanted at most {MAX_CLIP_BYTES}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the clip's uint8 array, whatever the source: short spans and letterboxes are filled, not cut."""
        t, y, x = self.sampling.frames, self.height_px, self.width_px
        return (t, y, x, 3) if self.pixel_format == "rgb24" else (t, y * 3 // 2, x)

    @property
    def clip_bytes(self) -> int:
        """Bytes of the clip's pixels."""
        return math.prod(self.shape)

    @property
    def frames_key(self) -> tuple[object, ...]:
        """What decides the frames: requests with equal keys have the same ones, whatever becomes of them."""
        sampling = self.sampling
        draws = getattr(sampling, "jitter", getattr(sampling, "train", False))
        return self.video, self.start_s, self.end_s, sampling, self.seed if draws else 0

    @property
    def flipped(self) -> bool:
        """Whether this clip is mirrored left to right: a draw of its seed."""
        return draw_uniform(self.seed, stream=FLIP) < self.hflip_probability

    def placed(self, box: Box) -> Box | None:
        """Where in the clip's picture this box of the frame lies; None if it fills it."""
        if not isinstance(self.crop, Letterbox):
            return None
        place = self.crop.place(box, self.width_px, self.height_px)
        return None if (place.width_px, place.height_px) == (self.width_px, self.height_px) else place


def _utf8_bytes(video: str) -> int:
    """How long a name is on the wire; a file name that is no text, as Python spells it, cannot travel."""
    try:
        return len(video.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"request: video name {show_value(video)} is no Unicode text") from None
