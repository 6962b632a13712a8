"""What chunking costs, measured on parts of some videos: CPU time and bytes a second of video, each in its own process.

Matching the quality to a source, and reading its time line, are costs a video, decoding and coding are costs a second
of it. So the two are timed apart, and so is what a process takes to start. It writes where it is told and decides
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from decode_server.chunking.chunk_workers import ChunkTask, refusal
from decode_server.chunking.quality_match import matched
from decode_server.chunking.source import SourceVideo
from decode_server.chunking.transcode import ChunkRecord, chunk_video
from decode_server.media.container import open_container
from decode_server.sources.isolated import run_isolated

_SCHEDULED = Path("/proc/self/schedstat")  # nanoseconds on a CPU, and waiting for one
_MICROSECONDS = 1_000_000  # the unit of a container's duration


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCost:
    """What the sample of one video cost: CPU seconds to match its quality, to open it up to its first frame, and to
    decode and code it; how long all took by the clock, and how much of that the CPUs were others'; what its process had
    cost before it, of which the least is that of starting one; and the record of the chunks that it left.
    """

    match_cpu_s: float
    code_cpu_s: float
    took_s: float
    record: ChunkRecord
    open_cpu_s: float = 0.0
    waited_s: float = 0.0
    before_cpu_s: float = 0.0

    @property
    def video_cpu_s(self) -> float:
        """CPU seconds that a video of any length costs."""
        return self.match_cpu_s + self.open_cpu_s

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all of it."""
        return self.video_cpu_s + self.code_cpu_s


def sample_costs(tasks: Sequence[ChunkTask], *, jobs: int) -> list[tuple[ChunkTask, SampledCost | str]]:
    """Chunk the samples, `jobs` at a time; of a video of which nothing can be used, why. Blocks until all are done."""
    return list(run_isolated(tasks, _sample, jobs=jobs))


def _sample(task: ChunkTask) -> SampledCost | str:
    before_cpu_s = time.process_time()
    try:
        wanted = task.settings
        open_cpu_s = _open_cpu_s(task)
        began_s, began_cpu_s, began_wait_s = time.monotonic(), time.process_time(), _waited_s()
        profile = matched(wanted.profile, task.source, short_side_px=wanted.short_side_px, fps=wanted.fps)
        matched_cpu_s = time.process_time()
        settings = replace(wanted, profile=replace(profile, match_archive=False))
        record = chunk_video(task.source, task.folder, staging=task.staging, settings=settings, on_bytes=lambda _: None)
    except Exception as error:
        return refusal(error)
    return SampledCost(
        match_cpu_s=matched_cpu_s - began_cpu_s,
        code_cpu_s=max(time.process_time() - matched_cpu_s - open_cpu_s, 0.0),
        took_s=time.monotonic() - began_s,
        record=record,
        open_cpu_s=open_cpu_s,
        waited_s=_waited_s() - began_wait_s,
        before_cpu_s=before_cpu_s,
    )


def _open_cpu_s(task: ChunkTask) -> float:
    """CPU seconds up to a source's first frame, which has its whole time line read."""
    began_cpu_s = time.process_time()
    with SourceVideo(task.source, max_gap_s=task.settings.max_gap_s) as video:
        next(video.frames(), None)
    return time.process_time() - began_cpu_s


def _waited_s() -> float:
    """How long this process's first thread could have run so far, and others had the CPUs; 0 where the kernel does not
    say.
    """
    try:
        return int(_SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


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
