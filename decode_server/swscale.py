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
_COEFFICIENTS = {"bt601": 5, "bt709": 1, "bt2020": 9}  # SWS_CS_*
_SUBSAMPLING = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1)}
# Where chroma samples lie between luma columns, in 1/256 of one: H.264, HEVC and the MPEGs put them on the left one.
_SITED_LEFT = frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "vc1"})
_LEFT, _CENTRE = 0, 128
_CONTEXTS = 64

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
    rgb: bool
    interpolation: Interpolation


class Scaler:
    """Crops, scales (antialiased when shrinking) and converts frames; keeps contexts of recent shapes.

    One per thread; `close` frees the contexts.
    """

    def __init__(self) -> None:
        self._contexts: OrderedDict[_Job, int] = OrderedDict()

    def scale(
        self,
        frame: av.VideoFrame,
        picture: Picture,
        box: Box,
        planes: Sequence[Plane],
        *,
        rgb: bool,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        """Write the box of the coded frame into planes of the output size, uint8 (Y, X), C-contiguous.

        Three full planes green, blue, red if `rgb` (full range, by the picture's colour), else Y, U, V of I420 with the
        picture's own matrix and range and chroma sited at the centre, so that a mirror image needs no other siting.
        Planar because libswscale writes that with SIMD, interleaved RGB without.
        """
        height_px, width_px = planes[0].shape
        layout = planar_layout(picture.pixel_format)
        job = _Job(picture, (box.width_px, box.height_px), (width_px, height_px), rgb, interpolation)
        pointers, strides = _source(frame, box, layout)
        target = _Pointers(*(plane.ctypes.data for plane in planes))
        target_strides = _Strides(*(plane.shape[1] for plane in planes))
        rows = _FFMPEG.sws_scale(self._context(job), pointers, strides, 0, box.height_px, target, target_strides)
        assert rows == height_px, (rows, job)

    def close(self) -> None:
        """Free the contexts; idempotent."""
        while self._contexts:
            _FFMPEG.sws_freeContext(self._contexts.popitem()[1])

    def _context(self, job: _Job) -> int:
        context = self._contexts.pop(job, None) or _new_context(job)
        self._contexts[job] = context
        if len(self._contexts) > _CONTEXTS:
            _FFMPEG.sws_freeContext(self._contexts.popitem(last=False)[1])
        return context


def _new_context(job: _Job) -> int:
    picture = job.picture
    chroma = planar_layout(picture.pixel_format).chroma or (0, 0)
    context: int = _FFMPEG.sws_alloc_context()
    options = {
        "srcw": job.size_px[0],
        "srch": job.size_px[1],
        "src_format": _FFMPEG.av_get_pix_fmt(picture.pixel_format.encode()),
        "dstw": job.out_size_px[0],
        "dsth": job.out_size_px[1],
        "dst_format": _FFMPEG.av_get_pix_fmt(b"gbrp" if job.rgb else b"yuv420p"),
        "sws_flags": _FLAGS | _KERNELS[job.interpolation],
    }
    if chroma[0]:
        options["src_h_chr_pos"] = _LEFT if picture.decoder in _SITED_LEFT else _CENTRE
    if chroma[1]:
        options["src_v_chr_pos"] = _CENTRE
    if not job.rgb:
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
    table = _FFMPEG.sws_getCoefficients(_COEFFICIENTS[picture.colour.matrix])
    full_range = int(picture.colour.full_range)
    _FFMPEG.sws_setColorspaceDetails(
        context, table, full_range, table, 1 if job.rgb else full_range, 0, 1 << 16, 1 << 16
    )
    return context


def _chroma_filter(job: _Job, chroma: tuple[int, int]) -> _Filter | None:
    """For RGB: the blur that chroma lacks when it is scaled at once instead of by way of full-resolution RGB.

    Both ways convolve with triangles, whose variance is half width² / 6. By way of RGB that is one of a chroma sample
    and one of max(ratio, 1) luma samples; at once it is one of max(ratio / 2, 1) chroma samples. A kernel a, 1-2a, a
    has variance 2a, which makes up the difference. It lifts saturated edges from 35 to 40 dB. Catmull-Rom's kernel has
    none at any width, so bicubic lacks that of one chroma sample.
    """
    if not job.rgb or chroma == (0, 0):
        return None
    vectors = []
    for shift, length, out in zip(chroma, job.size_px, job.out_size_px, strict=True):
        half = max(length / out, 1.0) / 2
        kernels = half**2 - max(half, 1.0) ** 2 if job.interpolation == "bilinear" else 0.0
        side = (1 + kernels) / 12 if shift else 0.0
        taps = (ctypes.c_double * 3)(side, 1 - 2 * side, side)
        vectors.append(ctypes.pointer(_Vector(taps, 3)))
    return _Filter(None, None, *vectors)


def _source(
    frame: av.VideoFrame, box: Box, layout: _Planar
) -> tuple[ctypes.Array[ctypes.c_void_p], ctypes.Array[ctypes.c_int]]:
    """Pointers to the box's first sample in each plane, and the strides."""
    pointers, strides = _Pointers(), _Strides()
    for i, plane in enumerate(frame.planes):
        shift_x, shift_y = (0, 0) if i == 0 or layout.chroma is None else layout.chroma
        stride = plane.line_size
        offset = (box.y_px >> shift_y) * stride + (box.x_px >> shift_x) * layout.sample_bytes
        pointers[i], strides[i] = plane.buffer_ptr + offset, stride
    return pointers, strides
