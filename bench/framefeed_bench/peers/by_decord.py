"""decord 0.6: VideoReader and get_batch, then crop and resize, as AVION's unfused loader does."""

from __future__ import annotations

import cv2
import decord

from framefeed_bench.task import Pixels, Task, crop_then_resize


def clip(task: Task) -> Pixels:
    """The clip of a task."""
    reader = decord.VideoReader(str(task.path), ctx=decord.cpu(0), num_threads=1)
    batch: Pixels = reader.get_batch(list(task.frames)).asnumpy()
    return crop_then_resize(list(batch), task, cv2.resize)
