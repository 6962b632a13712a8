"""How close a clip is to the ideal one: full-resolution accurate RGB, then crop, then antialiased resize.

The ideal is made without framefeed's decoder or scaler, by a sequential PyAV decode and a resize in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from decode_server.media.stream_choice import open_video
from framefeed.crops import Box

Pixels = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]
_ACCURATE = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


def psnr_db(seen: Pixels, ideal: npt.NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio over all values, in dB; infinite when equal."""
    error = float(np.mean((seen.astype(np.float64) - ideal) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ideal_clip(
    frames: list[Pixels], box: Box, size_px: int | tuple[int, int], *, bicubic: bool = False
) -> npt.NDArray[np.float64]:
    """The ideal clip, float64 (T, Y, X, 3), of a side or (width, height), from full-resolution RGB frames."""
    width_px, height_px = (size_px, size_px) if isinstance(size_px, int) else size_px
    kernel = _catmull_rom if bicubic else _triangle
    rows = _weights(box.height_px, height_px, kernel)
    columns = _weights(box.width_px, width_px, kernel)
    windows = [f[box.y_px : box.y_px + box.height_px, box.x_px : box.x_px + box.width_px] for f in frames]
    return np.stack([np.einsum("yr,rcd,xc->yxd", rows, w.astype(np.float64), columns, optimize=True) for w in windows])


def all_frames(path: Path) -> list[Pixels]:
    """Every frame of a file by sequential decode, full-resolution RGB with FFmpeg's accurate conversion."""
    with open_video(path) as video:
        decoded = video.container.decode(video.stream)
        frames = (f.reformat(format="rgb24", interpolation=_ACCURATE) for f in decoded)
        return [np.asarray(frame.to_ndarray(), np.uint8) for frame in frames if isinstance(frame, av.VideoFrame)]


def _weights(length: int, out: int, kernel: Callable[[Weights], Weights]) -> Weights:
    """Weights (out, length) of resizing with a kernel, which is widened by the ratio when shrinking."""
    ratio = length / out
    centres = (np.arange(out) + 0.5) * ratio - 0.5
    weights = kernel(np.abs(np.arange(length)[None] - centres[:, None]) / max(ratio, 1.0))
    normalised: Weights = weights / weights.sum(1, keepdims=True)
    return normalised


def _triangle(x: Weights) -> Weights:
    return np.maximum(0, 1 - x)


def _catmull_rom(x: Weights) -> Weights:
    """Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 4 with a = -1/2."""
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
