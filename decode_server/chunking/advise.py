"""`framefeed chunk --advise`: chunk length and profile for a training run, from its numbers and a sample of its videos.

Equation 3 of the AVION paper (arXiv 2309.16669, §4.3) bounds the chunk length T of readers that read whole chunks:
B·ρ·T ≤ S_r·Δ, for B clips a step, ρ bits a second of video, storage that reads S_r and steps of Δ seconds. With a
packet index a clip reads only what it decodes, b bytes whatever T is, and what is left of the bound is B·b ≤ S_r·Δ.
Both, and the time to decode a clip, are measured on the videos as each profile codes them. The advice itself is pure.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np
from rich.console import Console
from rich.table import Table

from decode_server.chunking.chunk_run import Running
from decode_server.chunking.chunk_workers import ChunkTask
from decode_server.chunking.profiles import PROFILES
from decode_server.chunking.sampled_cost import SampledCost, durations_s, sample_costs
from decode_server.chunking.transcode import CHUNK_EXTENSION, ChunkSettings
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.sources.file_names import for_people
from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput, CorruptMedia
from framefeed.request import ClipRequest
from framefeed.sampling import Segments
from framefeed.show_value import show_bytes

USUAL_LENGTHS_S = (1, 2, 5, 10, 15, 30, 60)
_LEAST_S = 15  # shorter chunks make files and chunk-crossing clips many, and the index needs none shorter
_SAMPLE_VIDEOS, _SAMPLE_S = 3, 10
_SAMPLE_CLIPS, _ROUNDS = 24, 3
_SIZE_PX = 224
_SOURCE = "(Equation 3: Zhao and Krähenbühl, AVION, arXiv 2309.16669, section 4.3)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What training asks for: `batch_clips` clips of `clip_frames` frames from `clip_s` seconds each `step_s`, of
    storage that reads `storage_bytes_per_s`.
    """

    batch_clips: int
    step_s: float
    storage_bytes_per_s: float
    clip_frames: int = 4
    clip_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("batch_clips", "step_s", "storage_bytes_per_s", "clip_frames", "clip_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"is {value:g}, wanted more than 0", of="advise", field=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileCost:
    """What a profile costs on the sample: bits a second of video, bytes read and CPU milliseconds spent a clip, and CPU
    seconds to make the chunks of a second of video.
    """

    profile: str
    bits_per_s: float
    clip_bytes: float
    clip_ms: float
    code_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The profile and chunk length to use, and why."""

    profile: str
    chunk_s: int
    why: str


def longest_chunk_s(load: Load, *, bits_per_s: float) -> float:
    """T of equation 3 at equality, B·ρ·T = S_r·Δ: the longest chunk, in s, of which each clip may read the whole."""
    return load.storage_bytes_per_s * load.step_s / (load.batch_clips * bits_per_s / 8)


def usual_length_s(limit_s: float) -> int:
    """The longest usual chunk length up to a limit; the shortest where none is."""
    return max((length for length in USUAL_LENGTHS_S if length <= limit_s), default=USUAL_LENGTHS_S[0])


def cores(load: Load, cost: ProfileCost) -> float:
    """CPU cores that decode as fast as training asks."""
    return load.batch_clips * cost.clip_ms / 1e3 / load.step_s


def read_bytes_per_s(load: Load, cost: ProfileCost) -> float:
    """Bytes a second that clips read through the packet index, whatever the chunk length."""
    return load.batch_clips * cost.clip_bytes / load.step_s


def advise(costs: Sequence[ProfileCost], load: Load) -> Advice:
    """A profile whose reads the storage affords, where twice the bytes must at least halve the decoding; and a length.

    The length is the longest usual one that equation 3 allows, but no less than 15 s, since with the index the equation
    binds other readers only. If the storage affords no profile, it is the one that reads least.
    """
    affordable = [cost for cost in costs if read_bytes_per_s(load, cost) <= load.storage_bytes_per_s]
    if affordable:
        chosen = min(affordable, key=lambda cost: cost.bits_per_s * cost.clip_ms)
    else:
        chosen = min(costs, key=lambda cost: cost.clip_bytes)
    limit_s = longest_chunk_s(load, bits_per_s=chosen.bits_per_s)
    chunk_s = max(usual_length_s(limit_s), _LEAST_S)
    why = _why(load, chosen, limit_s=limit_s, chunk_s=chunk_s)
    return Advice(profile=chosen.profile, chunk_s=chunk_s, why=why)


def amount(cost: ProfileCost, *, hours: float) -> str:
    """What chunking so many hours of video with a profile leaves and takes."""
    chunk_bytes = hours * 3600 * cost.bits_per_s / 8
    return f"your {hours:.3f} h → {show_bytes(chunk_bytes)}, {hours * cost.code_s:.3f} core-hours"


def _why(load: Load, chosen: ProfileCost, *, limit_s: float, chunk_s: int) -> str:
    batch, step_s, storage = load.batch_clips, load.step_s, load.storage_bytes_per_s / 1e6
    rate, share = read_bytes_per_s(load, chosen) / 1e6, read_bytes_per_s(load, chosen) / load.storage_bytes_per_s
    equation = (
        f"Equation 3, B·ρ·T ≤ S_r·Δ: {batch} clips × {chosen.bits_per_s / 1e6:.2f} Mb/s × T ≤ "
        f"{storage:g} MB/s × {step_s:g} s gives T ≤ {limit_s:.1f} s"
    )
    if limit_s >= _LEAST_S:
        length = f"{equation}, so {chunk_s} s suits even readers that read a whole chunk a clip."
    else:
        length = (
            f"{equation}: a reader of whole chunks would need {usual_length_s(limit_s)} s or less. framefeed does not, "
            f"so it is {chunk_s} s, where {min(load.clip_s / chunk_s, 1):.0%} of the clips of {load.clip_s:g} s cross "
            f"into the next chunk."
        )
    bound = f"{batch} × {chosen.clip_bytes / 1e3:.0f} kB / {step_s:g} s = {rate:.0f} MB/s"
    index = f"Through the packet index a clip reads only what it decodes, whatever T is: {bound}, {share:.0%} of S_r."
    if share > 1:
        slow_s = batch * chosen.clip_bytes / load.storage_bytes_per_s
        index += f" No profile fits this storage; with this one steps take at least {slow_s:.1f} s."
    cpu = (
        f"Decoding {load.clip_frames} frames of {load.clip_s:g} s takes {chosen.clip_ms:.1f} ms of CPU as "
        f"{chosen.profile!r}, so {batch} clips every {step_s:g} s keep {cores(load, chosen):.1f} cores busy; of the "
        f"profiles whose reads fit, it has the least bytes × decoding time."
    )
    return f"{length} {index} {cpu}"


def measure_costs(
    videos: dict[str, Path], load: Load, *, settings: ChunkSettings, running: Running
) -> tuple[list[ProfileCost], float]:
    """What each profile costs, and how many hours all videos are by their heads: encodes the first seconds of some of
    the videos in each profile and decodes clips of them with the real engine.

    Blocks for some seconds of encoding and decoding a profile; writes to a temporary folder only.

    Raises CorruptMedia when none of the sample can be used, BadInput when it is shorter than the clips asked for.
    """
    if not videos:
        raise BadInput("advise: there is no video to sample")
    names, jobs = list(videos), running.processes
    told_s = durations_s(list(videos.values()), jobs=jobs)
    sample = dict.fromkeys(names[round(n * (len(names) - 1) / (_SAMPLE_VIDEOS - 1))] for n in range(_SAMPLE_VIDEOS))
    with tempfile.TemporaryDirectory(prefix="framefeed-advise-") as folder, ExitStack() as stack:
        engines: dict[str, tuple[Engine, list[ClipRequest]]] = {}
        bits_per_s: dict[str, float] = {}
        code_s: dict[str, float] = {}
        for profile in PROFILES.values():
            if running.console is not None:
                running.console.print(f"sampling {len(sample)} videos as {profile.name}…", highlight=False)
            root = Path(folder) / profile.name
            own = replace(settings, profile=profile, chunk_s=_SAMPLE_S, limit_s=_SAMPLE_S)
            costs = _encode({name: videos[name] for name in sample}, root, own, jobs)
            coded_s = sum(cost.record.duration_s for cost in costs)
            bits_per_s[profile.name] = 8 * sum(cost.record.media_bytes for cost in costs) / coded_s
            code_s[profile.name] = sum(cost.cpu_s for cost in costs) / coded_s
            library = stack.enter_context(closing(Library(root)))
            engines[profile.name] = stack.enter_context(closing(Engine(library))), _requests(library, load)
        measured = [replace(cost, code_s=code_s[cost.profile]) for cost in _decode(engines, bits_per_s)]
        return measured, sum(told for told in told_s.values() if isinstance(told, float)) / 3600


def _encode(sample: dict[str, Path], root: Path, settings: ChunkSettings, jobs: int) -> list[SampledCost]:
    staging = root.with_name(root.name + ".parts")
    tasks = [
        ChunkTask(
            video=name,
            source=source,
            folder=root / f"{number}.{CHUNK_EXTENSION}",
            staging=staging / str(number),
            settings=settings,
        )
        for number, (name, source) in enumerate(sample.items())
    ]
    costs = [cost for _, cost in sample_costs(tasks, jobs=jobs) if isinstance(cost, SampledCost)]
    if not costs:
        files = ", ".join(for_people(str(source)) for source in sample.values())
        raise CorruptMedia(f"advise: none of the {len(sample)} sampled videos can be used: {files}")
    build_index(root)
    return costs


def _requests(library: Library, load: Load) -> list[ClipRequest]:
    """The same clips whatever the profile."""
    usable = [e for e in library.manifest.videos.values() if e.duration_s > load.clip_s]
    if not usable:
        longest_s = max(entry.duration_s for entry in library.manifest.videos.values())
        raise BadInput(f"advise: clips are {load.clip_s:g} s, the longest sampled video {longest_s:.1f} s")
    rng = np.random.Generator(np.random.Philox(key=7))
    requests = []
    for number in range(_SAMPLE_CLIPS):
        entry = usable[number % len(usable)]
        start_s = float(rng.uniform(0, entry.duration_s - load.clip_s))
        requests.append(
            ClipRequest(
                video=entry.video,
                start_s=start_s,
                end_s=start_s + load.clip_s,
                sampling=Segments(frames=load.clip_frames, jitter=True),
                crop=RandomResizedCrop(),
                width_px=_SIZE_PX,
                height_px=_SIZE_PX,
                seed=number,
                pixel_format="yuv420p",
            )
        )
    return requests


def _decode(engines: dict[str, tuple[Engine, list[ClipRequest]]], bits_per_s: dict[str, float]) -> list[ProfileCost]:
    """CPU time a clip, in interleaved rounds, so that whatever else the machine does weighs on all alike."""
    spent_s: dict[str, list[float]] = {name: [] for name in engines}
    read: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for name, (engine, requests) in engines.items():
            buffer = np.empty(max(request.clip_bytes for request in requests), np.uint8)
            began = process_time()
            read[name] = statistics.mean(engine.decode(request, buffer).read_bytes for request in requests)
            spent_s[name].append((process_time() - began) / len(requests))
    return [
        ProfileCost(
            profile=name,
            bits_per_s=bits_per_s[name],
            clip_bytes=read[name],
            clip_ms=1e3 * statistics.median(spent_s[name]),
        )
        for name in engines
    ]


def print_advice(costs: Sequence[ProfileCost], load: Load, advice: Advice, console: Console, *, hours: float) -> None:
    """Print the table of profiles, the proposal and its reasons, and what chunking `hours` of video so comes to."""
    table = Table(
        "profile", "Mb/s", "vs archive", "CPU ms/clip", "cores", "kB read/clip", "MB/s read", "Eq. 3: T ≤ s", box=None
    )
    archive = next((cost.bits_per_s for cost in costs if cost.profile == "archive"), math.nan)
    for cost in costs:
        table.add_row(
            f"[bold]{cost.profile}[/bold]" if cost.profile == advice.profile else cost.profile,
            f"{cost.bits_per_s / 1e6:.2f}",
            f"{cost.bits_per_s / archive:.2f}",
            f"{cost.clip_ms:.1f}",
            f"{cores(load, cost):.1f}",
            f"{cost.clip_bytes / 1e3:.0f}",
            f"{read_bytes_per_s(load, cost) / 1e6:.1f}",
            f"{longest_chunk_s(load, bits_per_s=cost.bits_per_s):.1f}",
        )
    console.print(table)
    console.print(f"\nproposed: --profile {advice.profile} --chunk-s {advice.chunk_s}", highlight=False)
    chosen = next(cost for cost in costs if cost.profile == advice.profile)
    console.print(f"{amount(chosen, hours=hours)}\n{advice.why}\n{_SOURCE}", markup=False, highlight=False)
