"""From the coded frame to the displayed one: rotation by quarter turns, and mirroring.

Boxes and outputs are in displayed pixels; the codec's frames are not turned, so the box is turned back and the small
scaled result is turned forward. Pure apart from writing into the arrays it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framefeed.crops import Box

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """A counter-clockwise turn by `rotation_deg` (a multiple of 90), then a mirror image if `flipped`."""

    rotation_deg: int
    flipped: bool

    @property
    def turns(self) -> int:
        """Counter-clockwise quarter turns, 0 to 3."""
        return self.rotation_deg // 90 % 4

    def coded_box(self, box: Box, width_px: int, height_px: int) -> Box:
        """The box of the displayed frame as a box of the coded frame of this size."""
        x, y, w, h = box.x_px, box.y_px, box.width_px, box.height_px
        if self.turns == 1:
            return Box(x_px=width_px - y - h, y_px=x, width_px=h, height_px=w)
        if self.turns == 2:
            return Box(x_px=width_px - x - w, y_px=height_px - y - h, width_px=w, height_px=h)
        if self.turns == 3:
            return Box(x_px=y, y_px=height_px - x - w, width_px=h, height_px=w)
        return box

    def coded_target(self, displayed: Pixels) -> Pixels:
        """Where to scale to: the displayed frame itself if nothing turns it, else a new frame in coded orientation.

        Frames are uint8 (Y, X, 3) RGB or (Y*3/2, X) I420.
        """
        if not self.turns and not self.flipped:
            return displayed
        if self.turns % 2 == 0:
            return np.empty_like(displayed)
        if displayed.ndim == 3:
            return np.empty((displayed.shape[1], displayed.shape[0], 3), np.uint8)
        height_px = displayed.shape[0] * 2 // 3
        return np.empty((displayed.shape[1] * 3 // 2, height_px), np.uint8)

    def write(self, coded: Pixels, displayed: Pixels) -> None:
        """Turn and mirror `coded` into `displayed`; nothing to do when they are the same frame."""
        if coded is displayed:
            return
        for source, target in zip(_planes(coded), _planes(displayed), strict=True):
            turned = np.rot90(source, self.turns)
            target[...] = turned[:, ::-1] if self.flipped else turned


def _planes(frame: Pixels) -> Iterator[Pixels]:
    """The frame itself if RGB, else views of its Y, U and V planes."""
    if frame.ndim == 3:
        yield frame
        return
    height_px, width_px = frame.shape[0] * 2 // 3, frame.shape[1]
    flat = frame.reshape(-1)
    luma, chroma = height_px * width_px, height_px * width_px // 4
    yield flat[:luma].reshape(height_px, width_px)
    yield flat[luma : luma + chroma].reshape(height_px // 2, width_px // 2)
    yield flat[luma + chroma :].reshape(height_px // 2, width_px // 2)
