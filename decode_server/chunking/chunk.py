"""The verb `chunk`: video files and folders to a root of short chunks; knows neither codecs nor processes.

ROOT/{video}.mp4/{start}.mp4, starts in whole seconds without padding (0, 15, 30…), and ROOT/{video}.mp4/chunks.json,
the record by which a later run sees that the video is finished. A video's name is its path below the folder it was
found in, without suffix. ROOT/framefeed.chunks.json reports the last run: every video, used or refused, with reasons.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from rich.console import Console

from decode_server.chunking.advise import Load, advise, measure_costs, print_advice
from decode_server.chunking.chunk_report import VideoOutcome, print_totals, report_of
from decode_server.chunking.chunk_run import Running, chunk_found, finished_videos, made_root, require_replaceable
from decode_server.chunking.dry_run import forecast, print_forecast
from decode_server.chunking.encoder_trial import try_encoder
from decode_server.chunking.find_sources import Sources, find_videos
from decode_server.chunking.frame_rate import parse_rate
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.transcode import ChunkSettings
from decode_server.indexing.index import Build, check_gap, index_root
from decode_server.media.timeline import DEFAULT_MAX_GAP_S
from decode_server.sources.report import Report
from decode_server.sources.walk import WalkRules
from framefeed.errors import BadInput, CorruptMedia
from framefeed.report_file import check_report


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Cut videos into chunks that are cheap to read at random."""

    FIRST_OPTIONS: ClassVar[tuple[str, ...]] = (
        "--out",
        "--profile",
        "--short-side-px",
        "--chunk-s",
        "--fps",
        "--audio",
        "--jobs",
        "--dry-run",
        "--overwrite",
        "--all-files",
        "--report",
        "--advise",
    )

    src: tyro.conf.Positional[tuple[Path, ...]]
    """Video files, or folders that are searched for video files."""
    out: Path | None = None
    """Root to write: OUT/{video}.mp4/{start}.mp4."""
    profile: str = "train"
    """How to encode: train (cheap random access), balanced, archive (small but slow to read), intra (key frames)."""
    encoder: str | None = None
    """Another encoder for the profile: libx264, libx265 or libsvtav1."""
    encoder_options: str = ""
    """Encoder options over the profile's, such as preset=fast:crf=28:ref=2, by the encoder's own names."""
    short_side_px: int = 288
    """Scale the short side down to this; never up."""
    chunk_s: int = 15
    """Length of a chunk in seconds."""
    fps: str | None = None
    """Frames a second of the chunks, such as 30 or 29.97; the source's own frames and times if not given."""
    audio: bool = False
    """Keep the sound, as AAC."""
    max_gap_s: float = DEFAULT_MAX_GAP_S
    """A longer pause, in which one frame stays on show, is cut out; in seconds."""
    jobs: int | None = None
    """Videos at a time; the CPUs there are if not given."""
    dry_run: bool = False
    """Write nothing, but say what a run would take and leave: hours, GB, core-hours, time and free space."""
    overwrite: bool = False
    """Make videos again that lie in OUT and were made with other options or from another file of that name."""
    all_files: bool = False
    """Take files of every suffix, not only those of usual video suffixes."""
    follow_links: bool = False
    """Take files that links lead to outside of the folders named too."""
    report: Path | None = None
    """File for a JSON line about each input: used whole, in part, refused or ignored, and why."""
    advise: bool = False
    """Write nothing, but propose profile and chunk length for a training run from a sample of the videos."""
    batch_clips: int | None = None
    """With --advise: clips of a training step, of all GPUs together."""
    step_s: float | None = None
    """With --advise: seconds of a training step."""
    storage_mb_per_s: float | None = None
    """With --advise: what the storage reads, such as 80 (hard disk), 500 (SATA SSD) or 1100 (10 GbE)."""
    clip_frames: int | None = None
    """With --advise: frames of a clip; 4 if not given."""
    clip_s: float | None = None
    """With --advise: seconds that a clip is taken from; 1 if not given."""

    def run(self) -> None:
        """Chunk what is not chunked yet, print what became of it, build the root's index.

        Raises:
            BadInput: the sources or the options cannot be used.
            CorruptMedia: not one video is usable, or fewer are than are refused; what is, is chunked and indexed.
            StorageFault: the root cannot be written.
        """
        check_report(self.report)
        check_gap(self.max_gap_s)
        load = self._load()
        running = Running(jobs=self.jobs, overwrite=self.overwrite, console=Console(stderr=True))
        settings = self._settings()
        if self.out is None and not (load or self.dry_run):
            raise BadInput("chunk: --out is missing; wanted the root to write")
        rules = WalkRules(all_files=self.all_files, follow_links=self.follow_links)
        sources = find_videos(self.src, self.out, rules)
        if load:
            costs, hours = measure_costs(sources.videos, load, settings=settings, running=running)
            print_advice(costs, load, advise(costs, load), Console(), hours=hours)
        elif self.dry_run:
            self._forecast(sources, settings, running)
        else:
            self._chunk(sources, settings, running)

    def _chunk(self, sources: Sources, settings: ChunkSettings, running: Running) -> None:
        assert self.out is not None
        began_s = time.monotonic()
        with made_root(self.out):
            outcomes = chunk_found(sources, self.out, settings=settings, running=running)
            report = report_of(outcomes, sources)
            self._show(report)
            print_totals(outcomes, Console(), inputs=len(report.files), took_s=time.monotonic() - began_s)
            _require_some(report)
        build = Build(jobs=running.processes, console=running.console)
        print(f"data set {index_root(self.out, build=build)[0].identity}")
        report.require_mostly_used()

    def _show(self, report: Report) -> None:
        report.show(Console())
        if self.report:
            report.write(self.report)

    def _forecast(self, sources: Sources, settings: ChunkSettings, running: Running) -> None:
        """What a run would do. Raises what that would raise before its work."""
        kept = finished_videos(sources, self.out, settings) if self.out else {}
        left = {video: source for video, source in sources.videos.items() if video not in kept}
        if self.out:
            require_replaceable(left, self.out, settings, overwrite=self.overwrite)
        told, refused = forecast(left, settings=settings, running=running)
        print_forecast(told, Console(), kept=len(kept), out=self.out)
        outcomes = [
            VideoOutcome(
                video=video, source=source, record=kept.get(video), kept=video in kept, reason=refused.get(video, "")
            )
            for video, source in sources.videos.items()
        ]
        report = report_of(outcomes, sources)
        self._show(report)
        _require_some(report)
        report.require_mostly_used()

    def _settings(self) -> ChunkSettings:
        profile = profile_named(self.profile, encoder=self.encoder, options=self.encoder_options)
        try_encoder(profile)
        return ChunkSettings(
            profile=profile,
            short_side_px=self.short_side_px,
            chunk_s=self.chunk_s,
            fps=parse_rate(self.fps) if self.fps else None,
            audio=self.audio,
            max_gap_s=self.max_gap_s,
        )

    def _load(self) -> Load | None:
        """What training asks for, if advice is wanted. Raises BadInput for half of either."""
        needed = {"batch_clips": self.batch_clips, "step_s": self.step_s, "storage_mb_per_s": self.storage_mb_per_s}
        given = [
            name
            for name, value in (needed | {"clip_frames": self.clip_frames, "clip_s": self.clip_s}).items()
            if value is not None
        ]
        if not self.advise:
            if given:
                raise BadInput(f"chunk: {_option(given[0])} goes with --advise only")
            return None
        missing = [name for name in needed if name not in given]
        if missing:
            raise BadInput(f"chunk: --advise needs {' and '.join(_option(name) for name in missing)} too")
        if self.out is not None or (self.profile, self.encoder, self.encoder_options) != ("train", None, ""):
            raise BadInput("chunk: --advise writes nothing and tries every profile; leave --out and the encoding away")
        assert self.batch_clips is not None
        assert self.step_s is not None
        assert self.storage_mb_per_s is not None
        if not self.storage_mb_per_s > 0:
            raise BadInput(f"--storage-mb-per-s is {self.storage_mb_per_s:g}, wanted more than 0")
        return Load(
            batch_clips=self.batch_clips,
            step_s=self.step_s,
            storage_bytes_per_s=self.storage_mb_per_s * 1e6,
            clip_frames=4 if self.clip_frames is None else self.clip_frames,
            clip_s=1.0 if self.clip_s is None else self.clip_s,
        )


def _require_some(report: Report) -> None:
    """Raises CorruptMedia if not one input is used."""
    if all(file.use.refused for file in report.files):
        first = report.files[0]
        raise CorruptMedia(f"none of {len(report.files)} videos is usable; first: {first.file}: {first.use.refused}")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
