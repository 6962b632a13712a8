"""The manifest: which videos a root holds, how long they are, and where their packet indices lie.

One JSON line a video after a header line, read once; a server never lists directories. It knows nothing of packets.
The header has the data set's identity: a hash of what decides which clips there are and their bytes, whatever the place
they lie at. Two roots of one identity can serve one run; roots whose videos only have equal names and lengths cannot.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framefeed.errors import BadInput
from framefeed.show_value import show_value

MANIFEST_NAME = "framefeed.manifest.jsonl"
PACKETS_NAME = "framefeed.packets"
MANIFEST_VERSION = 2
_READ_VERSIONS = (1, 2)  # version 1 has neither identity nor digests
_IDENTITY_VERSION = "v1"  # of what is hashed: identities of different versions are never equal
_HEADER_BYTES = 1 << 12
_PLACE_FIELDS = frozenset({"record_offset", "record_bytes"})  # where records lie: no part of what they say


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEntry:
    """One video: its length and displayed size, and per chunk (in time order) its start and its packet-index record.

    `chunk_start_s[i]` is the video time of chunk i's first instant; `record_bytes[i]` bytes at `record_offset[i]` of
    the packets file describe it, and `record_digest[i]` is the digest of what they say; there is none in a manifest of
    version 1. A plain video file is one chunk that starts at 0.
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
    record_digest: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.chunk_start_s or not (len(self.chunk_start_s) == len(self.record_offset) == len(self.record_bytes)):
            raise BadInput(f"manifest: {self.video} lists {len(self.chunk_start_s)} chunks without one record for each")
        if self.record_digest and len(self.record_digest) != len(self.chunk_start_s):
            raise BadInput(f"manifest: {self.video} lists {len(self.chunk_start_s)} chunks without one digest for each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that is not served, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The videos of a root by name, in name order, and the files that were refused. `identity` is what the header of
    the file that it was read from says, "" for one of version 1.
    """

    videos: dict[str, VideoEntry]
    refused: tuple[Refusal, ...] = ()
    identity: str = field(default="", compare=False)

    def write(self, folder: Path, *, just_before: Callable[[], object] = lambda: None) -> str:
        """Write FOLDER/framefeed.manifest.jsonl atomically, under the identity of what is written, and return that;
        `just_before` it takes its place, its packet indices can take theirs.
        """
        identity = identity_of(self.videos)
        head = {"framefeed_manifest": MANIFEST_VERSION, "videos": len(self.videos), "identity": identity}
        lines = [json.dumps(head)]
        lines += [_line("video", entry) for entry in self.videos.values()]
        lines += [_line("refused", refusal) for refusal in self.refused]
        part = folder / (MANIFEST_NAME + ".part")
        with part.open("w") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        just_before()
        part.rename(folder / MANIFEST_NAME)
        return identity


def identity_of(videos: Mapping[str, VideoEntry]) -> str:
    """The identity of a data set of these videos, 35 characters.

    It changes with a video's name, length, size or codec, with the times of its chunks and with any bit of their media
    or packet indices; not with the folder of the root, the time of a file or what is quarantined or refused.
    """
    whole = hashlib.blake2b(digest_size=16)
    names = sorted(set(VideoEntry.__slots__) - _PLACE_FIELDS)
    for video in sorted(videos):
        whole.update(json.dumps([getattr(videos[video], name) for name in names]).encode() + b"\n")
    return f"{_IDENTITY_VERSION}-{whole.hexdigest()}"


def read_identity(folder: Path) -> str:
    """What the header of FOLDER's manifest calls the data set, "" in version 1; reads one line.

    Raises OSError if that cannot be read, BadInput if it is no header.
    """
    path = folder / MANIFEST_NAME
    with path.open("rb") as file:
        line = file.readline(_HEADER_BYTES)
    try:
        return _identity(json.loads(line))
    except (ValueError, AttributeError) as error:
        raise BadInput(f"manifest {path} is damaged ({error}); run 'framefeed index' again") from None


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
    identity = _identity(head)
    if head.get("framefeed_manifest") not in _READ_VERSIONS:
        seen = head.get("framefeed_manifest")
        raise BadInput(
            f"manifest {path} has version {show_value(seen)}, wanted {MANIFEST_VERSION}; run 'framefeed index' again"
        )
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
    return Manifest(videos=videos, refused=tuple(refused), identity=identity)


def _identity(head: dict[str, Any]) -> str:
    identity = head.get("identity", "")
    if not isinstance(identity, str):
        raise ValueError(f"its identity is {show_value(identity)}")
    return identity


def _line(kind: str, value: VideoEntry | Refusal) -> str:
    body: dict[str, Any] = {name: getattr(value, name) for name in value.__slots__}
    return json.dumps({"kind": kind, **body})
