"""One clip as every contestant gets it: a file, frame numbers, times, a box and an output size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framefeed.crops import Box

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Frame numbers in display order and their times in the file; the box lies in the displayed frame."""

    path: Path
    frames: tuple[int, ...]
    times_s: tuple[float, ...]
    box: Box
    size_px: int


Peer = Callable[[Task], Pixels]
"""A peer makes the clip of a task: uint8 RGB (T, Y, X, 3)."""

Resize = Callable[[Pixels, tuple[int, int], Pixels], object]


def crop_then_resize(frames: Sequence[Pixels], task: Task, resize: Resize) -> Pixels:
    """What follows decoding in the peers that cannot do it themselves: cut the box, resize it into the clip."""
    b, size = task.box, (task.size_px, task.size_px)
    out = np.empty((len(frames), *size, 3), np.uint8)
    for frame, target in zip(frames, out, strict=True):
        resize(frame[b.y_px : b.y_px + b.height_px, b.x_px : b.x_px + b.width_px], size, target)
    return out
