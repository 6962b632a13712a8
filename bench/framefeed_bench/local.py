"""`python -m framefeed_bench.local ROOT`: what a loader's own servers here are worth beside one started by hand.

Each round is a script in a process of its own: seconds from its start to the first batch, and the clips a second of the
batches after some first ones. Both ways have the same core for the server and the rest for the trainer, rounds
alternate, medians count, and the batches of all rounds are proved to be the same bytes first. It knows no chunks.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput, FramefeedError
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from framefeed_bench.machine import provenance
from framefeed_bench.one_core import two_cores
from framefeed_bench.running_server import running_server
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows

_BATCH_CLIPS, _SIDE_PX, _FRAMES = 16, 224, 4
_WARM_UP = 8  # batches before supply is measured
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one script measured."""

    first_batch_s: float
    clips_per_s: float
    sha256: str


@dataclass(frozen=True, kw_only=True)
class LocalBench:
    """A root's clips of 4 frames of 224x224 from a loader's own server, and from one that was started by hand."""

    root: tyro.conf.Positional[Path]
    """An indexed folder of videos."""
    steps: int = 60
    """Batches of 16 clips of a round."""
    rounds: int = 5
    """Rounds of each way, one after the other."""
    out: Path = Path("bench/results/local.json")
    """Where the result is written."""

    def run(self) -> None:
        """Measure, write and print. Raises FramefeedError if the two ways give other bytes."""
        if self.steps <= _WARM_UP or self.rounds < 1:
            raise BadInput(f"--steps is {self.steps}, wanted more than {_WARM_UP}, and --rounds at least 1")
        _, core = two_cores()
        ways: dict[str, list[Round]] = {"local": [], "by hand": []}
        command = (sys.executable, "-m", "framefeed.cli", "serve", str(self.root))
        for _ in range(self.rounds):
            ways["local"].append(self._round("local"))
            with running_server(command, "shm", core=core) as server:
                ways["by hand"].append(self._round(server.url))
        if len({one.sha256 for rounds in ways.values() for one in rounds}) != 1:
            raise FramefeedError("bench: the loader's own server gives other bytes than one that was started by hand")
        supply = {way: statistics.median(one.clips_per_s for one in rounds) for way, rounds in ways.items()}
        result: dict[str, Any] = {
            **provenance(),
            "clips": self.steps * _BATCH_CLIPS,
            "rounds": self.rounds,
            "first_batch_s": round(statistics.median(one.first_batch_s for one in ways["local"]), 2),
            "clips_per_s": {way: round(rate, 1) for way, rate in supply.items()},
            "supply_over_by_hand": round(supply["local"] / supply["by hand"], 3),
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        Console().print_json(data=result)

    def _round(self, servers: str) -> Round:
        command = (sys.executable, "-m", "framefeed_bench.local", "--round", servers, str(self.root), str(self.steps))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        if done.returncode:
            raise FramefeedError(f"bench: a round with {servers} failed: {done.stderr.strip()[-300:]}")
        return Round(**json.loads(done.stdout.splitlines()[-1]))


def measure_round(servers: str, root: Path, steps: int) -> Round:
    """In this process, which has just begun."""
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    policy = ClipPolicy(
        sampling=Segments(frames=_FRAMES), crop=RandomResizedCrop(), width_px=_SIDE_PX, height_px=_SIDE_PX
    )
    own: dict[str, Any] = {"root": root, "local_cpus": 1} if servers == "local" else {}
    named: str | list[str] = servers if servers == "local" else [servers]
    options = LoaderOptions(servers=named, batch_clips=_BATCH_CLIPS, steps=steps, run_seed=1, **own)
    seen = hashlib.sha256()
    first_batch_s = began_s = 0.0
    with ClipLoader(dataset, policy, options) as loader:
        for number, batch in enumerate(loader):
            if not number:
                first_batch_s = _age_s()
            if number == _WARM_UP:
                began_s = time.perf_counter()
            seen.update(batch.pixels.tobytes())
        took_s = time.perf_counter() - began_s
    clips = (steps - _WARM_UP - 1) * _BATCH_CLIPS
    return Round(first_batch_s=first_batch_s, clips_per_s=clips / took_s, sha256=seen.hexdigest())


def _age_s() -> float:
    """Seconds since this process was started."""
    started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / _TICKS_PER_S


def main(arguments: Sequence[str]) -> None:
    """The bench, or one round of it."""
    if arguments[:1] == ["--round"]:
        servers, root, steps = arguments[1:]
        print(json.dumps(asdict(measure_round(servers, Path(root), int(steps)))))
    else:
        tyro.cli(LocalBench, args=arguments).run()


if __name__ == "__main__":
    main(sys.argv[1:])
