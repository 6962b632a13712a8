"""Writes pictures to files that are whole or not there: one as PNG, several as an MP4; knows no clips."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from framefeed.cli.drawing import Picture
from framefeed.new_file import NewFile

_CRF = "15"  # so little is lost that what looks odd was so before


def write_png(path: Path, picture: Picture) -> None:
    """Write one picture; blocks until it is on storage. Raises OSError."""
    height_px, width_px = picture.shape[:2]
    with NewFile(path) as new:
        with av.open(new.file, "w", format="image2pipe") as container:
            stream = container.add_stream("png", rate=1)
            stream.width, stream.height, stream.pix_fmt = width_px, height_px, "rgb24"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        new.take_place()


def write_mp4(path: Path, pictures: Sequence[Picture], *, fps: float, threads: int = 0) -> None:
    """H.264 that browsers play, of the largest picture's size; smaller ones lie at the top left of it.

    `threads` encode, 0 for as many as x264 likes. Blocks until it is on storage. Raises OSError.
    """
    height_px, width_px = (max(picture.shape[axis] for picture in pictures) + 1 & ~1 for axis in (0, 1))
    with NewFile(path) as new:
        with av.open(new.file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
            stream.options = {"crf": _CRF}
            stream.codec_context.thread_count = threads
            for picture in pictures:
                canvas = np.zeros((height_px, width_px, 3), np.uint8)
                canvas[: picture.shape[0], : picture.shape[1]] = picture
                container.mux(stream.encode(av.VideoFrame.from_ndarray(canvas, format="rgb24")))
            container.mux(stream.encode(None))
        new.take_place()
