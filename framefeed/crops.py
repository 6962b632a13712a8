"""Crop policies: which box of a frame becomes the clip. Pure functions of frame size and seed.

Every box lies inside the frame and on the chroma grid (even edges), so the box that is reported is the box that is
cut: libswscale silently rounds an odd offset of 4:2:0 video to an even one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from framefeed.draws import CROP, draw_below, draw_log_uniform, draw_uniform
from framefeed.errors import BadRequest

_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle of a displayed frame, in pixels from its top left corner."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        if self.x_px < 0 or self.y_px < 0 or self.width_px < 2 or self.height_px < 2:
            raise BadRequest(f"box: {self} has a negative corner or is smaller than 2x2 pixels")

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}+{self.x_px}+{self.y_px}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomResizedCrop:
    """A box of random area and aspect ratio (Szegedy et al. 2015, as torchvision and AVION draw it).

    Up to ten draws of area = frame area x U(scale) and ratio log-uniform in `ratio` (width over height); the first
    that fits is placed uniformly; if none fits, the centre box of the nearest allowed ratio.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise BadRequest(f"crop: scale is {self.scale}, wanted 0 < low <= high <= 1")
        if not 0.01 <= self.ratio[0] <= self.ratio[1] <= 100:
            raise BadRequest(f"crop: ratio is {self.ratio}, wanted 0.01 <= low <= high <= 100")

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size and a clip of this seed."""
        for attempt in range(_TRIES):
            at = 4 * attempt
            area = draw_uniform(seed, stream=CROP, counter=at, low=self.scale[0], high=self.scale[1])
            ratio = draw_log_uniform(seed, stream=CROP, counter=at + 1, low=self.ratio[0], high=self.ratio[1])
            w = round(math.sqrt(width_px * height_px * area * ratio))
            h = round(math.sqrt(width_px * height_px * area / ratio))
            if 2 <= w <= width_px and 2 <= h <= height_px:
                x = draw_below(seed, width_px - w + 1, stream=CROP, counter=at + 2)
                y = draw_below(seed, height_px - h + 1, stream=CROP, counter=at + 3)
                return snap(x, y, w, h)
        ratio = min(max(width_px / height_px, self.ratio[0]), self.ratio[1])
        w, h = min(width_px, round(height_px * ratio)), min(height_px, round(width_px / ratio))
        return snap((width_px - w) // 2, (height_px - h) // 2, w, h)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedCentreCrop:
    """The largest centred box of `ratio` (width over height); resized to the output it loses no short side."""

    ratio: float = 1.0

    def __post_init__(self) -> None:
        if not 0.01 <= self.ratio <= 100:
            raise BadRequest(f"crop: ratio is {self.ratio}, wanted 0.01 to 100")

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size; the seed is not used."""
        del seed
        w, h = min(width_px, round(height_px * self.ratio)), min(height_px, round(width_px / self.ratio))
        return snap((width_px - w) // 2, (height_px - h) // 2, w, h)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitBox:
    """The given box, refused if it does not lie in the frame; odd edges are snapped, and the reply says so."""

    box: Box

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box itself, on the chroma grid."""
        del seed
        b = self.box
        if b.x_px + b.width_px > width_px or b.y_px + b.height_px > height_px:
            raise BadRequest(f"crop: box {b} does not lie in the {width_px}x{height_px} frame")
        return snap(b.x_px, b.y_px, b.width_px, b.height_px)


Crop = RandomResizedCrop | ResizedCentreCrop | ExplicitBox


def snap(x: int, y: int, w: int, h: int) -> Box:
    """The box with all edges rounded down to even pixels, at least 2x2: it never leaves the frame."""
    return Box(x_px=x & ~1, y_px=y & ~1, width_px=max(w & ~1, 2), height_px=max(h & ~1, 2))
