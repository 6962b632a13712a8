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
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
from rich.console import Console

from framefeed.crops import ViewCrop
from framefeed.errors import BadInput, FramefeedError
from framefeed.request import ClipRequest, PixelFormat
from framefeed_bench.clips import DENSE, SPARSE, Shape, draw_requests, tasks_of
from framefeed_bench.contest import Start, contest
from framefeed_bench.contestants import Framefeed, FramefeedStart, InstalledPeer, PeerStart, installed_peers
from framefeed_bench.machine import provenance
from framefeed_bench.material import Material, make_material
from framefeed_bench.proof import prove
from framefeed_bench.scaling import scaling
from framefeed_bench.stages import timed_stages
from framefeed_bench.tables import decode_tables

RGB, YUV, FEED = "framefeed RGB", "framefeed YUV", "feeding only"
_PROVED_CLIPS = 12


@dataclass(frozen=True, kw_only=True)
class DecodeBench:
    """Clips a second and core, beside other decoders.

    Clips of 224x224 after RandomResizedCrop(0.5, 1), from chunks of the `train` profile and of ffmpeg's defaults.
    """

    videos: Path | None = None
    """Folder of videos to chunk and decode; default: synthetic video of 512x288 at 30 fps."""
    clips: int = 60
    """Clips a round."""
    rounds: int = 5
    """Interleaved rounds, of which the median counts."""
    profile: bool = False
    """Only print where the time of a clip goes, in ms."""
    peers: Path | None = None
    """Folder of peers beside those of the environment: `pip install --no-deps --target PEERS/decord2 decord2`, …"""
    work: Path | None = None
    """Keep the chunks in this folder, to be found again by the next run."""
    out: Path = Path("bench/results/decode.json")
    """Where the result is written."""

    def run(self) -> None:
        if self.clips < 1 or self.rounds < 1:
            raise BadInput(f"--clips is {self.clips} and --rounds is {self.rounds}, wanted at least 1")
        with ExitStack() as stack:
            work = self.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            material = make_material(self.videos, work)
            console = Console()
            if self.profile:
                console.print_json(data=profile(material.roots["train"], self.clips, self.rounds))
                return
            result = {**provenance(), "clips": self.clips, "rounds": self.rounds, **self._measure(material)}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        for table in decode_tables(result):
            console.print(table)

    def _measure(self, material: Material) -> dict[str, Any]:
        sparse = draw_requests(material.roots["train"], SPARSE, self.clips)
        peers = installed_peers(self.peers)
        return {
            "peers": {name: peer.version for name, peer in peers.items()},
            "cases": [
                self._case(material, SPARSE, "train", peers),
                self._case(material, DENSE, "train", peers),
                self._case(material, SPARSE, "archive", peers),
                self._case(material, DENSE, "archive", peers),
            ],
            "chunks": {
                "train_over_archive_bytes": round(material.media_bytes("train") / material.media_bytes("archive"), 3),
                "psnr_db": {way: round(material.psnr_db(way), 2) for way in ("train", "archive")},
            },
            "chunks_of_300_s_over_15_s": _long_chunks(material, sparse, self.rounds),
            "three_crops_together_over_alone": _three_crops(material, self.clips, self.rounds),
            "scaling": scaling(material.roots["train"], sparse, rounds=self.rounds),
            "profile_ms": profile(material.roots["train"], self.clips, self.rounds),
        }

    def _case(self, material: Material, shape: Shape, way: str, peers: dict[str, InstalledPeer]) -> dict[str, Any]:
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
        starts |= {name: PeerStart(peer=peer, tasks=tasks) for name, peer in peers.items()}
        with contest(starts) as running:
            roots = {RGB: root, YUV: root, **dict.fromkeys(peers, material.roots[way])}
            worst_db = prove(running, requests[:_PROVED_CLIPS], exact=root, roots=roots)
            times_s = running.cpu_seconds(self.rounds)
        return {
            "title": shape.title,
            "peers_on": way,
            "rows": {name: _row(times, self.clips, worst_db.get(name)) for name, times in times_s.items()},
            "ratios": {f"{ours} / {name}": _ratio(times_s, ours, name) for ours in (RGB, YUV) for name in peers},
            "of_best_peer": min((_ratio(times_s, RGB, name) for name in peers), default=None),
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
    requests = [msgspec.structs.replace(request, crop=ViewCrop(view=view)) for request in spans for view in range(3)]
    alone = FramefeedStart(root=root, requests=requests, pixel_format="rgb24")
    starts = {"alone": alone, "together": replace(alone, together=3)}
    one_by_one, together = (start() for start in starts.values())
    for number in range(min(_PROVED_CLIPS, len(spans))):
        for view, pixels in enumerate(together.together(number)):
            if not np.array_equal(pixels, one_by_one.clip(3 * number + view)):
                raise FramefeedError(f"bench: crop {view} of span {number} differs when decoded together")
    with contest(starts) as running:
        return _ratio(running.cpu_seconds(rounds), "together", "alone")


def profile(root: Path, clips: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of CPU time of a clip by stage, and its packets; the stages and `python`, the rest, make `total`.

    Of each case's rounds, which take turns, the one of median time.
    """
    cases = {}
    for shape in (SPARSE, DENSE):
        requests = draw_requests(root, shape, clips)
        for pixel_format in get_args(PixelFormat):
            own = FramefeedStart(root=root, requests=requests, pixel_format=pixel_format)()
            own.round()
            cases[f"{shape.title}, {pixel_format}"] = own
    timed = [{title: _timed_round(own) for title, own in cases.items()} for _ in range(rounds)]
    found = {}
    for title, own in cases.items():
        total_s, spent_s = sorted((of_all[title] for of_all in timed), key=itemgetter(0))[rounds // 2]
        packets = statistics.mean(info.fed_packets for info in own.infos)
        found[title] = {**_profile_ms(total_s, spent_s, clips), "packets": round(packets, 1)}
    return found


def _timed_round(own: Framefeed) -> tuple[float, dict[str, float]]:
    with timed_stages() as spent_s:
        began = time.process_time()
        own.round()
        return time.process_time() - began, spent_s


def _profile_ms(total_s: float, spent_s: dict[str, float], clips: int) -> dict[str, float]:
    """Of one clip, in hundredths of a millisecond that add up."""
    stages_ms = {stage: round(1e3 * stage_s / clips, 2) for stage, stage_s in spent_s.items()}
    total_ms = round(1e3 * total_s / clips, 2)
    return {**stages_ms, "python": round(total_ms - sum(stages_ms.values()), 2), "total": total_ms}
