"""`framefeed bench decode`: clips per second and core of the engine, beside decord, PyAV and OpenCV on the same bytes.

One thread each, CPU time, interleaved rounds, medians. Before anything is timed, kept frames are compared bit for bit
with a sequential decode, and every contestant's clips with the ideal clip.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from bench.contest import Start, cpu_seconds
from bench.fidelity import all_frames, ideal_clip, psnr_db
from bench.machine import provenance
from bench.peers import PEERS, Task
from decode_server.chunk import chunk_videos
from decode_server.engine import Engine
from decode_server.index import build_index
from decode_server.library import Library
from decode_server.profiles import profile_named
from decode_server.synthetic import make_videos
from decode_server.transcode import ChunkSettings
from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput, FramefeedError
from framefeed.request import ClipRequest, PixelFormat
from framefeed.sampling import Segments

_SIZE_PX = 224
_SPAN_S = 1.0
_FLOOR_DB = 25.0  # a peer below this decodes other frames or another box
_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class DecodeBench:
    """4 frames from 1 s, RandomResizedCrop(0.5, 1) to 224x224, on 15-second chunks of the `train` profile."""

    videos: Path | None = None
    """Folder of videos to chunk and decode; default: synthetic video of 512x288 at 30 fps."""
    clips: int = 100
    """Clips a round."""
    rounds: int = 5
    """Interleaved rounds, of which the median counts."""
    out: Path = Path("bench/results/decode.json")
    """Where the result is written."""

    def run(self) -> None:
        if self.clips < 1 or self.rounds < 1:
            raise BadInput(f"bench: clips is {self.clips} and rounds is {self.rounds}, wanted at least 1")
        with tempfile.TemporaryDirectory() as folder, _library(self.videos, Path(folder)) as library:
            result = measure(library, Path(folder) / "chunks", clips=self.clips, rounds=self.rounds)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        _show(result)


@contextmanager
def _library(videos: Path | None, folder: Path) -> Iterator[Library]:
    """Chunks of the user's or of synthetic video, in FOLDER/chunks."""
    if videos is None:
        make_videos(folder / "videos", videos=4, seconds=30, seed=1)
    settings = ChunkSettings(profile=profile_named("train"))
    chunk_videos([videos or folder / "videos"], folder / "chunks", settings=settings)
    build_index(folder / "chunks")
    library = Library(folder / "chunks")
    try:
        yield library
    finally:
        library.close()


def measure(library: Library, root: Path, *, clips: int, rounds: int) -> dict[str, object]:
    """Prove, then time. Returns what goes into the JSON. Raises FramefeedError when a contestant is wrong."""
    engine = Engine(library)
    requests = list(_requests(library, clips))
    tasks = [_task(engine, library, root, request) for request in requests]
    fidelity_db = _prove(engine, requests, tasks)
    engine.close()
    own: dict[str, Start] = {
        "framefeed RGB": partial(_start_framefeed, root, requests, "rgb24"),
        "framefeed YUV 4:2:0": partial(_start_framefeed, root, requests, "yuv420p"),
    }
    times_s = cpu_seconds({**own, **{name: partial(_start_peer, name, tasks) for name in PEERS}}, rounds=rounds)
    rows = {
        name: {
            "clips_per_s_per_core": round(clips / statistics.median(times), 1),
            "ms_per_clip": round(1e3 * statistics.median(times) / clips, 2),
            "psnr_db": fidelity_db.get(name),
        }
        for name, times in times_s.items()
    }
    ratios = {
        f"{ours} / {name}": round(
            statistics.median(p / o for p, o in zip(times_s[name], times_s[ours], strict=True)), 2
        )
        for ours in own
        for name in PEERS
    }
    case = f"{_FRAMES} frames of {_SPAN_S:g} s, {_SIZE_PX}x{_SIZE_PX}, RandomResizedCrop(0.5, 1), train chunks"
    return {**provenance(), "case": case, "clips": clips, "rounds": rounds, "rows": rows, "ratios": ratios}


def _start_framefeed(root: Path, requests: list[ClipRequest], pixel_format: PixelFormat) -> Callable[[], None]:
    """All clips once, into memory that is used again, as the server's reply slab is."""
    engine = Engine(Library(root))
    ours = [replace(request, pixel_format=pixel_format) for request in requests]
    slab = np.zeros(max(request.clip_bytes for request in ours), np.uint8)

    def decode_all() -> None:
        for request in ours:
            engine.decode(request, slab)

    return decode_all


def _start_peer(name: str, tasks: list[Task]) -> Callable[[], None]:
    def decode_all() -> None:
        for task in tasks:
            PEERS[name](task)

    return decode_all


def _requests(library: Library, clips: int) -> Iterator[ClipRequest]:
    """Clips that lie in one chunk, since the peers open one file a clip."""
    rng = random.Random(7)  # noqa: S311
    usable = [e for e in library.manifest.videos.values() if e.duration_s > 2 * _SPAN_S]
    if not usable:
        raise BadInput(f"bench: no video is longer than {2 * _SPAN_S:g} s")
    for seed in range(clips):
        entry = rng.choice(usable)
        chunk = rng.randrange(len(entry.chunk_start_s))
        start_s = entry.chunk_start_s[chunk]
        end_s = min([*entry.chunk_start_s[chunk + 1 :], entry.duration_s])
        at_s = rng.uniform(start_s, max(start_s, end_s - _SPAN_S - 0.05)) + 0.04
        yield ClipRequest(
            video=entry.video,
            start_s=at_s,
            end_s=min(at_s + _SPAN_S, end_s),
            sampling=Segments(frames=_FRAMES, jitter=True),
            crop=RandomResizedCrop(),
            width_px=_SIZE_PX,
            height_px=_SIZE_PX,
            seed=seed,
        )


def _task(engine: Engine, library: Library, root: Path, request: ClipRequest) -> Task:
    plan = engine.plan(request)
    entry = library.entry(request.video)
    start_s, index = library.chunks(entry, request.start_s, request.end_s)[0]
    times_s = tuple(t - start_s for t in plan.pts_s)
    numbers = tuple(int(np.argmin(np.abs(index.times_s - t))) for t in times_s)
    return Task(path=root / index.path, frames=numbers, times_s=times_s, box=plan.box, size_px=_SIZE_PX)


def _prove(engine: Engine, requests: list[ClipRequest], tasks: list[Task]) -> dict[str, float]:
    """Kept frames equal a sequential decode bit for bit; every contestant's worst clip is close to the ideal one."""
    worst_db: dict[str, float] = {}
    sequential: dict[Path, list[npt.NDArray[np.uint8]]] = {}
    for request, task in zip(requests[:24], tasks[:24], strict=True):
        if task.path not in sequential:
            sequential[task.path] = all_frames(task.path)
        _prove_exact(engine, request, task)
        ideal = ideal_clip([sequential[task.path][n] for n in task.frames], task.box, _SIZE_PX)
        own = np.empty(request.shape, np.uint8)
        engine.decode(request, own)
        clips = {"framefeed RGB": own}
        clips |= {name: peer(task) for name, peer in PEERS.items()}
        for name, clip in clips.items():
            seen_db = psnr_db(clip, ideal)
            if seen_db < _FLOOR_DB:
                raise FramefeedError(f"bench: {name} is at {seen_db:.1f} dB on {task.path.name}, wanted {_FLOOR_DB}")
            worst_db[name] = round(min(seen_db, worst_db.get(name, seen_db)), 1)
    return worst_db


def _prove_exact(engine: Engine, request: ClipRequest, task: Task) -> None:
    with av.open(str(task.path)) as container:
        truth = [frame.to_ndarray() for frame in container.decode(video=0)]
    for chunk in engine.plan(request).chunks:
        for places, frame in engine.frames(chunk, {"read": 0.0}):
            for place in places:
                if not np.array_equal(frame.to_ndarray(), truth[task.frames[place]]):
                    raise FramefeedError(f"bench: frame {task.frames[place]} of {task.path.name} is not exact")


def _show(result: dict[str, object]) -> None:
    rows, ratios = result["rows"], result["ratios"]
    assert isinstance(rows, dict)
    assert isinstance(ratios, dict)
    table = Table(title=str(result["case"]))
    for column in ("", "clips/s/core", "ms a clip", "worst PSNR dB", "framefeed RGB is", "framefeed YUV is"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        faster = [ratios.get(f"{own} / {name}") for own in ("framefeed RGB", "framefeed YUV 4:2:0")]
        cells = [f"{ratio:.2f}x faster" if ratio else "" for ratio in faster]
        table.add_row(
            name, f"{row['clips_per_s_per_core']}", f"{row['ms_per_clip']}", f"{row['psnr_db'] or ''}", *cells
        )
    Console().print(table)
