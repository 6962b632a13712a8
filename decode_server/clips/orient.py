"""From the coded frame to the displayed one: rotation by quarter turns, and mirroring.

The codec's frames are not turned: the box is turned back to cut them (sample_grid.py does that), and the small
scaled planes are turned forward. Pure apart from writing into the arrays it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.crops import Box

Pixels = npt.NDArray[np.uint8]
_BLACK_I420 = {False: (16, 128, 128), True: (0, 128, 128)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """A counter-clockwise turn by `rotation_deg` (a multiple of 90), then a mirror image if `flipped`."""

    rotation_deg: int
    flipped: bool

    @property
    def turns(self) -> int:
        """Counter-clockwise quarter turns, 0 to 3."""
        return self.rotation_deg // 90 % 4

    @property
    def identity(self) -> bool:
        """Whether it leaves pictures as they are."""
        return not self.turns and not self.flipped

    def coded_shape(self, displayed: tuple[int, int]) -> tuple[int, int]:
        """The shape (Y, X) in coded orientation of what is displayed in a shape."""
        return (displayed[1], displayed[0]) if self.turns % 2 else displayed

    def write(self, coded: Sequence[Pixels], displayed: Sequence[Pixels]) -> None:
        """Turn and mirror planes in coded orientation into the displayed ones."""
        for source, target in zip(coded, displayed, strict=True):
            turned = np.rot90(source, self.turns) if self.turns else source
            target[...] = turned[:, ::-1] if self.flipped else turned


def i420_planes(frame: Pixels) -> list[Pixels]:
    """Views of the planes Y, U, V of an I420 frame (Y*3/2, X)."""
    height_px, width_px = frame.shape[0] * 2 // 3, frame.shape[1]
    flat = frame.reshape(-1)
    luma, chroma = height_px * width_px, height_px * width_px // 4
    half = (height_px // 2, width_px // 2)
    u, v = flat[luma : luma + chroma], flat[luma + chroma :]
    return [flat[:luma].reshape(height_px, width_px), u.reshape(half), v.reshape(half)]


def within(plane: Pixels, placed: Box | None, *, step: int = 1) -> Pixels:
    """View of a rectangle of a plane (Y, X, …) that has one sample for `step` pixels; of all of it without one."""
    if placed is None:
        return plane
    y, x = placed.y_px // step, placed.x_px // step
    return plane[y : y + placed.height_px // step, x : x + placed.width_px // step]


def blacken(frame: Pixels, *, full_range: bool) -> None:
    """Make a displayed frame black: zeros of RGB; of I420 the luma of black in its range, and no chroma."""
    if frame.ndim == 3:
        frame[...] = 0
        return
    for plane, value in zip(i420_planes(frame), _BLACK_I420[full_range], strict=True):
        plane[...] = value
