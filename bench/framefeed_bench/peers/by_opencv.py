"""OpenCV: VideoCapture, grab up to each wanted frame, retrieve those, then crop and resize."""

from __future__ import annotations

import cv2
import numpy as np

from framefeed_bench.task import Pixels, Task, crop_then_resize


def clip(task: Task) -> Pixels:
    """The clip of a task."""
    capture = cv2.VideoCapture(str(task.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        wanted = sorted(set(task.frames))
        found: dict[int, Pixels] = {}
        capture.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
        for number in range(wanted[0], wanted[-1] + 1):
            if not capture.grab():
                raise ValueError(f"OpenCV reads no frame {number} of {task.path}")
            if number in wanted:
                found[number] = np.asarray(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()
    return crop_then_resize([found[number] for number in task.frames], task, cv2.resize)
