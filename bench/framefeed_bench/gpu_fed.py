"""A run that servers feed beside the same run on batches that lie there: the product's loop on one core, a real server
on another. It knows loops and servers; what training costs by itself is the resident run's.

Both take turns in one process, on one model. While the resident run is timed, a process on the server's core does as
much work as the server did in the turn before, so that both runs have an equally busy neighbour.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from prometheus_client import CollectorRegistry
from rich.console import Console

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
from framefeed_bench.one_core import cpu_s, on_core, run_on_core, two_cores
from framefeed_bench.running_server import running_server
from framefeed_models.videomae import PRESETS
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
_WARM_STEPS = 16  # of a turn: batches that were made in the turn before are used up by then
_PERIOD_S = 0.02
_BUSY = """
import sys, time
share, period_s = float(sys.argv[1]), float(sys.argv[2])
while True:
    until_s = time.process_time() + share * period_s
    while time.process_time() < until_s:
        pass
    time.sleep((1 - share) * period_s)
"""


def fed_against_resident(*, steps: int, turns: int = 5) -> dict[str, object]:
    """Medians of both runs' step times, and of the ratios of `turns` pairs of turns of so many steps each, in time and
    in CPU time of the whole process, which a busy machine moves less; and the fed one's share of waiting.
    """
    server_core, client_core = two_cores()
    with tempfile.TemporaryDirectory() as folder:
        root = _make_root(Path(folder))
        with running_server((*FRAMEFEED, "serve", str(root)), "tcp", core=server_core) as server:
            duel = _Duel(root=root, url=server.url, pid=server.pid, core=server_core, steps=steps, turns=turns)
            pairs = run_on_core(client_core, duel)
    step_ms = {name: 1e3 * median(s for pair in pairs for s in getattr(pair, name).step_s) for name in _NAMES}
    ratios = [median(pair.fed.step_s) / median(pair.resident.step_s) for pair in pairs]
    waited_s, whole_s = (sum(sum(getattr(pair.fed, name)) for pair in pairs) for name in ("wait_s", "step_s"))
    return {
        "batch_clips": BATCH_CLIPS,
        "steps": steps * turns,
        **{f"{name}_step_ms": round(ms, 2) for name, ms in step_ms.items()},
        "fed_over_resident": round(median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "fed_cpu_over_resident": round(median(pair.fed.cpu_s / pair.resident.cpu_s for pair in pairs), 4),
        "server_share_of_its_core": round(median(pair.busy for pair in pairs), 3),
        "wait_share": round(waited_s / whole_s, 5),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    step_s: list[float]
    wait_s: list[float]
    cpu_s: float  # of the process, all its threads, for all steps


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A turn of each, and what share of its core the server took in its own."""

    fed: _Turn
    resident: _Turn
    busy: float


_NAMES = ("fed", "resident")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Duel:
    """A tiny VideoMAE on its core, fed and on the feed's first batches again and again, in turns; picklable."""

    root: Path
    url: str
    pid: int
    core: int
    steps: int
    turns: int

    def __call__(self) -> list[_Pair]:
        compute = ComputeOptions(device="cpu", precision="fp32", threads=1).open()
        model, steps = PRESETS["tiny"], 2 * self.turns * (self.steps + _WARM_STEPS)
        torch.manual_seed(0)
        task = MaeTask(model, mask_ratio=0.5, device=compute.device)
        learning = LearningOptions(lr=1e-3).build(task.model, steps=steps, batch_clips=BATCH_CLIPS)
        run: Run[MaskedInputs] = Run(
            task=task, learning=learning, passes=compute.passes, average=Average(task.model, decay=0.0), seed=0
        )
        with self._loader() as loader:
            resident = TrainLoop(run, Resident([next(loader) for _ in range(4)]), device=compute.device)
            fed = TrainLoop(run, loader, device=compute.device)
            return [self._pair(fed, resident) for _ in range(self.turns)]

    def _loader(self) -> ClipLoader:
        grid = PRESETS["tiny"].grid
        policy = ClipPolicy(
            sampling=Dense(frames=grid.frames, stride=2),
            crop=RandomResizedCrop(),
            width_px=grid.width_px,
            height_px=grid.height_px,
            pixel_format="yuv420p",
        )
        options = LoaderOptions(servers=[self.url], batch_clips=BATCH_CLIPS, run_seed=3)
        return ClipLoader(
            VideoWindows(read_manifest(self.root), window_s=4.0), policy, options, registry=CollectorRegistry()
        )

    def _pair(self, fed: TrainLoop[MaskedInputs], resident: TrainLoop[MaskedInputs]) -> _Pair:
        _turn(fed, steps=_WARM_STEPS)
        began_s, cpu_began_s = time.perf_counter(), cpu_s(self.pid)
        fed_turn = _turn(fed, steps=self.steps)
        busy = min((cpu_s(self.pid) - cpu_began_s) / (time.perf_counter() - began_s), 1.0)
        with on_core(self.core):
            neighbour = subprocess.Popen([sys.executable, "-c", _BUSY, str(busy), str(_PERIOD_S)])
        try:
            _turn(resident, steps=_WARM_STEPS)
            return _Pair(fed=fed_turn, resident=_turn(resident, steps=self.steps), busy=busy)
        finally:
            neighbour.kill()
            neighbour.wait()


def _turn(loop: TrainLoop[MaskedInputs], *, steps: int) -> _Turn:
    records, began_s = list[StepRecord](), time.process_time()
    loop.on_record[:] = [records.append]
    with StopSignals(first_only=True) as stops:
        loop.run(Limits(steps=loop.steps_done + steps), stops=stops)
    cpu_s = time.process_time() - began_s
    return _Turn(
        step_s=[record.step_s for record in records], wait_s=[record.wait_s for record in records], cpu_s=cpu_s
    )


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
    """Half a minute of synthetic video, chunked."""
    make_videos(folder / "videos", videos=2, seconds=15, seed=1)
    settings = ChunkSettings(profile=profile_named("train"), chunk_s=15)
    chunk_videos([folder / "videos"], folder / "root", settings=settings, console=Console(stderr=True))
    build_index(folder / "root")
    return folder / "root"
