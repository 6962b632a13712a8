"""How close a clip is to the ideal one: full-resolution accurate RGB, then crop, then antialiased bilinear resize.

The ideal is made without framefeed's decoder or scaler, by a sequential PyAV decode and a resize in float64.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from framefeed.crops import Box

Pixels = npt.NDArray[np.uint8]
_ACCURATE = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


def psnr_db(seen: Pixels, ideal: npt.NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio over all values, in dB; infinite when equal."""
    error = float(np.mean((seen.astype(np.float64) - ideal) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ideal_clip(frames: list[Pixels], box: Box, size_px: int) -> npt.NDArray[np.float64]:
    """The ideal clip, float64 (T, Y, X, 3), from full-resolution RGB frames."""
    rows = _triangle_weights(box.height_px, size_px)
    columns = _triangle_weights(box.width_px, size_px)
    windows = [f[box.y_px : box.y_px + box.height_px, box.x_px : box.x_px + box.width_px] for f in frames]
    return np.stack([np.einsum("yr,rcd,xc->yxd", rows, w.astype(np.float64), columns, optimize=True) for w in windows])


def all_frames(path: Path) -> list[Pixels]:
    """Every frame of a file by sequential decode, full-resolution RGB with FFmpeg's accurate conversion."""
    with av.open(str(path)) as container:
        frames = (frame.reformat(format="rgb24", interpolation=_ACCURATE) for frame in container.decode(video=0))
        return [np.asarray(frame.to_ndarray(), np.uint8) for frame in frames]


def _triangle_weights(length: int, out: int) -> npt.NDArray[np.float64]:
    """Weights (out, length) of bilinear resizing, the triangle widened by the ratio when shrinking."""
    ratio = length / out
    support = max(ratio, 1.0)
    centres = (np.arange(out) + 0.5) * ratio - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(length)[None] - centres[:, None]) / support)
    normalised: npt.NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return normalised
