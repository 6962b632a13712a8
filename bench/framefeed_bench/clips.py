"""The clips of a bench: random requests that lie in one chunk each, and the same clips as tasks for the peers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput
from framefeed.request import ClipRequest
from framefeed.sampling import Dense, Sampling, Segments
from framefeed_bench.task import Task

SIZE_PX = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is cut from a span: the policy, how long the span is, and what the case is called."""

    title: str
    sampling: Sampling
    span_s: float


SPARSE = Shape(title="4 frames of 1 s", sampling=Segments(frames=4, jitter=True), span_s=1.0)
DENSE = Shape(title="16 frames, stride 4", sampling=Dense(frames=16, stride=4), span_s=2.1)


def draw_requests(root: Path, shape: Shape, clips: int) -> list[ClipRequest]:
    """Clips at random places of the root's chunks, none across two, since the peers open one file a clip."""
    rng = random.Random(7)  # noqa: S311
    library = Library(root)
    usable = [e for e in library.manifest.videos.values() if e.duration_s > shape.span_s + 0.5]
    library.close()
    if not usable:
        raise BadInput(f"bench: no video of {root} is longer than {shape.span_s + 0.5:g} s")
    requests = []
    for seed in range(clips):
        entry = rng.choices(usable, weights=[e.duration_s for e in usable])[0]
        edges = [*entry.chunk_start_s, entry.duration_s]
        roomy = [(a, b) for a, b in pairwise(edges) if b - a > shape.span_s + 0.2]
        start_s, end_s = rng.choice(roomy)
        at_s = rng.uniform(start_s + 0.05, end_s - shape.span_s - 0.1)
        requests.append(
            ClipRequest(
                video=entry.video,
                start_s=at_s,
                end_s=at_s + shape.span_s,
                sampling=shape.sampling,
                crop=RandomResizedCrop(),
                width_px=SIZE_PX,
                height_px=SIZE_PX,
                seed=seed,
            )
        )
    return requests


def tasks_of(root: Path, requests: list[ClipRequest]) -> list[Task]:
    """The same frames and boxes, as file, frame numbers and times."""
    library = Library(root)
    engine = Engine(library)
    tasks = []
    for request in requests:
        plan = engine.plan(request)
        ((start_s, index),) = library.chunks(library.entry(request.video), request.start_s, request.end_s)
        times_s = tuple(t - start_s for t in plan.pts_s)
        numbers = tuple(int(np.argmin(np.abs(index.times_s - t))) for t in times_s)
        tasks.append(Task(path=root / index.path, frames=numbers, times_s=times_s, box=plan.box, size_px=SIZE_PX))
    engine.close()
    library.close()
    return tasks
