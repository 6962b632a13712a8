"""How a source's picture becomes a chunk's: upright, square pixels, short side, 8-bit limited range; knows no files.

Colour: luma and chroma always leave in limited ("tv") range, converted where the source is full range, so every chunk
of every source reads alike. The matrix is kept, or that of the pictures they are made like; YCgCo becomes BT.709. A
source that names none is tagged with what players assume of it (BT.709 from 720 lines or 1280 columns on, else BT.601),
because that guess would change once the picture is scaled. Grey of no stated range is full range, as FFmpeg makes it.
Primaries and transfer are carried as tags; HDR is not tone-mapped. Interlaced pictures are not deinterlaced.
Alpha is dropped: colours are as they are stored, over nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.buffer import Buffer
from av.video.reformatter import ColorRange

from framefeed.clip import Transfer
from framefeed.errors import UnsupportedMedia

_MATRIX_RGB, _MATRIX_BT709, _MATRIX_UNKNOWN, _MATRIX_BT601, _MATRIX_YCGCO = 0, 1, 2, 6, 8
# ITU-T H.273 matrix coefficients that FFmpeg converts, by libavfilter's names for them.
_MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc"}
# Those that FFmpeg's filters here cannot convert, by their names in ITU-T H.273; a number without name is unknown.
_NOT_CONVERTED = {10: "BT.2020 constant luminance", 11: "SMPTE 2085", 12: "derived from primaries", 14: "ICtCp"}
_TRANSFERS: dict[int, Transfer] = {16: "pq", 18: "hlg"}
_SAME_ASPECT = Fraction(1, 50)
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
    """What decides the treatment of a frame; two frames that compare equal go through the same filters. `transfer`
    names one of high dynamic range, which is carried and not mapped. `interlaced` frames, of two fields, are treated as
    others are.
    """

    width_px: int
    height_px: int
    pix_fmt: str
    sar: Fraction
    matrix: int
    full_range: bool
    upright: tuple[str, ...]
    transfer: Transfer = ""
    interlaced: bool = field(default=False, compare=False)

    @property
    def has_alpha(self) -> bool:
        """Whether its pixels say how opaque they are, which is dropped."""
        return any(part.is_alpha for part in av.VideoFormat(self.pix_fmt).components)

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px} {self.pix_fmt}"

    def shape(self) -> tuple[object, ...]:
        """All but the colour: pictures of one shape are cut and scaled alike."""
        return self.width_px, self.height_px, self.pix_fmt, self.sar, self.upright

    def change_to(self, other: SourcePicture) -> str:
        """What is different in another picture, for people."""
        told = (
            ("size", f"{self.width_px}x{self.height_px}", f"{other.width_px}x{other.height_px}"),
            ("pixel format", self.pix_fmt, other.pix_fmt),
            ("pixel aspect", _ratio(self.sar), _ratio(other.sar)),
            ("colour matrix", _MATRIX_NAMES.get(self.matrix, ""), _MATRIX_NAMES.get(other.matrix, "")),
            ("range", "full" if self.full_range else "limited", "full" if other.full_range else "limited"),
            ("turn", "+".join(self.upright) or "none", "+".join(other.upright) or "none"),
            ("transfer", self.transfer or "sdr", other.transfer or "sdr"),
        )
        return ", ".join(f"{what} from {here} to {there}" for what, here, there in told if here != there)


def _ratio(sar: Fraction) -> str:
    return f"{sar.numerator}:{sar.denominator}"


def describe_picture(frame: av.VideoFrame, *, sar: Fraction | None) -> SourcePicture:
    """What `frame` is, with the guesses of this file's header made. `sar` is the stream's width : height of a pixel.

    Raises:
        UnsupportedMedia: its display matrix turns it by something else than quarter turns and mirrors, or its colour
            matrix is one that cannot be converted.
    """
    rgb, grey = frame.format.is_rgb, frame.format.name.startswith("gray")
    matrix = int(frame.colorspace)
    if rgb or grey or matrix in (_MATRIX_RGB, _MATRIX_UNKNOWN):
        large = frame.width >= _HD_WIDTH_PX or frame.height >= _HD_HEIGHT_PX
        matrix = _MATRIX_BT709 if large else _MATRIX_BT601
    if matrix not in _MATRIX_NAMES:
        raise UnsupportedMedia(
            f"its colour matrix is {_NOT_CONVERTED.get(matrix, f'number {matrix} of H.273')}, wanted one of "
            f"{', '.join(_MATRIX_NAMES.values())}"
        )
    stated = ColorRange.JPEG if frame.format.name.startswith("yuvj") else frame.color_range
    return SourcePicture(
        width_px=frame.width,
        height_px=frame.height,
        pix_fmt=frame.format.name,
        sar=sar if sar else Fraction(1),
        matrix=matrix,
        full_range=rgb or (stated != ColorRange.MPEG if grey else stated == ColorRange.JPEG),
        upright=_upright_filters(frame),
        transfer=_TRANSFERS.get(int(frame.color_trc), ""),
        interlaced=bool(frame.interlaced_frame),
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

    def __init__(
        self,
        picture: SourcePicture,
        *,
        time_base: Fraction,
        short_side_px: int,
        pix_fmt: str,
        like: SourcePicture | None = None,
    ) -> None:
        """Makes pictures as those of the kind `like`, if given, come out: of their size, with black beside or above
        where the aspect is another, and of their matrix.
        """
        self.picture = picture
        target = picture if like is None else like
        self.width_px, self.height_px = chunk_size_px(target, short_side_px=short_side_px)
        rgb = picture.pix_fmt.startswith(("gbr", "rgb", "bgr"))
        self._frame_matrix = _MATRIX_RGB if rgb else picture.matrix
        self._frame_range = ColorRange.JPEG if picture.full_range else ColorRange.MPEG
        # FFmpeg takes all grey for full range; where it is limited, that is kept by asking for "full" of it.
        self._limited_grey = picture.pix_fmt.startswith("gray") and not picture.full_range
        steps = (
            f"buffer=video_size={picture.width_px}x{picture.height_px}:pix_fmt={picture.pix_fmt}"
            f":time_base={time_base}:pixel_aspect=1/1:colorspace={self._frame_matrix}:range={int(self._frame_range)}",
            *picture.upright,
            *self._scaling(target.matrix, short_side_px if like is not None else None),
            f"format={pix_fmt}",
            "buffersink",
        )
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        nodes = [self._graph.add(*step.split("=", 1)) for step in steps]
        self._graph.link_nodes(*nodes).configure()

    def _scaling(self, matrix: int, fitted_px: int | None) -> tuple[str, ...]:
        """Filters to the size and the matrix; with `fitted_px`, the chunk's short side, keeping the aspect."""
        range_ = "pc" if self._limited_grey else "tv"
        width_px, height_px = self.width_px, self.height_px
        black: tuple[str, ...] = ()
        if fitted_px is not None:
            width_px, height_px = _fitted(chunk_size_px(self.picture, short_side_px=fitted_px), width_px, height_px)
            if (width_px, height_px) != (self.width_px, self.height_px):
                x_px, y_px = (self.width_px - width_px) // 4 * 2, (self.height_px - height_px) // 4 * 2
                black = (f"pad={self.width_px}:{self.height_px}:{x_px}:{y_px}",)
        scale = f"scale={width_px}:{height_px}:flags=bicubic+accurate_rnd:out_range={range_}"
        if self._frame_matrix == _MATRIX_YCGCO:
            convert = (
                "colorspace=space=bt709:ispace=ycgco:iprimaries=bt709:itrc=bt709:primaries=bt709:trc=bt709:range=tv"
            )
            return (convert, scale, *black) if matrix in (_MATRIX_YCGCO, _MATRIX_BT709) else (
                convert, f"{scale}:out_color_matrix={_MATRIX_NAMES[matrix]}", *black
            )  # fmt: skip
        wanted = _MATRIX_BT709 if matrix == _MATRIX_YCGCO else matrix
        if self._frame_matrix != wanted:
            scale += f":out_color_matrix={_MATRIX_NAMES[wanted]}"
        return (scale, *black)

    def apply(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The chunk's picture of `frame`, with its pts. `frame` must be of the kind this filter was made for."""
        frame.colorspace = self._frame_matrix
        frame.color_range = self._frame_range
        self._graph.vpush(frame)
        shown = self._graph.vpull()
        if self._limited_grey:
            shown.color_range = ColorRange.MPEG
        return shown


def _fitted(size_px: tuple[int, int], width_px: int, height_px: int) -> tuple[int, int]:
    """The largest even size of an aspect within a frame; all of the frame where the aspect is nearly its own."""
    aspect, wanted = Fraction(*size_px), Fraction(width_px, height_px)
    if abs(aspect / wanted - 1) <= _SAME_ASPECT:
        return width_px, height_px
    if aspect > wanted:
        return width_px, max(2, 2 * round(width_px / aspect / 2))
    return max(2, 2 * round(height_px * aspect / 2)), height_px
