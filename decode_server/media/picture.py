"""How a source's picture becomes a chunk's: upright, square pixels, short side, 8-bit limited range; knows no files.

Colour: luma and chroma always leave in limited ("tv") range, converted where the source is full range, so every chunk
of every source reads alike. The matrix is kept; a source that names none is tagged with what players assume of it
(BT.709 from 720 lines or 1280 columns on, else BT.601), because that guess would change once the picture is scaled.
Primaries and transfer are carried as tags; HDR is not tone-mapped. Interlaced pictures are not deinterlaced.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction

import av
from av.buffer import Buffer
from av.video.reformatter import ColorRange

from framefeed.errors import UnsupportedMedia

_MATRIX_RGB, _MATRIX_BT709, _MATRIX_UNKNOWN, _MATRIX_BT601 = 0, 1, 2, 6
_HD_WIDTH_PX, _HD_HEIGHT_PX = 1280, 720

# Rows of the display matrix (a, b, c, d) in units of one: where x and y of the coded picture go on screen (y is down).
_UPRIGHT_FILTERS: dict[tuple[int, int, int, int], tuple[str, ...]] = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): ("transpose=clock",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, -1, 1, 0): ("transpose=cclock",),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePicture:
    """What decides the treatment of a frame; two frames that compare equal go through the same filters."""

    width_px: int
    height_px: int
    pix_fmt: str
    sar: Fraction
    matrix: int
    full_range: bool
    upright: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px} {self.pix_fmt}"


def describe_picture(frame: av.VideoFrame, *, sar: Fraction | None) -> SourcePicture:
    """What `frame` is, with the guesses of this file's header made. `sar` is the stream's width : height of a pixel.

    Raises:
        UnsupportedMedia: its display matrix turns it by something else than quarter turns and mirrors.
    """
    rgb = frame.format.is_rgb
    matrix = frame.colorspace
    if rgb or matrix in (_MATRIX_RGB, _MATRIX_UNKNOWN):
        large = frame.width >= _HD_WIDTH_PX or frame.height >= _HD_HEIGHT_PX
        matrix = _MATRIX_BT709 if large else _MATRIX_BT601
    return SourcePicture(
        width_px=frame.width,
        height_px=frame.height,
        pix_fmt=frame.format.name,
        sar=sar if sar else Fraction(1),
        matrix=matrix,
        full_range=rgb or frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj"),
        upright=_upright_filters(frame),
    )


def _upright_filters(frame: av.VideoFrame) -> tuple[str, ...]:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, Buffer):
        return ()
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix))
    scale = max(abs(value) for value in (a, b, c, d)) or 1
    turn = (round(a / scale), round(b / scale), round(c / scale), round(d / scale))
    exact = all(abs(seen / scale - whole) < 0.02 for seen, whole in zip((a, b, c, d), turn, strict=True))
    if not exact or turn not in _UPRIGHT_FILTERS:
        raise UnsupportedMedia(f"display matrix turns the picture by {frame.rotation} degrees, wanted quarter turns")
    return _UPRIGHT_FILTERS[turn]


def chunk_size_px(picture: SourcePicture, *, short_side_px: int) -> tuple[int, int]:
    """(width, height) of the chunk: square pixels, upright, even, the short side at most `short_side_px`.

    A narrow pixel's picture is stretched in height and a wide pixel's in width, so no sample is lost to it. Nothing is
    scaled up beyond that; an odd size loses one row or column to scaling.
    """
    width_px, height_px = Fraction(picture.width_px), Fraction(picture.height_px)
    if picture.sar >= 1:
        width_px *= picture.sar
    else:
        height_px /= picture.sar
    if any("transpose" in step for step in picture.upright):
        width_px, height_px = height_px, width_px
    scale = min(Fraction(1), short_side_px / min(width_px, height_px))
    if scale == 1 and min(width_px, height_px) % 2:
        scale = 2 * (min(width_px, height_px) // 2) / min(width_px, height_px)
    return _even(width_px, scale), _even(height_px, scale)


def _even(length_px: Fraction, scale: Fraction) -> int:
    return max(2, min(2 * round(length_px * scale / 2), 2 * (int(length_px) // 2)))


class PictureFilter:
    """libavfilter's graph for one kind of source picture; owned by one thread."""

    def __init__(self, picture: SourcePicture, *, time_base: Fraction, short_side_px: int, pix_fmt: str) -> None:
        self.picture = picture
        self.width_px, self.height_px = chunk_size_px(picture, short_side_px=short_side_px)
        self._frame_matrix = _MATRIX_RGB if picture.pix_fmt.startswith(("gbr", "rgb", "bgr")) else picture.matrix
        self._frame_range = ColorRange.JPEG if picture.full_range else ColorRange.MPEG
        matrix_name = {_MATRIX_BT709: "bt709", _MATRIX_BT601: "smpte170m"}.get(picture.matrix)
        to_matrix = f":out_color_matrix={matrix_name}" if self._frame_matrix == _MATRIX_RGB else ""
        steps = (
            f"buffer=video_size={picture.width_px}x{picture.height_px}:pix_fmt={picture.pix_fmt}"
            f":time_base={time_base}:pixel_aspect=1/1:colorspace={self._frame_matrix}:range={int(self._frame_range)}",
            *picture.upright,
            f"scale={self.width_px}:{self.height_px}:flags=bicubic+accurate_rnd:out_range=tv{to_matrix}",
            f"format={pix_fmt}",
            "buffersink",
        )
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        nodes = [self._graph.add(*step.split("=", 1)) for step in steps]
        self._graph.link_nodes(*nodes).configure()

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The chunk's picture of `frame`, with its pts. `frame` must be of the kind this filter was made for."""
        frame.colorspace = self._frame_matrix
        frame.color_range = self._frame_range
        self._graph.vpush(frame)
        return self._graph.vpull()
