"""`framefeed chunk --dry-run`: what a run will take and leave, from the heads of all videos and samples of some.

The forecast itself is pure: what a second of video cost in the samples, times the seconds there are.
"""

from __future__ import annotations

import heapq
import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from decode_server.chunking.chunk_run import Running, size_of
from decode_server.chunking.chunk_workers import ChunkTask
from decode_server.chunking.sampled_cost import SampledCost, durations_s, sample_costs
from decode_server.chunking.transcode import CHUNK_EXTENSION, ChunkSettings
from framefeed.cgroups import read_cpu_quota
from framefeed.show_value import show_bytes

_SAMPLE_VIDEOS, _SAMPLE_S = 12, 10
_STARTS = 3  # one behind the other: the run, its chunkers, those who index
_SHOWN_SLOWDOWN = 1.2
_MANY = 8.0  # times what is usual
_SPARE = 1.1  # of the room that the chunks take, for the index and what is in progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """One video to make: how large its file is, and how long it says it is, None where it says nothing."""

    source_bytes: int
    duration_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run over `videos` will take and leave; `sampled` of them were tried, `unusable` others cannot be.
    `took_s` is of a machine that nobody else works on, `slowdown` how many times as long the samples took as it is now.
    """

    videos: int
    sampled: int
    unusable: int
    source_bytes: int
    hours: float
    chunk_bytes: float
    core_s: float
    took_s: float
    jobs: int
    slowdown: float = 1.0


def forecast_of(
    lengths: Mapping[str, Length], samples: Mapping[str, SampledCost | str], *, jobs: int, cpus: float
) -> Forecast:
    """What chunking all videos costs, from `samples` of some of them by name, `jobs` at a time on `cpus` CPUs. Videos
    that were sampled count for themselves, the others as the mean of those.
    """
    usable = {video: cost for video, cost in samples.items() if isinstance(cost, SampledCost)}
    seconds = _known_seconds(lengths, usable)
    coded_s = sum(cost.record.duration_s for cost in usable.values()) or 1.0
    mean_code = sum(cost.code_cpu_s for cost in usable.values()) / coded_s
    mean_bytes = sum(cost.record.media_bytes for cost in usable.values()) / coded_s
    mean_video = sum(cost.video_cpu_s for cost in usable.values()) / max(len(usable), 1)
    core_s: dict[str, float] = {}
    chunk_bytes = 0.0
    for video, long_s in seconds.items():
        cost = usable.get(video)
        sampled_s = cost.record.duration_s if cost else 0.0
        if cost is not None and sampled_s > 0:
            core_s[video] = cost.video_cpu_s + cost.code_cpu_s * long_s / sampled_s
            chunk_bytes += cost.record.media_bytes * long_s / sampled_s
        elif video not in samples:
            core_s[video] = mean_video + mean_code * long_s
            chunk_bytes += mean_bytes * long_s
    start_s = min((cost.before_cpu_s for cost in usable.values()), default=0.0)
    pace, crowd = _pace(list(usable.values())), max(jobs / cpus, 1.0)
    slowdown = max(statistics.median([_slowdown(cost) for cost in usable.values()] or [1.0]) / crowd, 1.0)
    return Forecast(
        videos=len(lengths),
        sampled=len(usable),
        unusable=len(samples) - len(usable),
        source_bytes=sum(length.source_bytes for length in lengths.values()),
        hours=sum(seconds.values()) / 3600,
        chunk_bytes=chunk_bytes,
        core_s=sum(core_s.values()) + start_s * (1 + (_STARTS - 1) * jobs),
        took_s=crowd * (_STARTS * start_s + pace * _makespan_s(list(core_s.values()), jobs)),
        jobs=jobs,
        slowdown=slowdown,
    )


def _pace(samples: Sequence[SampledCost]) -> float:
    """Seconds by the clock for one of a CPU's, where nobody else wants it: more than one where storage is waited for.
    The median, as one sample may have met anything.
    """
    paces = [(one.took_s - one.waited_s) / (one.match_cpu_s + one.code_cpu_s) for one in samples if one.code_cpu_s]
    return max(statistics.median(paces or [1.0]), 1.0)


def _slowdown(cost: SampledCost) -> float:
    """How many times as long a sample took, since others had the CPUs."""
    return cost.took_s / max(cost.took_s - cost.waited_s, 1e-9)


def _known_seconds(lengths: Mapping[str, Length], usable: Mapping[str, SampledCost]) -> dict[str, float]:
    """How long each video is: by its frames where it was sampled, else by its head; where that does not say, as long as
    others of its size are.
    """
    told = [length for length in lengths.values() if length.duration_s]
    bytes_per_s = sum(t.source_bytes for t in told) / (sum(t.duration_s or 0 for t in told) or 1.0)
    seconds = {}
    for video, length in lengths.items():
        record = usable[video].record if video in usable else None
        sampled_s = record.duration_s if record else 0.0
        if record and 0 < sampled_s < _SAMPLE_S:  # the sample was the whole video
            seconds[video] = sampled_s
        elif record and record.timeline_s > 0:  # by the times of its frames, whatever its head says
            seconds[video] = record.timeline_s
        else:
            seconds[video] = length.duration_s or (length.source_bytes / bytes_per_s if bytes_per_s else sampled_s)
    return seconds


def _makespan_s(parts_s: Sequence[float], jobs: int) -> float:
    """How long parts take, each begun in turn by the worker that is free first."""
    free_s = [0.0] * jobs
    for part_s in parts_s:
        heapq.heapreplace(free_s, free_s[0] + part_s)
    return max(free_s)


def forecast(
    videos: Mapping[str, Path], *, settings: ChunkSettings, running: Running
) -> tuple[Forecast, dict[str, str]]:
    """Sample up to a dozen of the videos and say what chunking all takes, and which cannot be used, why. Blocks for
    their heads and some seconds of coding a sample; writes to a temporary folder only.
    """
    jobs = min(running.processes, max(len(videos), 1))
    told_s = durations_s(list(videos.values()), jobs=jobs)
    lengths = {video: _length(source, told_s[source]) for video, source in videos.items()}
    refused = {video: why for video, source in videos.items() if isinstance(why := told_s[source], str)}
    by_size = sorted(videos, key=lambda video: lengths[video].source_bytes)
    chosen = list(dict.fromkeys([*_doubtful(lengths), *(by_size[at] for at in _spread(len(by_size), _SAMPLE_VIDEOS))]))
    if running.console is not None:
        running.console.print(f"sampling {len(chosen)} of {len(videos)} videos…", highlight=False)
    with tempfile.TemporaryDirectory(prefix="framefeed-dry-run-") as scratch:
        tasks = [
            ChunkTask(
                video=video,
                source=videos[video],
                folder=Path(scratch) / f"{number}.{CHUNK_EXTENSION}",
                staging=Path(scratch) / "parts" / str(number),
                settings=replace(settings, limit_s=_SAMPLE_S),
            )
            for number, video in enumerate(chosen)
        ]
        samples = {task.video: cost for task, cost in sample_costs(tasks, jobs=jobs)}
    refused |= {video: cost for video, cost in samples.items() if isinstance(cost, str)}
    return forecast_of(lengths, {**refused, **samples}, jobs=jobs, cpus=_cpus()), refused


def _cpus() -> float:
    """How many CPUs this process may use at once, by its affinity and its container's quota."""
    return max(min(len(os.sched_getaffinity(0)), read_cpu_quota() or math.inf), 0.01)


def _length(source: Path, told_s: float | str | None) -> Length:
    return Length(source_bytes=size_of(source), duration_s=None if isinstance(told_s, str) else told_s)


def _doubtful(lengths: Mapping[str, Length]) -> list[str]:
    """The videos whose heads say far more seconds a byte than those of the others, as one wrong time stamp makes them:
    their frames are looked at. The dozen that say most.
    """
    told = {
        video: length.duration_s / max(length.source_bytes, 1) for video, length in lengths.items() if length.duration_s
    }
    usual = statistics.median(told.values()) if told else 0.0
    return sorted((video for video in told if told[video] > _MANY * usual), key=told.__getitem__)[-_SAMPLE_VIDEOS:]


def _spread(many: int, few: int) -> list[int]:
    """At most `few` numbers below `many`, evenly from the first to the last."""
    if many <= few:
        return list(range(many))
    return sorted({round(n * (many - 1) / (few - 1)) for n in range(few)})


def print_forecast(told: Forecast, console: Console, *, kept: int, out: Path | None) -> None:
    """Print a forecast, and whether there is room for it where `out` is to lie."""
    busy_min = told.took_s * told.slowdown / 60
    shared = f"; {busy_min:.1f} min while others keep it as busy as now" if told.slowdown >= _SHOWN_SLOWDOWN else ""
    done = f", {kept} are done already" if kept else ""
    lines = [
        f"would chunk {told.videos} videos of {told.hours:.3f} h, {show_bytes(told.source_bytes)}{done}",
        f"chunks     {show_bytes(told.chunk_bytes)}",
        f"work       {told.core_s / 3600:.4f} core-hours ({told.core_s:.0f} s)",
        f"time       {told.took_s / 60:.1f} min with --jobs {told.jobs} on this machine{shared}",
        f"sampled    {told.sampled} videos" + (f"; {told.unusable} others cannot be used" if told.unusable else ""),
    ]
    if out is not None:
        above = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
        free_bytes = shutil.disk_usage(above).free
        lines.append(f"free       {show_bytes(free_bytes)} at {out}")
        if free_bytes < told.chunk_bytes * _SPARE:
            lines.append("warning: the chunks do not fit there")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
