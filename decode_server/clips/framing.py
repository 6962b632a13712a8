"""One kept frame into its place in the clip: cut out, scaled, turned and mirrored, in the clip's pixel format.

It decides nothing: box, place and orientation are the plan's. It knows neither packets nor files.
"""

from __future__ import annotations

import av
import numpy as np

from decode_server.clips.orient import Orientation, Pixels, blacken, i420_planes, within
from decode_server.clips.plan import ClipPlan
from decode_server.clips.swscale import Picture, Scaler
from decode_server.media.packet_index import PacketIndex
from framefeed.clip import Colour


class Framing:
    """How the frames of one chunk come into a clip of frames (Y, X, 3) RGB or (Y*3/2, X) I420. For one thread."""

    def __init__(
        self, scaler: Scaler, plan: ClipPlan, index: PacketIndex, *, colour: Colour, frame_shape: tuple[int, ...]
    ) -> None:
        """`colour` is the frames' own. Raises UnsupportedMedia if the picture cannot be scaled."""
        self._scaler, self._placed, self._full_range = scaler, plan.placed, index.colour.full_range
        self._orientation = Orientation(rotation_deg=index.rotation_deg, flipped=plan.flipped != index.mirrored)
        self._rgb = len(frame_shape) == 3
        height_px, width_px = frame_shape[:2] if self._rgb else (frame_shape[0] * 2 // 3, frame_shape[1])
        if plan.placed is not None:
            height_px, width_px = plan.placed.height_px, plan.placed.width_px
        coded_height_px, coded_width_px = self._orientation.coded_shape((height_px, width_px))
        self._cut = scaler.cut(
            Picture(decoder=index.decoder, pixel_format=index.pixel_format, colour=colour),
            index.grid.coded_box(plan.box),
            (coded_width_px, coded_height_px),
            colour=None if self._rgb else plan.colour,
            interpolation=plan.interpolation,
        )
        steps = (1, 1, 1) if self._rgb else (1, 2, 2)
        self._coded = [np.empty((coded_height_px // n, coded_width_px // n), np.uint8) for n in steps]
        turned = self._rgb and not self._orientation.identity
        self._turned = [np.empty((height_px, width_px), np.uint8) for _ in steps] if turned else self._coded

    def write(self, frame: av.VideoFrame, out: Pixels) -> None:
        """Write the frame into its place; around a letterboxed picture, black."""
        if self._placed is not None:
            blacken(out, full_range=self._full_range)
        if self._rgb:
            self._write_rgb(frame, within(out, self._placed))
        else:
            y, u, v = i420_planes(out)
            placed = self._placed
            self._write_i420(frame, [within(y, placed), within(u, placed, step=2), within(v, placed, step=2)])

    def _write_rgb(self, frame: av.VideoFrame, out: Pixels) -> None:
        self._cut.write(frame, self._coded)
        if self._turned is not self._coded:
            self._orientation.write(self._coded, self._turned)
        self._scaler.interleave(self._turned, out)

    def _write_i420(self, frame: av.VideoFrame, out: list[Pixels]) -> None:
        direct = self._orientation.identity and all(plane.flags.c_contiguous for plane in out)
        self._cut.write(frame, out if direct else self._coded)
        if not direct:
            self._orientation.write(self._coded, out)
