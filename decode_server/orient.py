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
_BLACK_RGB = (0, 0, 0)
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

    def coded_planes(self, displayed: Sequence[Pixels]) -> Sequence[Pixels]:
        """Where to scale to, in coded orientation: the displayed planes (Y, X) themselves if that is what they are.

        New planes if the picture is turned or mirrored, or the displayed planes are not contiguous (interleaved RGB).
        """
        if not self.turns and not self.flipped and all(plane.flags.c_contiguous for plane in displayed):
            return displayed
        step = -1 if self.turns % 2 else 1
        return [np.empty(plane.shape[::step], np.uint8) for plane in displayed]

    def write(self, coded: Sequence[Pixels], displayed: Sequence[Pixels]) -> None:
        """Turn and mirror the coded planes into the displayed ones; nothing to do when they are the same."""
        if coded is displayed:
            return
        for source, target in zip(coded, displayed, strict=True):
            turned = np.rot90(source, self.turns)
            target[...] = turned[:, ::-1] if self.flipped else turned


def planes_of(frame: Pixels) -> list[Pixels]:
    """Views of a displayed frame's planes: green, blue, red of RGB (Y, X, 3), or Y, U, V of I420 (Y*3/2, X)."""
    if frame.ndim == 3:
        return [frame[..., 1], frame[..., 2], frame[..., 0]]
    height_px, width_px = frame.shape[0] * 2 // 3, frame.shape[1]
    flat = frame.reshape(-1)
    luma, chroma = height_px * width_px, height_px * width_px // 4
    half = (height_px // 2, width_px // 2)
    u, v = flat[luma : luma + chroma], flat[luma + chroma :]
    return [flat[:luma].reshape(height_px, width_px), u.reshape(half), v.reshape(half)]


def planes_within(frame: Pixels, placed: Box | None) -> list[Pixels]:
    """Views as `planes_of`, of a rectangle on the chroma grid of the frame; of all of it without one."""
    planes = planes_of(frame)
    if placed is None:
        return planes
    height_px, width_px = planes[0].shape
    within = []
    for plane in planes:
        y_step, x_step = height_px // plane.shape[0], width_px // plane.shape[1]
        y, x = placed.y_px // y_step, placed.x_px // x_step
        within.append(plane[y : y + placed.height_px // y_step, x : x + placed.width_px // x_step])
    return within


def blacken(frame: Pixels, *, full_range: bool) -> None:
    """Make a displayed frame black: zeros of RGB; of I420 the luma of black in its range, and no chroma."""
    for plane, value in zip(planes_of(frame), _BLACK_RGB if frame.ndim == 3 else _BLACK_I420[full_range], strict=True):
        plane[...] = value
