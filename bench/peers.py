"""What users do today, written as well as a user would: one clip by decord, by PyAV and by OpenCV, each on one thread.

Every peer gets the frames and the box that framefeed planned, opens the file as a data loader does, decodes, converts
whole frames to RGB, then crops and resizes (OpenCV bilinear). They know nothing of packet indices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import decord
import numpy as np
import numpy.typing as npt

from framefeed.crops import Box

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One clip of one file: frame numbers in display order and their times, the box, and the output size."""

    path: Path
    frames: tuple[int, ...]
    times_s: tuple[float, ...]
    box: Box
    size_px: int


Peer = Callable[[Task], Pixels]


def _crop_resize(frames: list[Pixels], task: Task) -> Pixels:
    b = task.box
    out = np.empty((len(frames), task.size_px, task.size_px, 3), np.uint8)
    for frame, target in zip(frames, out, strict=True):
        window = frame[b.y_px : b.y_px + b.height_px, b.x_px : b.x_px + b.width_px]
        cv2.resize(window, (task.size_px, task.size_px), dst=target, interpolation=cv2.INTER_LINEAR)
    return out


def by_decord(task: Task) -> Pixels:
    """decord 0.6: VideoReader and get_batch, as AVION's unfused loader."""
    reader = decord.VideoReader(str(task.path), ctx=decord.cpu(0), num_threads=1)
    batch: Pixels = reader.get_batch(list(task.frames)).asnumpy()
    return _crop_resize(list(batch), task)


def by_pyav(task: Task) -> Pixels:
    """PyAV: seek to the key frame before the first wanted frame, decode on to the last, convert the wanted ones."""
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
    return _crop_resize([found[time_s] for time_s in task.times_s], task)


def by_opencv(task: Task) -> Pixels:
    """OpenCV: VideoCapture, grab up to each wanted frame, retrieve those."""
    capture = cv2.VideoCapture(str(task.path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        wanted = sorted(set(task.frames))
        found: dict[int, Pixels] = {}
        capture.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
        for number in range(wanted[0], wanted[-1] + 1):
            assert capture.grab(), (task.path, number)
            if number in wanted:
                found[number] = np.asarray(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()
    return _crop_resize([found[number] for number in task.frames], task)


PEERS: dict[str, Peer] = {"decord": by_decord, "PyAV decode-then-crop": by_pyav, "OpenCV": by_opencv}
