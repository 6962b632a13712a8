"""What is shown before `bench decode` times anything: exact frames, and clips close to the ideal one. It times nothing.

A YUV clip is seen as a trainer sees it: converted to RGB by torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import torch

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from framefeed.clip import Colour
from framefeed.errors import FramefeedError
from framefeed.request import ClipRequest
from framefeed_bench.clips import SIZE_PX, tasks_of
from framefeed_bench.fidelity import all_frames, ideal_clip, psnr_db
from framefeed_bench.task import Pixels, Task
from trainer_client.training.augment.pixels import yuv_to_rgb

_FLOOR_DB = 25.0  # a contestant below this decodes other frames or another box


class Clips(Protocol):
    """Contestants by name."""

    def clip(self, name: str, number: int) -> Any:
        """A contestant's clip of the request of this number: uint8 RGB (T, Y, X, 3) or I420 (T, Y*3/2, X)."""


def prove(
    contestants: Clips, requests: list[ClipRequest], *, exact: Path, roots: Mapping[str, Path]
) -> dict[str, float]:
    """The PSNR in dB of each contestant's worst clip, of chunks in its root of `roots`, against the ideal clip.

    Raises FramefeedError if a kept frame of the root `exact` differs in any bit from that of a sequential decode, or a
    clip of a contestant is below 25 dB.
    """
    colours = _prove_exact(exact, requests)
    worst_db: dict[str, float] = {}
    sequential: dict[Path, list[Pixels]] = {}
    for name, root in roots.items():
        for number, task in enumerate(tasks_of(root, requests)):
            frames = sequential.get(task.path) or sequential.setdefault(task.path, all_frames(task.path))
            ideal = ideal_clip([frames[n] for n in task.frames], task.box, SIZE_PX)
            seen_db = psnr_db(_as_rgb(contestants.clip(name, number), colours[number]), ideal)
            if seen_db < _FLOOR_DB:
                raise FramefeedError(f"bench: {name} is at {seen_db:.1f} dB on {task.path.name}, wanted {_FLOOR_DB}")
            worst_db[name] = round(min(seen_db, worst_db.get(name, seen_db)), 1)
    return worst_db


def _as_rgb(pixels: Pixels, colour: Colour) -> Pixels:
    if pixels.ndim == 4:
        return pixels
    rgb_CTYX = yuv_to_rgb(torch.from_numpy(pixels)[None], colours=[colour], siting="center")[0]
    return np.asarray(rgb_CTYX.permute(1, 2, 3, 0).round().byte().numpy(), np.uint8)


def _prove_exact(root: Path, requests: list[ClipRequest]) -> list[Colour]:
    """Raises FramefeedError unless kept frames are exact; returns the colour of each clip."""
    engine = Engine(Library(root))
    colours = []
    truth: dict[Path, list[Pixels]] = {}
    for request, task in zip(requests, tasks_of(root, requests), strict=True):
        if task.path not in truth:
            truth[task.path] = _decoded(task)
        plan = engine.plan(request)
        for chunk in plan.chunks:
            for places, frame in engine.frames(chunk, {"read": 0.0}):
                for place in places:
                    if not np.array_equal(frame.to_ndarray(), truth[task.path][task.frames[place]]):
                        raise FramefeedError(f"bench: frame {task.frames[place]} of {task.path.name} is not exact")
        colours.append(plan.colour)
    return colours


def _decoded(task: Task) -> list[Pixels]:
    with av.open(str(task.path)) as container:
        return [np.asarray(frame.to_ndarray(), np.uint8) for frame in container.decode(video=0)]
