"""`framefeed bench decode`: clips per second and core of the engine, beside what users do today, on the same bytes.

One thread each, CPU time, interleaved rounds, medians. Before anything is timed, kept frames are compared bit for bit
with a sequential decode, and every contestant's clips with the ideal clip.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
from rich.console import Console

from bench.clips import DENSE, SIZE_PX, SPARSE, Shape, draw_requests, tasks_of
from bench.contest import Contest, Start, contest
from bench.contestants import FramefeedStart, PeerStart, installed_peers
from bench.fidelity import all_frames, ideal_clip, psnr_db
from bench.machine import provenance
from bench.material import Material, make_material
from bench.scaling import scaling
from bench.tables import decode_tables
from bench.task import Pixels, Task
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from framefeed.crops import ViewCrop
from framefeed.errors import BadInput, FramefeedError
from framefeed.request import ClipRequest, PixelFormat

RGB, YUV, FEED = "framefeed RGB", "framefeed YUV", "feeding only"
_FLOOR_DB = 25.0  # a contestant below this decodes other frames or another box
_PROVED_CLIPS = 12


@dataclass(frozen=True, kw_only=True)
class DecodeBench:
    """Clips of 224x224 after RandomResizedCrop(0.5, 1), from chunks of the `train` profile and of ffmpeg's defaults."""

    videos: Path | None = None
    """Folder of videos to chunk and decode; default: synthetic video of 512x288 at 30 fps."""
    clips: int = 60
    """Clips a round."""
    rounds: int = 5
    """Interleaved rounds, of which the median counts."""
    profile: bool = False
    """Only print where the time of a clip goes."""
    work: Path | None = None
    """Keep the chunks in this folder, to be found again by the next run."""
    out: Path = Path("bench/results/decode.json")
    """Where the result is written."""

    def run(self) -> None:
        if self.clips < 1 or self.rounds < 1:
            raise BadInput(f"bench: clips is {self.clips} and rounds is {self.rounds}, wanted at least 1")
        with ExitStack() as stack:
            work = self.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            material = make_material(self.videos, work)
            console = Console()
            if self.profile:
                console.print_json(data=profile(material, self.clips))
                return
            result = {**provenance(), "clips": self.clips, "rounds": self.rounds, **self._measure(material)}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        for table in decode_tables(result):
            console.print(table)

    def _measure(self, material: Material) -> dict[str, Any]:
        sparse = draw_requests(material.roots["train"], SPARSE, self.clips)
        return {
            "cases": [
                self._case(material, SPARSE, "train"),
                self._case(material, DENSE, "train"),
                self._case(material, SPARSE, "archive"),
                self._case(material, DENSE, "archive"),
            ],
            "chunks": {
                "train_over_archive_bytes": round(material.media_bytes("train") / material.media_bytes("archive"), 3),
                "psnr_db": {way: round(material.psnr_db(way), 2) for way in ("train", "archive")},
            },
            "chunks_of_300_s_over_15_s": _long_chunks(material, sparse, self.rounds),
            "three_crops_together_over_alone": _three_crops(material, self.clips, self.rounds),
            "scaling": scaling(material.roots["train"], sparse, rounds=self.rounds),
            "profile_ms": profile(material, self.clips),
        }

    def _case(self, material: Material, shape: Shape, way: str) -> dict[str, Any]:
        """One table: framefeed on `train` chunks, peers on the chunks of `way`, the same frames and boxes."""
        root = material.roots["train"]
        requests = draw_requests(root, shape, self.clips)
        starts: dict[str, Start] = {
            RGB: FramefeedStart(root=root, requests=requests, pixel_format="rgb24"),
            YUV: FramefeedStart(root=root, requests=requests, pixel_format="yuv420p"),
        }
        if way == "train":
            starts[FEED] = FramefeedStart(root=root, requests=requests, pixel_format="yuv420p", scale=False)
        tasks = tasks_of(material.roots[way], requests)
        peers = installed_peers()
        starts |= {name: PeerStart(module=module, tasks=tasks) for name, module in peers.items()}
        with contest(starts) as running:
            worst_db = _prove(running, material, requests, {RGB: root, **dict.fromkeys(peers, material.roots[way])})
            times_s = running.cpu_seconds(self.rounds)
        return {
            "title": shape.title,
            "peers_on": way,
            "rows": {name: _row(times, self.clips, worst_db.get(name)) for name, times in times_s.items()},
            "ratios": {f"{ours} / {name}": _ratio(times_s, ours, name) for ours in (RGB, YUV) for name in peers},
            **({"yuv_over_feeding_only": _ratio(times_s, FEED, YUV)} if way == "train" else {}),
        }


def _row(times_s: list[float], clips: int, worst_db: float | None) -> dict[str, float | None]:
    median_s = statistics.median(times_s) / clips
    return {
        "clips_per_s_per_core": round(1 / median_s, 1),
        "ms_per_clip": round(1e3 * median_s, 2),
        "psnr_db": worst_db,
    }


def _ratio(times_s: dict[str, list[float]], ours: str, theirs: str) -> float:
    """How many times the CPU time of `ours` `theirs` takes: the median of the rounds' ratios."""
    return round(statistics.median(t / o for o, t in zip(times_s[ours], times_s[theirs], strict=True)), 2)


def _prove(
    running: Contest, material: Material, requests: list[ClipRequest], roots: dict[str, Path]
) -> dict[str, float]:
    """Kept frames equal a sequential decode bit for bit; each contestant's worst clip is close to the ideal one."""
    worst_db: dict[str, float] = {}
    proved = requests[:_PROVED_CLIPS]
    _prove_exact(material.roots["train"], proved)
    sequential: dict[Path, list[Pixels]] = {}
    for name, root in roots.items():
        for number, task in enumerate(tasks_of(root, proved)):
            frames = sequential.get(task.path) or sequential.setdefault(task.path, all_frames(task.path))
            ideal = ideal_clip([frames[n] for n in task.frames], task.box, SIZE_PX)
            seen_db = psnr_db(running.clip(name, number), ideal)
            if seen_db < _FLOOR_DB:
                raise FramefeedError(f"bench: {name} is at {seen_db:.1f} dB on {task.path.name}, wanted {_FLOOR_DB}")
            worst_db[name] = round(min(seen_db, worst_db.get(name, seen_db)), 1)
    return worst_db


def _prove_exact(root: Path, requests: list[ClipRequest]) -> None:
    engine = Engine(Library(root))
    truth: dict[Path, list[Pixels]] = {}
    for request, task in zip(requests, tasks_of(root, requests), strict=True):
        if task.path not in truth:
            truth[task.path] = _decoded(task)
        for chunk in engine.plan(request).chunks:
            for places, frame in engine.frames(chunk, {"read": 0.0}):
                for place in places:
                    if not np.array_equal(frame.to_ndarray(), truth[task.path][task.frames[place]]):
                        raise FramefeedError(f"bench: frame {task.frames[place]} of {task.path.name} is not exact")


def _decoded(task: Task) -> list[Pixels]:
    with av.open(str(task.path)) as container:
        return [np.asarray(frame.to_ndarray(), np.uint8) for frame in container.decode(video=0)]


def _long_chunks(material: Material, requests: list[ClipRequest], rounds: int) -> dict[str, float]:
    """Clips that lie deep in 300 s chunks, against the same clips from 15 s chunks: time and bytes read."""
    roots = {"15": material.roots["train"], "300": material.roots["train_300"]}
    starts = {way: FramefeedStart(root=root, requests=requests, pixel_format="rgb24") for way, root in roots.items()}
    with contest(starts) as running:
        times_s = running.cpu_seconds(rounds)
    read_bytes = {}
    for way, start in starts.items():
        own = start()
        own.round()
        read_bytes[way] = sum(info.read_bytes for info in own.infos)
    return {"time": _ratio(times_s, "15", "300"), "read_bytes": round(read_bytes["300"] / read_bytes["15"], 3)}


def _three_crops(material: Material, clips: int, rounds: int) -> float:
    """Clips a second of the three crops of one span, as tests of a model have them: together over one by one."""
    root = material.roots["train"]
    spans = draw_requests(root, DENSE, max(clips // 3, 1))
    requests = [replace(request, crop=ViewCrop(view=view)) for request in spans for view in range(3)]
    alone = FramefeedStart(root=root, requests=requests, pixel_format="rgb24")
    starts = {"alone": alone, "together": replace(alone, together=3)}
    one_by_one, together = (start() for start in starts.values())
    for number in range(min(_PROVED_CLIPS, len(spans))):
        for view, pixels in enumerate(together.together(number)):
            if not np.array_equal(pixels, one_by_one.clip(3 * number + view)):
                raise FramefeedError(f"bench: crop {view} of span {number} differs when decoded together")
    with contest(starts) as running:
        return _ratio(running.cpu_seconds(rounds), "together", "alone")


def profile(material: Material, clips: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a clip by stage: read, decode (feeding included), scale, and the rest, which is Python."""
    found = {}
    root = material.roots["train"]
    for shape in (SPARSE, DENSE):
        for pixel_format in get_args(PixelFormat):
            requests = draw_requests(root, shape, clips)
            own = FramefeedStart(root=root, requests=requests, pixel_format=pixel_format)()
            own.round()
            began = time.process_time()
            own.round()
            total_ms = 1e3 * (time.process_time() - began) / clips
            stages = {
                stage: 1e3 * statistics.mean(info.stage_s[stage] for info in own.infos)
                for stage in ("read", "decode", "scale")
            }
            packets = statistics.mean(info.fed_packets for info in own.infos)
            rest = total_ms - sum(stages.values())
            row = {**stages, "python": rest, "total": total_ms, "packets": packets}
            found[f"{shape.title}, {pixel_format}"] = {name: round(value, 2) for name, value in row.items()}
    return found
