"""The manifest: which videos a root holds, how long they are, and where their packet indices lie.

One JSON line a video after a header line, read once; a server never lists directories. It knows nothing of packets.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefeed.errors import BadInput

MANIFEST_NAME = "framefeed.manifest.jsonl"
PACKETS_NAME = "framefeed.packets"
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEntry:
    """One video: its length and displayed size, and per chunk (in time order) its start and its packet-index record.

    `chunk_start_s[i]` is the video time of chunk i's first instant; `record_bytes[i]` bytes at `record_offset[i]` of
    the packets file describe it. A plain video file is one chunk that starts at 0.
    """

    video: str
    codec: str
    duration_s: float
    fps: float
    width_px: int
    height_px: int
    media_bytes: int
    chunk_start_s: tuple[float, ...]
    record_offset: tuple[int, ...]
    record_bytes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.chunk_start_s or not (len(self.chunk_start_s) == len(self.record_offset) == len(self.record_bytes)):
            raise BadInput(f"manifest: {self.video} lists {len(self.chunk_start_s)} chunks without one record for each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that is not served, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The videos of a root by name, in name order, and the files that were refused."""

    videos: dict[str, VideoEntry]
    refused: tuple[Refusal, ...] = ()

    def write(self, folder: Path) -> None:
        """Write FOLDER/framefeed.manifest.jsonl atomically."""
        lines = [json.dumps({"framefeed_manifest": MANIFEST_VERSION, "videos": len(self.videos)})]
        lines += [_line("video", entry) for entry in self.videos.values()]
        lines += [_line("refused", refusal) for refusal in self.refused]
        part = folder / (MANIFEST_NAME + ".part")
        with part.open("w") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.rename(folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read FOLDER/framefeed.manifest.jsonl. Raises BadInput if it is missing, empty, damaged or of another version."""
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise BadInput(f"root {folder} is not a folder; wanted one made by 'framefeed chunk' or 'framefeed index'")
    try:
        with path.open() as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        raise BadInput(f"root {folder} has no {MANIFEST_NAME}; run 'framefeed index {folder}' first") from None
    except OSError as error:
        raise BadInput(f"manifest {path} cannot be read: {error.strerror}") from None
    try:
        return _parse(path, lines)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"manifest {path} is damaged ({error}); run 'framefeed index' again") from None


def _parse(path: Path, lines: list[str]) -> Manifest:
    if not lines:
        raise BadInput(f"manifest {path} is empty; wanted a header line and one line a video")
    head = json.loads(lines[0])
    if head.get("framefeed_manifest") != MANIFEST_VERSION:
        seen = head.get("framefeed_manifest")
        raise BadInput(f"manifest {path} has version {seen!r}, wanted {MANIFEST_VERSION}; run 'framefeed index' again")
    videos: dict[str, VideoEntry] = {}
    refused: list[Refusal] = []
    for line in lines[1:]:
        body = json.loads(line)
        kind = body.pop("kind")
        if kind == "refused":
            refused.append(Refusal(**body))
        else:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}
            entry = VideoEntry(**fields)
            videos[entry.video] = entry
    if len(videos) != head["videos"]:
        raise BadInput(f"manifest {path} lists {len(videos)} videos, its header says {head['videos']}; index again")
    if not videos:
        raise BadInput(f"manifest {path} lists no usable video ({len(refused)} refused); wanted at least one")
    return Manifest(videos=videos, refused=tuple(refused))


def _line(kind: str, value: VideoEntry | Refusal) -> str:
    body: dict[str, Any] = {name: getattr(value, name) for name in value.__slots__}
    return json.dumps({"kind": kind, **body})
