"""A run that servers feed beside the same run on batches that lie there: the product's loop on one core, a real server
on another. It knows loops and servers; what training costs by itself is the resident run's.

While the resident run is timed, a process on the server's core does as much work as the core can, so that both runs
have an equally busy neighbour.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from prometheus_client import CollectorRegistry
from rich.console import Console

from bench.one_core import on_core, run_on_core, two_cores
from bench.running_server import running_server
from decode_server.chunking.chunk_run import chunk_videos
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.synthetic import make_videos
from decode_server.chunking.transcode import ChunkSettings
from decode_server.indexing.index import build_index
from framefeed.cli.demo import FRAMEFEED
from framefeed.cli.stop_signals import StopSignals
from framefeed.crops import RandomResizedCrop
from framefeed.manifest import read_manifest
from framefeed.sampling import Dense
from models.videomae import PRESETS
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows
from trainer_client.training.average import Average
from trainer_client.training.compute import ComputeOptions
from trainer_client.training.learning import LearningOptions
from trainer_client.training.loop import Limits, StepRecord, TrainLoop
from trainer_client.training.step import Run
from trainer_client.training.tasks.mae import MaeTask, MaskedInputs

BATCH_CLIPS = 4
_WARM_STEPS = 5
_BUSY = (sys.executable, "-c", "while True: pass")


def fed_against_resident(*, steps: int, turns: int = 2) -> dict[str, float]:
    """Medians of both runs' step times in interleaved turns, their ratio, and the fed one's share of waiting."""
    server_core, client_core = two_cores()
    seen: dict[str, list[_Turn]] = {"fed": [], "resident": []}
    with tempfile.TemporaryDirectory() as folder:
        root = _make_root(Path(folder))
        for _ in range(turns):
            with running_server((*FRAMEFEED, "serve", str(root)), "tcp", core=server_core) as server:
                seen["fed"].append(run_on_core(client_core, _Training(root=root, url=server.url, steps=steps)))
                resident = _Training(root=root, url=server.url, steps=steps, resident=True)
                with on_core(server_core):
                    busy = subprocess.Popen(_BUSY)
                try:
                    seen["resident"].append(run_on_core(client_core, resident))
                finally:
                    busy.kill()
                    busy.wait()
    step_ms = {name: 1e3 * median(s for turn in of for s in turn.step_s) for name, of in seen.items()}
    fed = seen["fed"]
    return {
        "batch_clips": BATCH_CLIPS,
        "steps": steps * turns,
        **{f"{name}_step_ms": round(ms, 2) for name, ms in step_ms.items()},
        "fed_over_resident": round(step_ms["fed"] / step_ms["resident"], 4),
        "wait_share": round(sum(sum(t.wait_s) for t in fed) / sum(sum(t.step_s) for t in fed), 5),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    step_s: list[float]
    wait_s: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """A tiny VideoMAE on its core; picklable. `resident`: on the first batches of the feed, again and again."""

    root: Path
    url: str
    steps: int
    resident: bool = False

    def __call__(self) -> _Turn:
        records = list[StepRecord]()
        compute = ComputeOptions(device="cpu", precision="fp32", threads=1).open()
        model, steps = PRESETS["tiny"], self.steps + _WARM_STEPS
        torch.manual_seed(0)
        task = MaeTask(model, mask_ratio=0.5, device=compute.device)
        learning = LearningOptions(lr=1e-3).build(task.model, steps=steps, batch_clips=BATCH_CLIPS)
        run: Run[MaskedInputs] = Run(
            task=task, learning=learning, passes=compute.passes, average=Average(task.model, decay=0.0), seed=0
        )
        policy = ClipPolicy(
            sampling=Dense(frames=model.grid.frames, stride=4),
            crop=RandomResizedCrop(),
            width_px=model.grid.width_px,
            height_px=model.grid.height_px,
            pixel_format="yuv420p",
        )
        options = LoaderOptions(servers=[self.url], batch_clips=BATCH_CLIPS, steps=steps, run_seed=3)
        dataset = VideoWindows(read_manifest(self.root), window_s=4.0)
        with ClipLoader(dataset, policy, options, registry=CollectorRegistry()) as loader:
            feed = Resident([next(loader) for _ in range(4)]) if self.resident else loader
            loop = TrainLoop(run, feed, device=compute.device)
            loop.on_record.append(records.append)
            with StopSignals(first_only=True) as stops:
                loop.run(Limits(steps=steps), stops=stops)
        timed = records[_WARM_STEPS:]
        return _Turn(step_s=[record.step_s for record in timed], wait_s=[record.wait_s for record in timed])


class Resident:
    """Batches that are there."""

    is_ready = True
    waited_s: Mapping[str, float] = {}

    def __init__(self, batches: list[Batch]) -> None:
        self._batches, self._step = batches, 0

    def __next__(self) -> Batch:
        self._step += 1
        return self._batches[self._step % len(self._batches)]

    def count_copy_wait(self, waited_s: float) -> None:
        """Nothing is copied."""

    def state_after(self, steps: int) -> dict[str, int | str | None]:
        return {"position": steps}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """It has none."""


def _make_root(folder: Path) -> Path:
    """A minute of synthetic video, chunked."""
    make_videos(folder / "videos", videos=2, seconds=30, seed=1)
    settings = ChunkSettings(profile=profile_named("train"), chunk_s=15)
    chunk_videos([folder / "videos"], folder / "root", settings=settings, console=Console(stderr=True))
    build_index(folder / "root")
    return folder / "root"
