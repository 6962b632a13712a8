"""Crop policies: which box of a frame becomes the clip, and where in it. Pure functions of frame size and seed.

Every box lies inside the frame and on the chroma grid (even edges), so the box that is reported is the box that is
cut: libswscale silently rounds an odd offset of 4:2:0 video to an even one.
"""

from __future__ import annotations

import math

from msgspec import Struct

from framefeed.draws import CROP, draw_below, draw_log_uniform, draw_uniform
from framefeed.errors import BadRequest
from framefeed.policy import Policy
from framefeed.spans import check_view

_TRIES = 10
_MAX_SIDE_PX = 16384


class Box(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class RandomResizedCrop(Policy, frozen=True, kw_only=True, tag="random_resized"):
    """A box of random area and aspect ratio (Szegedy et al. 2015, as torchvision and AVION draw it).

    Up to ten draws of area = frame area x U(scale) and ratio log-uniform in `ratio` (width over height); the first
    that fits is placed uniformly; if none fits, the centre box of the nearest allowed ratio.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        for name, pair in (("scale", self.scale), ("ratio", self.ratio)):
            if len(pair) != 2 or not all(isinstance(number, int | float) for number in pair):
                raise BadRequest(f"crop: {name} is {pair}, wanted two numbers")
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


class ResizedCentreCrop(Policy, frozen=True, kw_only=True, tag="resized_centre"):
    """The largest centred box of `ratio` (width over height); resized to the output it loses no short side."""

    ratio: float = 1.0

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size; the seed is not used."""
        del seed
        w, h = _largest(width_px, height_px, self.ratio)
        return snap((width_px - w) // 2, (height_px - h) // 2, w, h)


class ExplicitBox(Policy, frozen=True, kw_only=True, tag="explicit"):
    """The given box, refused if it does not lie in the frame; odd edges are snapped, and the reply says so."""

    box: Box

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box itself, on the chroma grid."""
        del seed
        b = self.box
        if b.x_px + b.width_px > width_px or b.y_px + b.height_px > height_px:
            raise BadRequest(f"crop: box {b} does not lie in the {width_px}x{height_px} frame")
        return snap(b.x_px, b.y_px, b.width_px, b.height_px)


class MultiScaleCrop(Policy, frozen=True, kw_only=True, tag="multi_scale"):
    """VideoMAE's and TSN's pre-training crop: sides of some shares of the short side, at one of 13 fixed places.

    Sides within 3 pixels of `snap_px` become it (0: none do); width and height are of neighbouring `shares`, every such
    pair equally likely; places are the corners, the edges' middles, the centre, and half way from it to each corner.
    """

    shares: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    snap_px: int = 224

    def __post_init__(self) -> None:
        if not (1 <= len(self.shares) <= 16 and all(0 < share <= 1 for share in self.shares)):
            raise BadRequest(f"crop: shares are {self.shares}, wanted 1 to 16 of them, more than 0 and at most 1")
        if not 0 <= self.snap_px <= _MAX_SIDE_PX:
            raise BadRequest(f"crop: snap_px is {self.snap_px}, wanted 0 to {_MAX_SIDE_PX}")

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size and a clip of this seed."""
        base = min(width_px, height_px)
        sides = [max(int(base * share), 2) for share in self.shares]
        sides = [min(self.snap_px, base) if self.snap_px and abs(side - self.snap_px) < 3 else side for side in sides]
        pairs = [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
        w, h = pairs[draw_below(seed, len(pairs), stream=CROP)]
        column, row = _PLACES[draw_below(seed, len(_PLACES), stream=CROP, counter=1)]
        return snap((width_px - w) // 4 * column, (height_px - h) // 4 * row, w, h)


_PLACES = (
    *((x, y) for y in (0, 2, 4) for x in (0, 2, 4)),
    *((x, y) for y in (1, 3) for x in (1, 3)),
)  # in quarters of the room beside the box


class RandomCrop(Policy, frozen=True, kw_only=True, tag="random"):
    """A box of this size, placed uniformly; a frame that is smaller is refused."""

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        _check_size(self.width_px, self.height_px)

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size and a clip of this seed. Raises BadRequest if it does not fit."""
        x_room, y_room = _room(self, width_px, height_px)
        x, y = draw_below(seed, x_room + 1, stream=CROP), draw_below(seed, y_room + 1, stream=CROP, counter=1)
        return snap(x, y, self.width_px, self.height_px)


class CentreCrop(Policy, frozen=True, kw_only=True, tag="centre"):
    """The centred box of this size, at the scale of the frame if the clip has it too; a smaller frame is refused."""

    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        _check_size(self.width_px, self.height_px)

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size; the seed is not used. Raises BadRequest if it does not fit."""
        del seed
        x_room, y_room = _room(self, width_px, height_px)
        return snap(x_room // 2, y_room // 2, self.width_px, self.height_px)


class ViewCrop(Policy, frozen=True, kw_only=True, tag="view"):
    """Box `view` of `views` such as ResizedCentreCrop takes, spread evenly from edge to edge; one is centred.

    Three of a wide frame are left, centre and right; of a high one top, middle and bottom.
    """

    view: int
    views: int = 3
    ratio: float = 1.0

    def __post_init__(self) -> None:
        check_view(self.view, self.views)
        _check_ratio(self.ratio)

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size; the seed is not used."""
        del seed
        w, h = _largest(width_px, height_px, self.ratio)
        part, parts = (1, 2) if self.views == 1 else (self.view, self.views - 1)
        return snap((width_px - w) * part // parts, (height_px - h) * part // parts, w, h)


class WholeFrame(Policy, frozen=True, kw_only=True, tag="whole"):
    """All of the frame, less one row or column where its size is odd; resized to the clip without regard to aspect."""

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size; the seed is not used."""
        del seed
        return snap(0, 0, width_px, height_px)


class Letterbox(Policy, frozen=True, kw_only=True, tag="letterbox"):
    """All of the frame, as large as the clip's picture holds it without changing its aspect; the rest is black.

    The picture lies in the middle, or from the top left corner if not `centred`, which is what padding a batch of
    pictures of many shapes to one needs. ClipInfo.placed says where.
    """

    centred: bool = True

    def choose(self, width_px: int, height_px: int, seed: int) -> Box:
        """The box for a frame of this size; the seed is not used."""
        del seed
        return snap(0, 0, width_px, height_px)

    def place(self, box: Box, width_px: int, height_px: int) -> Box:
        """Where the box lies in a clip of this size, on its chroma grid."""
        w = min(width_px, 2 * round(height_px * box.width_px / box.height_px / 2))
        h = min(height_px, 2 * round(width_px * box.height_px / box.width_px / 2))
        w, h = max(w, 2), max(h, 2)
        return snap((width_px - w) // 2, (height_px - h) // 2, w, h) if self.centred else snap(0, 0, w, h)


Crop = (
    RandomResizedCrop
    | ResizedCentreCrop
    | MultiScaleCrop
    | RandomCrop
    | CentreCrop
    | ViewCrop
    | WholeFrame
    | Letterbox
    | ExplicitBox
)


def snap(x: int, y: int, w: int, h: int) -> Box:
    """The box with all edges rounded down to even pixels, at least 2x2: it never leaves the frame."""
    return Box(x_px=x & ~1, y_px=y & ~1, width_px=max(w & ~1, 2), height_px=max(h & ~1, 2))


def _largest(width_px: int, height_px: int, ratio: float) -> tuple[int, int]:
    """Width and height of the largest box of this ratio in a frame."""
    return min(width_px, round(height_px * ratio)), min(height_px, round(width_px / ratio))


def _room(crop: RandomCrop | CentreCrop, width_px: int, height_px: int) -> tuple[int, int]:
    if crop.width_px > width_px or crop.height_px > height_px:
        raise BadRequest(f"crop: {crop.width_px}x{crop.height_px} does not fit the {width_px}x{height_px} frame")
    return width_px - crop.width_px, height_px - crop.height_px


def _check_size(width_px: int, height_px: int) -> None:
    for name, side_px in (("width_px", width_px), ("height_px", height_px)):
        if not 2 <= side_px <= _MAX_SIDE_PX or side_px % 2:
            raise BadRequest(f"crop: {name} is {side_px}, wanted an even number from 2 to {_MAX_SIDE_PX}")


def _check_ratio(ratio: float) -> None:
    if not 0.01 <= ratio <= 100:
        raise BadRequest(f"crop: ratio is {ratio}, wanted 0.01 to 100")
