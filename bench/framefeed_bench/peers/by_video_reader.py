"""video-reader-rs 0.4: its own choice between seeking and decoding through; crop and resize in FFmpeg's filters.

Its wheel finds the libraries that it brings along only where LD_LIBRARY_PATH leads to them, so they are loaded before.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

from framefeed_bench.task import Pixels, Task


def _load_libraries() -> None:
    """Each once those that it needs are there. Raises OSError if some of them never are."""
    spec = importlib.util.find_spec("video_reader")
    assert spec is not None
    assert spec.origin is not None
    wanted = sorted(Path(spec.origin).parents[1].glob("video_reader_rs.libs/*.so*"))
    while wanted:
        missing = [path for path in wanted if not _is_loaded(path)]
        if len(missing) == len(wanted):
            raise OSError(f"bench: none of {len(missing)} libraries of video-reader-rs can be loaded: {missing[0]}")
        wanted = missing


def _is_loaded(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


_load_libraries()

from video_reader import PyVideoReader  # noqa: E402 - its libraries come first


def clip(task: Task) -> Pixels:
    """The clip of a task."""
    b, size_px = task.box, task.size_px
    crop = f"crop={b.width_px}:{b.height_px}:{b.x_px}:{b.y_px}"
    reader = PyVideoReader(str(task.path), threads=1, filter=f"{crop},scale={size_px}:{size_px},format=yuv420p")
    pixels: Pixels = reader.get_batch(list(task.frames))
    return pixels
