"""One video to its folder of chunks, all or nothing, with a record beside them; knows nothing of other videos.

A frame at time t of the source belongs to chunk floor(t / chunk_s), and its time there is t - start, so that
`chunk start + frame time` is the source's time, counted from its first frame, exactly. Chunks are written into a
staging folder that becomes the video's folder by one rename: a video's folder is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from decode_server.chunking.audio import SAMPLES_PER_S, SourceAudio
from decode_server.chunking.chunk_encoder import ChunkEncoder
from decode_server.chunking.frame_rate import at_rate
from decode_server.chunking.profiles import EncodingProfile
from decode_server.chunking.quality_match import matched
from decode_server.chunking.source import SourceVideo, TimedFrame
from decode_server.media.media_use import Loss, MediaUse
from decode_server.media.picture import PictureFilter, SourcePicture, chunk_size_px, describe_picture
from decode_server.media.timeline import DEFAULT_MAX_GAP_S
from framefeed.errors import BadInput, CorruptMedia, StorageFault
from framefeed.new_file import sync_path
from framefeed.regular_file import read_regular

CHUNK_EXTENSION = "mp4"
RECORD_NAME = "chunks.json"
_RECORD_VERSION = 4
_MAX_RECORD_BYTES = 1 << 26
_MOST_NOTES = 8
_USUAL_RATES_FPS = (Fraction(1), Fraction(240))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSettings:
    """How to cut and code: what a finished video was made with, and is made again for when it changes.

    `fps` None keeps the source's frames and times. `limit_s` ends the video there, for samples. Pauses of more than
    `max_gap_s` are cut out.
    """

    profile: EncodingProfile
    short_side_px: int = 288
    chunk_s: int = 15
    fps: Fraction | None = None
    audio: bool = False
    limit_s: int | None = None
    max_gap_s: float = DEFAULT_MAX_GAP_S

    def __post_init__(self) -> None:
        if self.chunk_s < 1:
            raise BadInput(f"--chunk-s is {self.chunk_s}, wanted whole seconds from 1 on")
        if self.short_side_px < 16 or self.short_side_px % 2:
            raise BadInput(f"--short-side-px is {self.short_side_px}, wanted an even number from 16 on")

    def as_json(self) -> dict[str, object]:
        """Plain values that are equal exactly when the settings are."""
        profile: dict[str, object] = {"name": self.profile.name, "codec": self.profile.codec}
        profile |= {"options": self.profile.encoder_options, "match_archive": self.profile.match_archive}
        cut: dict[str, object] = {"short_side_px": self.short_side_px, "chunk_s": self.chunk_s}
        cut |= {"limit_s": self.limit_s, "max_gap_s": self.max_gap_s}
        return {"profile": profile, **cut, "fps": str(self.fps) if self.fps else None, "audio": self.audio}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """What became of one source: its chunks, and what was left out and why.

    `crf` is what the chunks were coded at where the profile is matched to the source, else None.
    `source_start_s` is the container's time of the frame that is second 0 here. `damages` are the stretches, in order,
    of which no frame is used. `repeated_frames` shared their time with the frame before and were left out;
    `skipped_packets` came before the first keyframe; `silenced_packets` of sound did not decode. `notes` are lines on
    what is used but was not as it should be, `longest_frame_s` is for how long one frame stays on show at most.
    `timeline_s` is how long the source is by the times of its frames, also where only a sample of it was made.
    """

    source: str
    source_bytes: int
    source_mtime_ns: int
    settings: dict[str, object]
    crf: float | None
    width_px: int
    height_px: int
    frames: int
    duration_s: float
    source_start_s: float
    chunk_start_s: tuple[int, ...]
    chunk_bytes: tuple[int, ...]
    damages: tuple[Loss, ...]
    repeated_frames: int
    skipped_packets: int
    silenced_packets: int
    notes: tuple[str, ...] = ()
    longest_frame_s: float = 0.0
    timeline_s: float = 0.0

    @property
    def use(self) -> MediaUse:
        """What is used of the source, in the words of every verb."""
        return MediaUse(
            losses=self.damages, notes=self.notes, used_s=self.duration_s, longest_frame_s=self.longest_frame_s
        )

    @property
    def media_bytes(self) -> int:
        """Bytes of all chunks."""
        return sum(self.chunk_bytes)


def read_record(folder: Path) -> ChunkRecord | None:
    """The record of a finished video's folder, None where there is none of this version."""
    try:
        body: dict[str, Any] = json.loads(read_regular(folder / RECORD_NAME, limit_bytes=_MAX_RECORD_BYTES))
        if body.pop("framefeed_chunks") != _RECORD_VERSION:
            return None
        body["damages"] = tuple(Loss(**damage) for damage in body["damages"])
        body["notes"] = tuple(body["notes"])
        body["chunk_start_s"], body["chunk_bytes"] = tuple(body["chunk_start_s"]), tuple(body["chunk_bytes"])
        return ChunkRecord(**body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def was_chunked(folder: Path) -> bool:
    """Whether a folder was made by `chunk_video`, of this version or another."""
    try:
        return "framefeed_chunks" in json.loads(read_regular(folder / RECORD_NAME, limit_bytes=_MAX_RECORD_BYTES))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def finished_record(source: Path, folder: Path, settings: ChunkSettings) -> ChunkRecord | None:
    """The record of `folder` if it was made from `source` as it is now, with these settings; else None."""
    record = read_record(folder)
    stat = source.stat()
    wanted = (stat.st_size, stat.st_mtime_ns, settings.as_json())
    if record is None or (record.source_bytes, record.source_mtime_ns, record.settings) != wanted:
        return None
    sizes = [_size(folder / f"{start_s}.{CHUNK_EXTENSION}") for start_s in record.chunk_start_s]
    return record if tuple(sizes) == record.chunk_bytes else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def chunk_video(
    source: Path, folder: Path, *, staging: Path, settings: ChunkSettings, on_bytes: Callable[[int], None]
) -> ChunkRecord:
    """Cut `source` into `folder`; `staging` is a scratch path on the same file system.

    A folder made before is removed first: chunks of an older source or of other settings do not outlive them.

    Blocks for as long as decoding and encoding take; `on_bytes` is called with the size of every packet read.

    Raises:
        UnsupportedMedia, CorruptMedia: no frame of it can be used; nothing is left behind.
        StorageFault: the source cannot be read.
        OSError: the chunks cannot be written.
        FFmpegError: its pictures cannot be converted or encoded.
    """
    try:
        stat = source.stat()
    except OSError as error:
        raise StorageFault(f"cannot be opened: {error.strerror}") from None
    _clear(folder, staging)
    staging.mkdir()
    try:
        profile = matched(settings.profile, source, short_side_px=settings.short_side_px, fps=settings.fps)
        with (
            SourceVideo(source, on_bytes=on_bytes, max_gap_s=settings.max_gap_s) as video,
            _Cutter(video, source, staging, replace(settings, profile=profile)) as cutter,
        ):
            for timed in _retimed(video, settings):
                if settings.limit_s is not None and timed.ticks >= settings.limit_s * cutter.ticks_per_s:
                    break
                cutter.add(timed)
            cutter.finish()
        record = _record(source, stat, video, cutter, settings)
        with (staging / RECORD_NAME).open("w") as file:
            json.dump({"framefeed_chunks": _RECORD_VERSION, **asdict(record)}, file, indent=1)
        _publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return record


def _retimed(video: SourceVideo, settings: ChunkSettings) -> Iterator[TimedFrame]:
    if settings.fps is None:
        return video.frames()
    return at_rate(video.frames(), ticks_per_s=video.ticks_per_s, fps=settings.fps)


def _record(
    source: Path, stat: os.stat_result, video: SourceVideo, cutter: _Cutter, settings: ChunkSettings
) -> ChunkRecord:
    use = video.use
    if not cutter.chunk_bytes:
        raise CorruptMedia(use.losses[0].reason if use.losses else "has no frame that decodes")
    return ChunkRecord(
        source=str(source),
        source_bytes=stat.st_size,
        source_mtime_ns=stat.st_mtime_ns,
        settings=settings.as_json(),
        crf=cutter.profile.crf if settings.profile.match_archive else None,
        width_px=cutter.size_px[0],
        height_px=cutter.size_px[1],
        frames=cutter.frames,
        duration_s=round(cutter.end_ticks / cutter.ticks_per_s, 6),
        source_start_s=float(video.origin_s),
        chunk_start_s=tuple(cutter.chunk_bytes),
        chunk_bytes=tuple(cutter.chunk_bytes.values()),
        damages=use.losses,
        repeated_frames=video.timeline.late,
        skipped_packets=video.timeline.headless,
        silenced_packets=cutter.silenced_packets,
        notes=(*use.notes, *cutter.notes),
        longest_frame_s=use.longest_frame_s,
        timeline_s=round(float((video.timeline.end - video.timeline.origin) * video.timeline.time_base), 6),
    )


def _clear(folder: Path, staging: Path) -> None:
    """Remove what an earlier attempt left, and the outdated folder, which goes in one piece too."""
    shutil.rmtree(staging, ignore_errors=True)
    staging.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(staging)
        shutil.rmtree(staging)


def _publish(staging: Path, folder: Path) -> None:
    """Make `staging` the video's folder: synced first, then one rename."""
    for path in (*staging.iterdir(), staging):
        sync_path(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging.rename(folder)
    sync_path(folder.parent)


class _Cutter:
    """Sends each frame through the filter of its kind of picture to the encoder of its chunk; one chunk is open at a
    time. All come out as those of the kind that is on show for longest.
    """

    def __init__(self, video: SourceVideo, source: Path, staging: Path, settings: ChunkSettings) -> None:
        self._video, self._source, self._staging, self._settings = video, source, staging, settings
        self._main = video.timeline.main_picture
        self._filters: dict[SourcePicture, PictureFilter] = {}
        self._last_picture: SourcePicture | None = None
        self._encoder: ChunkEncoder | None = None
        self.notes: list[str] = []
        self._audio = self._sound() if settings.audio else None
        self.ticks_per_s = settings.fps.numerator if settings.fps else video.ticks_per_s
        self.frames_per_s = settings.fps or video.frames_per_s
        self.chunk_bytes: dict[int, int] = {}
        self.frames = self.end_ticks = 0
        self.size_px = chunk_size_px(self._main, short_side_px=settings.short_side_px)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._encoder is not None:
            self._encoder.abandon()
        if self._audio is not None:
            self._audio.close()

    @property
    def profile(self) -> EncodingProfile:
        """How the chunks are coded."""
        return self._settings.profile

    @property
    def silenced_packets(self) -> int:
        """Packets of sound that did not decode."""
        return self._audio.damaged_packets if self._audio else 0

    def add(self, timed: TimedFrame) -> None:
        """Encode one frame."""
        start_s = timed.ticks // (self._settings.chunk_s * self.ticks_per_s) * self._settings.chunk_s
        picture = self._filter(timed).apply(timed.frame)
        if self._encoder is None or self._encoder.start_s != start_s:
            self.finish()
            path = self._staging / f"{start_s}.{CHUNK_EXTENSION}"
            rate = min(max(self.frames_per_s, _USUAL_RATES_FPS[0]), _USUAL_RATES_FPS[1])
            sound = self._audio is not None
            self._encoder = ChunkEncoder(
                path, start_s, profile=self._settings.profile, ticks_per_s=self.ticks_per_s, rate=rate, sound=sound
            )
        start_ticks = start_s * self.ticks_per_s
        self._encoder.add(picture, timed.ticks - start_ticks, end_ticks=timed.end_ticks - start_ticks)
        self.frames += 1
        self.end_ticks = timed.end_ticks

    def _filter(self, timed: TimedFrame) -> PictureFilter:
        """The filter for a frame's kind of picture; a change of it is noted."""
        known = timed.picture or self._main
        picture = describe_picture(timed.frame, sar=known.sar)
        if picture not in self._filters:
            self._filters[picture] = PictureFilter(
                picture,
                time_base=Fraction(1, self.ticks_per_s),
                short_side_px=self._settings.short_side_px,
                pix_fmt=self._settings.profile.pix_fmt,
                like=None if picture == self._main else self._main,
            )
        last, self._last_picture = self._last_picture, picture
        if last is not None and last != picture and len(self.notes) < _MOST_NOTES:
            at_s = timed.ticks / self.ticks_per_s
            self.notes.append(
                f"its picture changes at {at_s:.2f} s: {last.change_to(picture)}; all is made like {self._main}"
            )
        return self._filters[picture]

    def _sound(self) -> SourceAudio | None:
        moved_from_s = self._video.timeline.moved_from_s
        audio = SourceAudio(self._source, origin_s=self._video.origin_s, until_s=moved_from_s)
        if audio.present:
            if moved_from_s is not None:
                self.notes.append(f"its sound is silent from {moved_from_s:.2f} s on, where its clock leaps")
            return audio
        audio.close()
        return None

    def finish(self) -> None:
        """Close the open chunk, if there is one."""
        if self._encoder is not None:
            if self._audio is not None:
                end_s = Fraction(self.end_ticks, self.ticks_per_s) - self._encoder.start_s
                samples = round(min(end_s, Fraction(self._settings.chunk_s)) * SAMPLES_PER_S)
                self._encoder.add_sound(self._audio.span(self._encoder.start_s, samples))
            self.chunk_bytes[self._encoder.start_s] = self._encoder.close()
            self._encoder = None
