"""What chunking costs, measured on parts of some videos: CPU time and bytes a second of video, each in its own process.

Matching the quality to a source is a cost a video, whatever its length; decoding and coding grow with it. So the two
are timed apart. It writes where it is told and decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decode_server.chunking.chunk_workers import ChunkTask, refusal
from decode_server.chunking.quality_match import matched
from decode_server.chunking.transcode import ChunkRecord, chunk_video
from decode_server.media.container import open_container
from decode_server.sources.isolated import run_isolated

_MICROSECONDS = 1_000_000  # the unit of a container's duration


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCost:
    """What the sample of one video cost: CPU seconds to match its quality, and to decode and code it; how long both
    took by the clock; and the record of the chunks that it left.
    """

    match_cpu_s: float
    code_cpu_s: float
    took_s: float
    record: ChunkRecord

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all of it."""
        return self.match_cpu_s + self.code_cpu_s


def sample_costs(tasks: Sequence[ChunkTask], *, jobs: int) -> list[tuple[ChunkTask, SampledCost | str]]:
    """Chunk the samples, `jobs` at a time; of a video of which nothing can be used, why. Blocks until all are done."""
    return list(run_isolated(tasks, _sample, jobs=jobs))


def _sample(task: ChunkTask) -> SampledCost | str:
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    try:
        wanted = task.settings
        profile = matched(wanted.profile, task.source, short_side_px=wanted.short_side_px, fps=wanted.fps)
        matched_cpu_s = time.process_time()
        settings = replace(wanted, profile=replace(profile, match_archive=False))
        record = chunk_video(task.source, task.folder, staging=task.staging, settings=settings, on_bytes=lambda _: None)
    except Exception as error:
        return refusal(error)
    return SampledCost(
        match_cpu_s=matched_cpu_s - began_cpu_s,
        code_cpu_s=time.process_time() - matched_cpu_s,
        took_s=time.monotonic() - began_s,
        record=record,
    )


def durations_s(files: Sequence[Path], *, jobs: int) -> dict[Path, float | str | None]:
    """How long each file says it is, None where it does not say; of one that cannot be opened, why. Blocks until all
    heads are read.
    """
    return dict(run_isolated(files, _duration_s, jobs=jobs))


def _duration_s(file: Path) -> float | str | None:
    try:
        with open_container(file) as container:
            return container.duration / _MICROSECONDS if container.duration else None
    except OSError as error:  # FFmpeg's too
        return f"it cannot be read: {error.strerror or error}"
    except Exception as error:
        return refusal(error)
