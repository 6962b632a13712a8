"""Test videos whose frame number is written in their pixels; knows PyAV, and nothing of what is being tested.

The top 3/8 of the picture are 3 × 8 black or white blocks: 16 bits of number (Gray code), then 8 bits of check. They
survive lossy encoding and scaling, so "the right frame" is an equality. Below them a coloured texture slides and a
square bounces: motion is real, so encoders choose B-frames and skipped references show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from decode_server.chunking.fair_threads import fair_threads

SHARED_VIDEOS = Path(__file__).parents[2] / "shared" / "data" / "videos"  # real footage; may be absent
_ROWS, _COLUMNS, _GRID_ROWS = 3, 8, 8
_DARK, _LIGHT = 30, 220
PTS_TIME_BASE = Fraction(1, 60_000)  # exact for 24, 25, 29.97, 30, 50 and 59.94 fps
DEFAULT_OPTIONS = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=0"},
    "libsvtav1": {"preset": "10", "crf": "30", "svtav1-params": "enable-tf=0"},  # its filter in time blends numbers
}

Plane = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberedVideo:
    """What to make: `frames` numbered 0, 1, 2…; `pts` are explicit frame times in seconds (else n / fps).

    `options` go to the encoder as they are (`{"g": "30", "bf": "3", "x264-params": "b-pyramid=0"}`); the container
    follows the path's suffix. `context` sets attributes of the codec context (`{"color_range": 2}`), `rotation_deg`
    writes a display matrix (counter-clockwise), `sar` the shape of a pixel..
    """

    frames: int = 300
    width_px: int = 512
    height_px: int = 288
    fps: int | Fraction = 30
    codec: str = "libx264"
    options: Mapping[str, str] | None = None
    pts: Sequence[float | Fraction] | None = None
    pix_fmt: str = "yuv420p"
    context: Mapping[str, object] = dataclasses.field(default_factory=dict)
    rotation_deg: float = 0
    sar: Fraction | None = None
    muxer_options: Mapping[str, str] = dataclasses.field(default_factory=dict)


def make_numbered_video(path: Path, **fields: Any) -> Path:
    """Write the video that `NumberedVideo(**fields)` describes to `path`, and return `path`."""
    spec = NumberedVideo(**fields)
    if spec.pts is not None and len(spec.pts) != spec.frames:
        raise ValueError(f"{len(spec.pts)} frame times for {spec.frames} frames")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=dict(spec.muxer_options)) as container:
        options = DEFAULT_OPTIONS.get(spec.codec, {}) if spec.options is None else dict(spec.options)
        stream: Any = container.add_stream(spec.codec, rate=Fraction(spec.fps), options=options)
        stream.width, stream.height, stream.pix_fmt = spec.width_px, spec.height_px, spec.pix_fmt
        time_base = 1 / Fraction(spec.fps) if spec.pts is None else PTS_TIME_BASE
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        if spec.sar is not None:
            stream.codec_context.sample_aspect_ratio = spec.sar
        for name, value in spec.context.items():
            setattr(stream.codec_context, name, value)
        if spec.rotation_deg:
            stream.set_display_rotation(spec.rotation_deg)
        with fair_threads():
            stream.codec_context.open()
        for number in range(spec.frames):
            frame = numbered_frame(number, width_px=spec.width_px, height_px=spec.height_px)
            if spec.pix_fmt != frame.format.name:
                frame = frame.reformat(format=spec.pix_fmt)
            frame.pts = number if spec.pts is None else round(Fraction(spec.pts[number]) / time_base)
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered_frame(number: int, *, width_px: int, height_px: int) -> av.VideoFrame:
    """Frame `number` of every numbered video of this size, as yuv420p, untimed."""
    planes = [_texture(number, rows=height_px, columns=width_px, salt=0)]
    for salt in (1, 2):
        planes.append(_texture(number // 2, rows=(height_px + 1) // 2, columns=(width_px + 1) // 2, salt=salt))
    _draw_square(planes[0], number)
    for position, bit in enumerate(_bits(number)):
        rows, columns = _block(planes[0].shape, position, margin=0.0)
        planes[0][rows, columns] = _LIGHT if bit else _DARK
        half = (rows.start // 2, rows.stop // 2), (columns.start // 2, columns.stop // 2)
        for chroma in planes[1:]:
            chroma[slice(*half[0]), slice(*half[1])] = 128
    frame = av.VideoFrame(width_px, height_px, "yuv420p")
    for plane, values in zip(frame.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = values[: plane.height, : plane.width]
        plane.update(padded.tobytes())
    return frame


def read_frame_number(luma_YX: Plane) -> int:
    """Number written in a full frame's luma (uint8, any size), or in a grey or single channel of it.

    Raises:
        ValueError: the blocks are not clearly black or white, or the check bits disagree: not a whole, true frame.
    """
    code = 0
    for position in range(_ROWS * _COLUMNS):
        mean = float(luma_YX[_block(luma_YX.shape, position, margin=0.25)].mean())
        if 100 < mean < 150:
            raise ValueError(f"block {position} of the frame number is grey ({mean:.0f})")
        code = code << 1 | (mean > 125)
    gray, check = code >> 8, code & 0xFF
    if check != _check(gray):
        raise ValueError(f"frame number {gray:016b} (Gray code) has check {check}, wanted {_check(gray)}")
    number = gray
    for shift in (8, 4, 2, 1):
        number ^= number >> shift
    return number


def luma(frame: av.VideoFrame) -> Plane:
    """8-bit luma (Y, X) of a decoded planar frame of 8 or 10 bits."""
    plane = frame.planes[0]
    if frame.format.components[0].bits == 8:
        return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : frame.width]
    deep = np.frombuffer(memoryview(plane), np.uint16).reshape(plane.height, -1)[:, : frame.width]
    return (deep >> (frame.format.components[0].bits - 8)).astype(np.uint8)


def read_numbers(path: Path) -> list[tuple[int, Fraction]]:
    """(frame number, exact time in seconds) of every frame of a file, by a plain full sequential decode."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [(read_frame_number(luma(frame)), (frame.pts or 0) * Fraction(frame.time_base or 1)) for frame in frames]


def _check(gray: int) -> int:
    return (gray >> 8 ^ gray << 3 ^ gray >> 5 & 0b111) & 0xFF ^ 0b01011010


def _bits(number: int) -> list[bool]:
    if not 0 <= number < 1 << 16:
        raise ValueError(f"frame number {number} is not within 16 bits")
    gray = number ^ number >> 1  # neighbours differ in one bit, so few blocks blink and coarse encoders keep them
    code = gray << 8 | _check(gray)
    return [bool(code >> shift & 1) for shift in reversed(range(_ROWS * _COLUMNS))]


def _block(shape: tuple[int, ...], position: int, *, margin: float) -> tuple[slice, slice]:
    row, column = divmod(position, _COLUMNS)
    height, width = shape[0] / _GRID_ROWS, shape[1] / _COLUMNS
    return (
        slice(round((row + margin) * height), round((row + 1 - margin) * height)),
        slice(round((column + margin) * width), round((column + 1 - margin) * width)),
    )


_TEXTURE_PX = 1024
_TEXTURES: dict[int, Plane] = {}


def _texture(number: int, *, rows: int, columns: int, salt: int) -> Plane:
    """Window onto a fixed periodic texture that slides by a few pixels a frame."""
    if salt not in _TEXTURES:
        noise = np.random.Generator(np.random.Philox(key=salt)).normal(size=(_TEXTURE_PX, _TEXTURE_PX))
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_TEXTURE_PX), np.fft.fftfreq(_TEXTURE_PX)))
        smooth = np.fft.ifft2(np.fft.fft2(noise) / (frequency + 0.004) ** 1.7).real
        spread = (smooth - smooth.mean()) / smooth.std()
        _TEXTURES[salt] = (128 + (40 if salt == 0 else 30) * spread).clip(16, 235).astype(np.uint8)
    texture = _TEXTURES[salt]
    row_index = (np.arange(rows) + 2 * number) % _TEXTURE_PX
    column_index = (np.arange(columns) + 3 * number) % _TEXTURE_PX
    return texture[row_index[:, None], column_index[None, :]]


def _draw_square(plane: Plane, number: int) -> None:
    rows, columns = plane.shape
    size = max(2, rows // 6)
    top = rows * 3 // 8 + abs((5 * number) % max(2, rows - size) - (rows - size) // 2)
    left = abs((11 * number) % (2 * columns) - columns)
    plane[top : top + size, left : left + size] = 40 + number * 7 % 180
