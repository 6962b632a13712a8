"""`framefeed bench transport`: clips per second of each transport, one core a side, the product's own parts.

Decoding is replaced by a ready clip of 4x224x224x3 or 16x224x224x3; then with real decoding, against decoding in one
process. Bytes are compared before a figure counts. The server and its worker share one core, the loader has the other;
CPU is of whole processes, transport threads included.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from decode_server.chunking.chunk_run import chunk_videos
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.synthetic import make_videos
from decode_server.chunking.transcode import ChunkSettings
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from framefeed.errors import BadInput
from framefeed_bench.bare_send import BareSend, Way, median_cpu_ms
from framefeed_bench.machine import provenance
from framefeed_bench.one_core import run_on_core, two_cores
from framefeed_bench.reading import (
    BATCH_CLIPS,
    POLICY,
    PREFETCH_BATCHES,
    READY_SAMPLES,
    Decoding,
    Read,
    Reading,
    policy_of,
)
from framefeed_bench.running_server import BINDS, READY_SERVER, check_transports, running_server
from framefeed_bench.tables import transport_table
from trainer_client.clip_policy import ClipPolicy
from trainer_client.samples import Sample

_SERVE = (sys.executable, "-c", "from framefeed.cli.command import main; raise SystemExit(main())", "serve")
_LONG_FRAMES = 16


@dataclass(frozen=True, kw_only=True)
class TransportBench:
    """Clips a second over each transport, between two cores.

    Ready ones over each, and decoded ones against decoding in one process.
    """

    transports: tuple[str, ...] = tuple(BINDS)
    """Which to measure."""
    clips: int = 8000
    """Ready clips of 4 frames a round; of 16 frames it is a quarter."""
    decoded_clips: int = 800
    """Decoded clips a round; 0 leaves real decoding out."""
    rounds: int = 5
    """Interleaved rounds, of which the median counts."""
    out: Path = Path("bench/results/transport.json")
    """Where the result is written."""

    def run(self) -> None:
        """Measure, write and print. Raises FramefeedError if a clip is not what it should be."""
        check_transports(self.transports)
        if self.clips < 1 or self.rounds < 1:
            raise BadInput(f"--clips is {self.clips} and --rounds is {self.rounds}, wanted at least 1")
        result: dict[str, Any] = {
            **provenance(),
            "clip_bytes": POLICY.clip_bytes,
            "batch_clips": BATCH_CLIPS,
            "prefetch_batches": PREFETCH_BATCHES,
            "clips": self.clips,
            "rounds": self.rounds,
            "ready": self._ready(POLICY, self.clips),
            "ready_16_frames": self._ready(policy_of(_LONG_FRAMES), -(-self.clips // 4)),
        }
        result["curve_over_tcp"] = {rows: _curve_over_tcp(result[rows]) for rows in ("ready", "ready_16_frames")}
        result["bare_zeromq_cpu_ms"] = {
            "ready": self._bare(POLICY, self.clips),
            "ready_16_frames": self._bare(policy_of(_LONG_FRAMES), -(-self.clips // 4)),
        }
        if self.decoded_clips:
            result["decoded"] = self._decoded()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        Console().print(transport_table(result))

    def _ready(self, policy: ClipPolicy, clips: int) -> dict[str, dict[str, float]]:
        server_core, client_core = two_cores()
        reads: dict[str, list[Read]] = {transport: [] for transport in self.transports}
        with contextlib.ExitStack() as stack:
            servers = {
                t: stack.enter_context(running_server(READY_SERVER, t, core=server_core)) for t in self.transports
            }
            for _ in range(self.rounds):
                for transport, server in servers.items():
                    reading = Reading(
                        url=server.url,
                        pid=server.pid,
                        clips=clips,
                        samples=READY_SAMPLES,
                        ready=True,
                        policy=policy,
                        credentials=server.credentials,
                    )
                    reads[transport].append(run_on_core(client_core, reading))
        return {transport: _row(found) for transport, found in reads.items()}

    def _bare(self, policy: ClipPolicy, clips: int) -> dict[Way, dict[str, float]]:
        """ZeroMQ's own part of it: less than this no tcp and no CURVE of it can cost."""
        ways: tuple[Way, ...] = ("tcp", "curve")
        return median_cpu_ms(
            [BareSend(way=way, clip_bytes=policy.clip_bytes, clips=clips) for way in ways], self.rounds
        )

    def _decoded(self) -> dict[str, dict[str, float]]:
        """Served clips a second over decoding the same clips in one process on the server's core."""
        server_core, client_core = two_cores()
        alone_s: dict[str, list[float]] = {transport: [] for transport in self.transports}
        reads: dict[str, list[Read]] = {transport: [] for transport in self.transports}
        with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
            root, samples = _material(Path(work))
            command = (*_SERVE, str(root), "--threads", "1")
            servers = {t: stack.enter_context(running_server(command, t, core=server_core)) for t in self.transports}
            decoding = Decoding(root=root, samples=samples, clips=self.decoded_clips)
            for _ in range(self.rounds):
                for transport, server in servers.items():  # each beside its own: the machine's pace changes
                    alone_s[transport].append(run_on_core(server_core, decoding) / self.decoded_clips)
                    reading = Reading(
                        url=server.url,
                        pid=server.pid,
                        clips=self.decoded_clips,
                        samples=samples,
                        ready=False,
                        credentials=server.credentials,
                    )
                    reads[transport].append(run_on_core(client_core, reading))
        alone = {"clips_per_s": round(1 / statistics.median(chain(*alone_s.values())), 1)}
        rows = {
            transport: {
                **_row(found),
                "of_in_process": round(
                    _median(a / (r.wall_s / r.clips) for a, r in zip(alone_s[transport], found, strict=True)), 3
                ),
            }
            for transport, found in reads.items()
        }
        return {"in process": alone, **rows}


def _row(reads: Sequence[Read]) -> dict[str, float]:
    return {
        "clips_per_s": round(_median(read.clips / read.wall_s for read in reads)),
        "best_clips_per_s": round(max(read.clips / read.wall_s for read in reads)),
        "client_cpu_ms": round(_median(1e3 * read.client_cpu_s / read.clips for read in reads), 3),
        "feed_cpu_ms": round(_median(1e3 * read.feed_cpu_s / read.clips for read in reads), 3),
        "server_cpu_ms": round(_median(1e3 * read.server_cpu_s / read.clips for read in reads), 3),
    }


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)


def _curve_over_tcp(rows: dict[str, dict[str, float]]) -> float | None:
    if not {"curve", "tcp"} <= rows.keys():
        return None
    return round(rows["curve"]["clips_per_s"] / rows["tcp"]["clips_per_s"], 3)


def _material(work: Path) -> tuple[Path, list[Sample]]:
    """Two minutes of synthetic video in `train` chunks, and a second of it from every half second."""
    make_videos(work / "videos", videos=2, seconds=60, seed=1)
    settings = ChunkSettings(profile=profile_named("train"), chunk_s=15)
    chunk_videos([work / "videos"], work / "root", settings=settings)
    build_index(work / "root")
    with contextlib.closing(Library(work / "root")) as library:
        entries = list(library.manifest.videos.values())
    return work / "root", [
        Sample(video=entry.video, start_s=at / 2, end_s=at / 2 + 1)
        for entry in entries
        for at in range(int(2 * entry.duration_s) - 2)
    ]
