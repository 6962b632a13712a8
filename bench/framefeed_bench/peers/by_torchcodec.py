"""torchcodec 0.13 with its fused transforms: crop and resize inside the decoder.

`pip install --no-deps torchcodec==0.13.0` beside the CPU build of torch and the system's FFmpeg libraries.
"""

from __future__ import annotations

import numpy as np
import torch
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import RandomCrop, Resize

from framefeed_bench.task import Pixels, Task

torch.set_num_threads(1)


class _Crop(RandomCrop):  # type: ignore[misc]
    """torchcodec's own crop, at the box of the task instead of one it draws."""

    def __init__(self, task: Task) -> None:
        super().__init__((task.box.height_px, task.box.width_px))
        self._corner = f"{task.box.x_px}, {task.box.y_px}"

    def _make_transform_spec(self, input_dims: tuple[int | None, int | None]) -> str:
        del input_dims
        return f"crop, {self.size[0]}, {self.size[1]}, {self._corner}"


def clip(task: Task) -> Pixels:
    """The clip of a task."""
    transforms = [_Crop(task), Resize((task.size_px, task.size_px))]
    decoder = VideoDecoder(str(task.path), dimension_order="NHWC", num_ffmpeg_threads=1, transforms=transforms)
    pixels: Pixels = np.asarray(decoder.get_frames_at(list(task.frames)).data, np.uint8)
    return pixels
