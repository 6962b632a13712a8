"""Crop, scale and convert a decoded frame in one pass, into memory of the caller: libswscale, called directly.

PyAV has no crop and copies its result; libswscale reads the planes wherever they lie, so a crop is a pointer and the
result goes straight to where it is wanted. The one file that calls FFmpeg by ctypes; it knows no requests. The library
is the one that PyAV has already loaded, so both always agree. ctypes releases the GIL during the call.
"""

from __future__ import annotations

import ctypes
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt
from av.video import reformatter

from framefeed.clip import Colour
from framefeed.crops import Box
from framefeed.errors import UnsupportedMedia
from framefeed.request import Interpolation

# SWS_ACCURATE_RND, _FULL_CHR_H_INT, _FULL_CHR_H_INP: without full chroma RGB is at 38 dB where it is now 50.
_FLAGS = 0x40000 | 0x2000 | 0x4000
_KERNELS: dict[Interpolation, int] = {"bilinear": 2, "bicubic": 4}  # SWS_BILINEAR, SWS_BICUBIC
_CATMULL_ROM = {"param0": 0.0, "param1": 0.5}  # B and C of Mitchell and Netravali; libswscale's own C is 0.6
_COEFFICIENTS = {"bt601": 5, "bt709": 1, "bt2020": 9, "smpte240m": 7, "fcc": 4}  # SWS_CS_*
_SUBSAMPLING = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1)}
# Where chroma samples lie between luma columns, in 1/256 of one: H.264, HEVC and the MPEGs put them on the left one.
_SITED_LEFT = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "vc1"})
_LEFT, _CENTRE = 0, 128
_CONTEXTS = 64
_GREY, _GREY_AS = "gray", "yuv420p"

_Pointers, _Strides = ctypes.c_void_p * 4, ctypes.c_int * 4
Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Planar:
    """How a planar pixel format lies in memory: bytes a sample, and chroma shifts (x, y), None without chroma."""

    sample_bytes: int
    chroma: tuple[int, int] | None


def planar_layout(pixel_format: str) -> _Planar:
    """The layout of a planar YUV or grey format. Raises UnsupportedMedia, naming it, for any other."""
    match = re.fullmatch(r"(?:yuvj?(420|422|444|440)p|gray)(?:(\d+)le)?", pixel_format)
    if match is None:
        raise UnsupportedMedia(f"pixel format is {pixel_format}, wanted planar YUV or grey of 8 to 16 bits")
    return _Planar(2 if match[2] else 1, _SUBSAMPLING.get(match[1] or ""))


class _Vector(ctypes.Structure):
    _fields_ = (("coefficients", ctypes.POINTER(ctypes.c_double)), ("length", ctypes.c_int))


class _Filter(ctypes.Structure):
    _fields_ = tuple((name, ctypes.POINTER(_Vector)) for name in ("luma_h", "luma_v", "chroma_h", "chroma_v"))


# dlsym on PyAV's own module searches the libraries that it was linked with, and no other FFmpeg of this process.
_FFMPEG = ctypes.CDLL(reformatter.__file__)
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_FFMPEG.sws_alloc_context.restype = _POINTER
_FFMPEG.sws_getContext.restype = _POINTER
_FFMPEG.sws_getContext.argtypes = [_INT] * 7 + [_POINTER] * 3
_FFMPEG.sws_init_context.argtypes = [_POINTER, ctypes.POINTER(_Filter), _POINTER]
_FFMPEG.sws_scale.argtypes = [_POINTER, _Pointers, _Strides, _INT, _INT, _Pointers, _Strides]
_FFMPEG.sws_freeContext.argtypes = [_POINTER]
_FFMPEG.sws_getCoefficients.restype = _POINTER
_FFMPEG.sws_setColorspaceDetails.argtypes = [_POINTER, _POINTER, _INT, _POINTER, _INT, _INT, _INT, _INT]
_FFMPEG.av_get_pix_fmt.argtypes = [ctypes.c_char_p]
_FFMPEG.av_opt_set_int.argtypes = [_POINTER, ctypes.c_char_p, ctypes.c_int64, _INT]
_FFMPEG.av_opt_set_double.argtypes = [_POINTER, ctypes.c_char_p, ctypes.c_double, _INT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What frames of one stream have in common, as far as scaling goes."""

    decoder: str
    pixel_format: str
    colour: Colour


@dataclass(frozen=True, slots=True)
class _Job:
    """What a libswscale context is made for."""

    picture: Picture
    size_px: tuple[int, int]
    out_size_px: tuple[int, int]
    colour: Colour | None
    interpolation: Interpolation


@dataclass(frozen=True, slots=True)
class Cut:
    """One box of one stream's frames to one size. Valid while its Scaler makes no more than 62 others."""

    _context: int
    _job: _Job
    _starts: tuple[tuple[int, int], ...]  # rows, and bytes of a row, before the box in each plane
    _neutral: npt.NDArray[np.generic] | None = None  # the chroma plane that grey lacks

    def write(self, frame: av.VideoFrame, planes: Sequence[Plane]) -> None:
        """Write the box of a coded frame into planes of the output size, uint8 (Y, X), C-contiguous.

        Three full planes green, blue, red for RGB (full range, by the picture's colour), else Y, U, V of I420 with the
        wanted matrix and range and chroma sited at the centre, so that a mirror image needs no other siting.
        Planar because libswscale writes that with SIMD, interleaved RGB without.
        """
        pointers, strides = _Pointers(), _Strides()
        for i, ((row, column_bytes), plane) in enumerate(zip(self._starts, frame.planes, strict=True)):
            stride = plane.line_size
            pointers[i], strides[i] = plane.buffer_ptr + row * stride + column_bytes, stride
        if self._neutral is not None:
            for i in (1, 2):
                pointers[i], strides[i] = self._neutral.ctypes.data, self._neutral.strides[0]
        target = _Pointers(*(plane.ctypes.data for plane in planes))
        target_strides = _Strides(*(plane.shape[1] for plane in planes))
        rows = _FFMPEG.sws_scale(self._context, pointers, strides, 0, self._job.size_px[1], target, target_strides)
        assert rows == self._job.out_size_px[1], (rows, self._job)


class Scaler:
    """Crops, scales (antialiased when shrinking) and converts frames; keeps contexts of recent shapes.

    One per thread; `close` frees the contexts.
    """

    def __init__(self) -> None:
        self._contexts: OrderedDict[_Job | tuple[int, int], int] = OrderedDict()

    def cut(
        self,
        picture: Picture,
        box: Box,
        out_size_px: tuple[int, int],
        *,
        colour: Colour | None,
        interpolation: Interpolation = "bilinear",
    ) -> Cut:
        """What writes the box of coded frames, scaled to (width, height), as I420 of a colour, as RGB without one.

        Raises UnsupportedMedia if it cannot be.
        """
        job = _Job(picture, (box.width_px, box.height_px), out_size_px, colour, interpolation)
        layout = planar_layout(picture.pixel_format)
        shifts = [(0, 0)] if layout.chroma is None else [(0, 0), layout.chroma, layout.chroma]
        starts = tuple((box.y_px >> y, (box.x_px >> x) * layout.sample_bytes) for x, y in shifts)
        return Cut(self._context(job), job, starts, None if layout.chroma else _neutral_plane(picture, box))

    def interleave(self, planes: Sequence[Plane], rgb: Plane) -> None:
        """Copy full planes green, blue, red, C-contiguous (Y, X), into RGB pixels (Y, X, 3), contiguous within rows."""
        height_px, width_px = planes[0].shape
        source, source_strides = _Pointers(*(plane.ctypes.data for plane in planes)), _Strides(*(width_px,) * 3)
        target, target_strides = _Pointers(rgb.ctypes.data), _Strides(rgb.strides[0])
        context = self._context((width_px, height_px))
        rows = _FFMPEG.sws_scale(context, source, source_strides, 0, height_px, target, target_strides)
        assert rows == height_px, (rows, rgb.shape)

    def close(self) -> None:
        """Free the contexts; idempotent."""
        while self._contexts:
            _FFMPEG.sws_freeContext(self._contexts.popitem()[1])

    def _context(self, job: _Job | tuple[int, int]) -> int:
        context = self._contexts.pop(job, None)
        if context is None:
            context = _new_context(job) if isinstance(job, _Job) else _new_interleaver(*job)
        self._contexts[job] = context
        if len(self._contexts) > _CONTEXTS:
            _FFMPEG.sws_freeContext(self._contexts.popitem(last=False)[1])
        return context


def _new_interleaver(width_px: int, height_px: int) -> int:
    """A context that copies planes into pixels, 6 times as fast as NumPy does it."""
    planar, packed = (_FFMPEG.av_get_pix_fmt(name) for name in (b"gbrp", b"rgb24"))
    context = _FFMPEG.sws_getContext(
        width_px, height_px, planar, width_px, height_px, packed, _KERNELS["bilinear"], None, None, None
    )
    if not context:
        raise UnsupportedMedia(f"libswscale cannot write RGB of {width_px}x{height_px}")
    return int(context)


def _new_context(job: _Job) -> int:
    picture = job.picture
    chroma = planar_layout(picture.pixel_format).chroma or (0, 0)
    rgb = job.colour is None
    context: int = _FFMPEG.sws_alloc_context()
    options = {
        "srcw": job.size_px[0],
        "srch": job.size_px[1],
        "src_format": _FFMPEG.av_get_pix_fmt(picture.pixel_format.replace(_GREY, _GREY_AS).encode()),
        "dstw": job.out_size_px[0],
        "dsth": job.out_size_px[1],
        "dst_format": _FFMPEG.av_get_pix_fmt(b"gbrp" if rgb else b"yuv420p"),
        "sws_flags": _FLAGS | _KERNELS[job.interpolation],
    }
    if chroma[0]:
        options["src_h_chr_pos"] = _LEFT if picture.decoder in _SITED_LEFT else _CENTRE
    if chroma[1]:
        options["src_v_chr_pos"] = _CENTRE
    if not rgb:
        options |= {"dst_h_chr_pos": _CENTRE, "dst_v_chr_pos": _CENTRE}
    for name, value in options.items():
        refused = _FFMPEG.av_opt_set_int(context, name.encode(), value, 0)
        assert refused == 0, (name, value)
    if job.interpolation == "bicubic":
        for name, value in _CATMULL_ROM.items():
            refused = _FFMPEG.av_opt_set_double(context, name.encode(), value, 0)
            assert refused == 0, (name, value)
    if _FFMPEG.sws_init_context(context, _chroma_filter(job, chroma), None) < 0:
        _FFMPEG.sws_freeContext(context)
        raise UnsupportedMedia(
            f"libswscale cannot scale {picture.pixel_format} from {job.size_px} to {job.out_size_px}"
        )
    colours = picture.colour, job.colour or picture.colour
    table, out_table = (_FFMPEG.sws_getCoefficients(_COEFFICIENTS[colour.matrix]) for colour in colours)
    out_full = rgb or colours[1].full_range
    _FFMPEG.sws_setColorspaceDetails(
        context, table, int(colours[0].full_range), out_table, int(out_full), 0, 1 << 16, 1 << 16
    )
    return context


def _neutral_plane(picture: Picture, box: Box) -> npt.NDArray[np.generic]:
    """Chroma of no colour for the box of a grey picture, which libswscale then takes for what it is: FFmpeg has no
    grey of limited range.
    """
    bits = int("".join(filter(str.isdecimal, picture.pixel_format)) or 8)
    shape = (box.height_px + 1) // 2, (box.width_px + 1) // 2
    return np.full(shape, 1 << (bits - 1), np.uint16 if bits > 8 else np.uint8)


def _chroma_filter(job: _Job, chroma: tuple[int, int]) -> _Filter | None:
    """For RGB: the blur that chroma lacks when it is scaled at once instead of by way of full-resolution RGB.

    Both ways convolve with triangles, whose variance is half width² / 6. By way of RGB that is one of a chroma sample
    and one of max(ratio, 1) luma samples; at once it is one of max(ratio / 2, 1) chroma samples. A kernel a, 1-2a, a
    has variance 2a, which makes up the difference. It lifts saturated edges from 35 to 40 dB. Catmull-Rom's kernel has
    none at any width, so bicubic lacks that of one chroma sample.
    """
    if job.colour is not None or chroma == (0, 0):
        return None
    vectors = []
    for shift, length, out in zip(chroma, job.size_px, job.out_size_px, strict=True):
        half = max(length / out, 1.0) / 2
        kernels = half**2 - max(half, 1.0) ** 2 if job.interpolation == "bilinear" else 0.0
        side = (1 + kernels) / 12 if shift else 0.0
        taps = (ctypes.c_double * 3)(side, 1 - 2 * side, side)
        vectors.append(ctypes.pointer(_Vector(taps, 3)))
    return _Filter(None, None, *vectors)
