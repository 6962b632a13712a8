"""Videos whose pictures say their number and show six colours, of the kinds that people's folders hold; and what is
read back from a picture. It knows PyAV, and nothing of what is tested.

The top third holds 12 blocks, black 0 and white 1: the number in binary. Under it stand six bars of known colours.
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

BARS = np.array([(255, 255, 255), (200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (0, 0, 0)])
HARD = Path(__file__).parents[2] / "shared" / "data" / "hard"  # files of others; may be absent
_BLOCKS = 12
# (Kr, Kb) of ITU-T H.273 matrix coefficients; YCgCo (8) is spelled out.
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """Pictures of one kind: numbers `first` and on, at `times_s` from the stretch's start (n / 25 if not given)."""

    first: int = 0
    frames: int = 25
    times_s: Sequence[float] | None = None
    size_px: tuple[int, int] = (160, 120)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    matrix: int = 6
    full_range: bool = False
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sar: Fraction | None = None
    time_base: Fraction = Fraction(1, 1000)
    rate: int = 25
    transfer: int | None = None


def picture(number: int, size_px: tuple[int, int]) -> Pixels:
    """RGB uint8 (Y, X, 3) of a number."""
    width_px, height_px = size_px
    rgb = np.zeros((height_px, width_px, 3), np.uint8)
    third = height_px // 3
    columns = np.arange(width_px)
    bits = (number >> (_BLOCKS - 1 - columns * _BLOCKS // width_px)) & 1
    rgb[:third] = (255 * bits)[None, :, None]
    rgb[third:] = BARS[columns * len(BARS) // width_px][None]
    return rgb


def read_picture(rgb: Pixels) -> tuple[int, float]:
    """The number in a picture, and by how much the worst of the bars is off in any of R, G, B. Raises ValueError if a
    block is neither black nor white.
    """
    height_px, width_px, _ = rgb.shape
    number = 0
    for block in range(_BLOCKS):
        x, y = int((block + 0.5) * width_px / _BLOCKS), height_px // 6
        mean = float(rgb[y - 2 : y + 3, x - 1 : x + 2].mean())
        if 90 < mean < 165:
            raise ValueError(f"block {block} is grey ({mean:.0f})")
        number = number << 1 | (mean > 127)
    return number, float(np.abs(_bars(rgb) - BARS).max())


def read_grey(rgb: Pixels) -> tuple[float, float]:
    """How light the white and the black bar are."""
    bars = _bars(rgb)
    return float(bars[0].mean()), float(bars[-1].mean())


def _bars(rgb: Pixels) -> npt.NDArray[np.float64]:
    height_px, width_px, _ = rgb.shape
    xs = [int((bar + 0.5) * width_px / len(BARS)) for bar in range(len(BARS))]
    y = height_px // 2
    return np.array([rgb[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1)) for x in xs])


def coded(number: int, stretch: Stretch) -> av.VideoFrame:
    """The picture of a number as the stretch spells it."""
    rgb = picture(number, stretch.size_px).astype(float) / 255
    if stretch.matrix == 8:
        red, green, blue = np.moveaxis(rgb, 2, 0)
        y, u, v = red / 4 + green / 2 + blue / 4, -red / 4 + green / 2 - blue / 4, red / 2 - blue / 2
    else:
        kr, kb = _LUMA[stretch.matrix]
        red, green, blue = np.moveaxis(rgb, 2, 0)
        y = kr * red + (1 - kr - kb) * green + kb * blue
        u, v = (blue - y) / 2 / (1 - kb), (red - y) / 2 / (1 - kr)
    luma = 255 * y if stretch.full_range else 16 + 219 * y
    chroma = [128 + (255 if stretch.full_range else 224) * plane for plane in (u, v)]
    full = np.stack([luma, *chroma]).round().clip(0, 255).astype(np.uint8)
    if stretch.pix_fmt.startswith("gray"):
        frame = av.VideoFrame.from_ndarray(full[0], format="gray")
    else:
        frame = av.VideoFrame(*stretch.size_px, "yuv444p")
        for plane, values in zip(frame.planes, full, strict=True):
            padded = np.zeros((plane.height, plane.line_size), np.uint8)
            padded[:, : plane.width] = values
            plane.update(padded.tobytes())
        frame.color_range = 2 if stretch.full_range else 1
        if stretch.pix_fmt != "yuv444p":
            frame = frame.reformat(format=stretch.pix_fmt)
    frame.color_range = 2 if stretch.full_range else 1
    frame.colorspace = stretch.matrix
    return frame


def write_video(path: Path, stretch: Stretch, *, container: Mapping[str, str] | None = None) -> Path:
    """Write one stretch as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=dict(container or {})) as target:
        stream: Any = target.add_stream(stretch.codec, rate=stretch.rate, options=dict(stretch.options))
        stream.width, stream.height, stream.pix_fmt = *stretch.size_px, stretch.pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_range = stretch.matrix, 2 if stretch.full_range else 1
        if stretch.transfer is not None:
            context.color_trc = stretch.transfer
        if stretch.sar is not None:
            context.sample_aspect_ratio = stretch.sar
        base = stretch.time_base if stretch.times_s is not None else Fraction(1, stretch.rate)
        context.time_base = stream.time_base = base
        for n in range(stretch.frames):
            frame = coded(stretch.first + n, stretch)
            frame.pts = n if stretch.times_s is None else round(Fraction(stretch.times_s[n]) / base)
            frame.time_base = base
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path
