"""`framefeed bench front`: what a clip costs the front, by the number of workers, and what a second front brings.

Clips are ready, so the front is all there is to measure; bytes are compared before a figure counts. CPU is that of the
front's process and its gateway's, by the kernel's account; the workers' and the client's is none of it.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from framefeed.errors import BadInput
from framefeed_bench.bare_send import BareSend, median_cpu_ms
from framefeed_bench.machine import provenance
from framefeed_bench.one_core import run_on_core, two_cores
from framefeed_bench.reading import POLICY, READY_SAMPLES, Read, Reading
from framefeed_bench.running_server import READY_SERVER, RunningServer, check_transports, running_server
from framefeed_bench.tables import front_table

_START_TOGETHER_S = 4.0


@dataclass(frozen=True, kw_only=True)
class FrontBench:
    """CPU time a clip of a server's front, by number of workers.

    And two fronts on two cores over one on one.
    """

    workers: tuple[int, ...] = (1, 8, 24, 48)
    """Numbers of workers, of one thread each."""
    transports: tuple[str, ...] = ("tcp", "shm")
    """Which to measure."""
    clips: int = 6000
    """Clips of 4x224x224 a round."""
    rounds: int = 3
    """Interleaved rounds, of which the median counts."""
    out: Path = Path("bench/results/front.json")
    """Where the result is written."""

    def run(self) -> None:
        """Measure, write and print. Raises FramefeedError if a clip is not what it should be."""
        check_transports(self.transports)
        if self.clips < 1 or self.rounds < 1 or not self.workers or min(self.workers) < 1:
            raise BadInput("--clips, --rounds and each of --workers are wanted to be at least 1")
        result: dict[str, Any] = {
            **provenance(),
            "clip_bytes": POLICY.clip_bytes,
            "clips": self.clips,
            "rounds": self.rounds,
            "bare_socket_cpu_ms": self._bare(),
            "by_workers": {transport: self._by_workers(transport) for transport in self.transports},
            "two_fronts": {transport: self._two_fronts(transport) for transport in self.transports},
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        Console().print(front_table(result))

    def _bare(self) -> dict[str, float]:
        """What sending a clip over loopback costs whoever does nothing else: of the front's CPU over tcp, no less."""
        bare = BareSend(way="socket", clip_bytes=POLICY.clip_bytes, clips=self.clips)
        return median_cpu_ms([bare], self.rounds)["socket"]

    def _by_workers(self, transport: str) -> dict[str, dict[str, float]]:
        server_core, client_core = two_cores()
        reads: dict[int, list[Read]] = {workers: [] for workers in self.workers}
        with contextlib.ExitStack() as stack:
            servers = {
                workers: stack.enter_context(_server(transport, server_core, workers)) for workers in self.workers
            }
            for _ in range(self.rounds):
                for workers, server in servers.items():
                    reads[workers].append(run_on_core(client_core, self._reading(server)))
        rows = {
            str(workers): {
                "front_cpu_ms": round(_median_cpu_ms(found), 3),
                "clips_per_s": round(statistics.median(read.clips / read.wall_s for read in found)),
            }
            for workers, found in reads.items()
        }
        fewest = rows[str(min(self.workers))]["front_cpu_ms"]
        return {name: {**row, "of_fewest": round(row["front_cpu_ms"] / fewest, 3)} for name, row in rows.items()}

    def _two_fronts(self, transport: str) -> dict[str, float]:
        """Each front shares a core with its worker and with the client that reads from it."""
        cores = two_cores()
        rates: dict[str, list[float]] = {"one": [], "two": []}
        with contextlib.ExitStack() as stack:
            readings = [self._reading(stack.enter_context(_server(transport, core, 1))) for core in cores]
            pool = stack.enter_context(ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")))
            for _ in range(self.rounds):
                for name, count in (("one", 1), ("two", 2)):
                    at_s = time.time() + _START_TOGETHER_S
                    pairs = zip(cores[:count], readings, strict=False)
                    begun = [pool.submit(_read_at, at_s, core, reading) for core, reading in pairs]
                    found = [future.result() for future in begun]
                    rates[name].append(sum(read.clips / read.wall_s for read in found))
        return {
            "one_front_clips_per_s": round(statistics.median(rates["one"])),
            "two_fronts_clips_per_s": round(statistics.median(rates["two"])),
            "two_over_one": round(statistics.median(b / a for a, b in zip(rates["one"], rates["two"], strict=True)), 3),
        }

    def _reading(self, server: RunningServer) -> Reading:
        return Reading(
            url=server.url,
            pid=server.pid,
            clips=self.clips,
            samples=READY_SAMPLES,
            ready=True,
            credentials=server.credentials,
        )


def _server(transport: str, core: int, workers: int) -> contextlib.AbstractContextManager[RunningServer]:
    options = ("--threads", "1", "--buffer-pool-mib", "128")
    return running_server(READY_SERVER, transport, core=core, workers=workers, options=options)


def _median_cpu_ms(reads: list[Read]) -> float:
    return statistics.median(1e3 * read.front_cpu_s / read.clips for read in reads)


def _read_at(at_s: float, core: int, reading: Reading) -> Read:
    """Read on a core from `at_s` (time.time()) on."""
    os.sched_setaffinity(0, {core})
    time.sleep(max(at_s - time.time(), 0.0))
    return reading()
