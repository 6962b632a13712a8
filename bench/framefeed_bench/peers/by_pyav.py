"""PyAV as a careful user writes it: seek to the key frame before the first wanted frame, decode on to the last."""

from __future__ import annotations

import av
import cv2
import numpy as np

from framefeed_bench.task import Pixels, Task, crop_then_resize


def clip(task: Task) -> Pixels:
    """The clip of a task; only wanted frames are converted to RGB."""
    wanted = sorted(set(task.times_s))
    found: dict[float, Pixels] = {}
    with av.open(str(task.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None
        origin = stream.start_time or 0
        half_frame_s = float(1 / stream.average_rate) / 2 if stream.average_rate else 0.01
        container.seek(origin + int(wanted[0] / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            time_s = float(((frame.pts or 0) - origin) * stream.time_base)
            if wanted and time_s > wanted[0] - half_frame_s:
                found[wanted.pop(0)] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            if not wanted:
                break
    return crop_then_resize([found[time_s] for time_s in task.times_s], task, cv2.resize)
