"""Who competes in `bench decode`, as picklable recipes that a process of its own cooks: framefeed and its peers."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from framefeed.clip import ClipInfo
from framefeed.errors import BadInput
from framefeed.request import ClipRequest, PixelFormat
from framefeed_bench.task import Pixels, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerKind:
    """A peer's file in framefeed_bench.peers, the distribution that installs it, and the package that it imports."""

    module: str
    distribution: str
    package: str


PEERS = {
    "torchcodec": PeerKind(module="by_torchcodec", distribution="torchcodec", package="torchcodec"),
    "decord": PeerKind(module="by_decord", distribution="decord", package="decord"),
    "decord2": PeerKind(module="by_decord", distribution="decord2", package="decord"),
    "video-reader-rs": PeerKind(module="by_video_reader", distribution="video-reader-rs", package="video_reader"),
    "OpenCV": PeerKind(module="by_opencv", distribution="opencv-python-headless", package="cv2"),
    "PyAV": PeerKind(module="by_pyav", distribution="av", package="av"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPeer:
    """A peer that can run here: `folder` is where it lies if not in the environment."""

    module: str
    version: str
    folder: Path | None = None


def installed_peers(folder: Path | None = None) -> dict[str, InstalledPeer]:
    """The peers in this environment, and those in a folder of this one each, called as its distribution.

    Two distributions have one package, so one of them at least has to lie in the folder:
    `pip install --no-deps --target FOLDER/decord2 decord2`.
    """
    found = {}
    providers = metadata.packages_distributions()
    for name, kind in PEERS.items():
        own = None if folder is None else folder / kind.distribution
        if own is not None and own.is_dir():
            found[name] = InstalledPeer(module=kind.module, version=_version_in(own, kind), folder=own)
        elif {_normal(name) for name in providers.get(kind.package, ())} == {kind.distribution}:
            found[name] = InstalledPeer(module=kind.module, version=metadata.version(kind.distribution))
    return found


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _version_in(folder: Path, kind: PeerKind) -> str:
    """Raises BadInput if it is not there."""
    for distribution in metadata.distributions(name=kind.distribution, path=[str(folder)]):
        return distribution.version
    raise BadInput(f"bench: {folder} has no {kind.distribution}, wanted what pip install --target puts there")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStart:
    """A peer and its clips."""

    peer: InstalledPeer
    tasks: Sequence[Task]

    def __call__(self) -> Peer:
        if self.peer.folder is not None:
            sys.path.insert(0, str(self.peer.folder))  # of a process of its own
        return Peer(self.peer.module, self.tasks)


class Peer:
    """A peer in its process."""

    def __init__(self, module: str, tasks: Sequence[Task]) -> None:
        self._clip = importlib.import_module(f"framefeed_bench.peers.{module}").clip
        self._tasks = tasks

    def round(self) -> None:
        """All clips once."""
        for task in self._tasks:
            self._clip(task)

    def clip(self, number: int) -> Pixels:
        """One clip, uint8 RGB (T, Y, X, 3)."""
        pixels: Pixels = self._clip(self._tasks[number])
        return pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class FramefeedStart:
    """The engine over a root, and its clips in one pixel format; `scale` False feeds packets and converts nothing.

    So many neighbouring clips are decoded `together`.
    """

    root: Path
    requests: Sequence[ClipRequest]
    pixel_format: PixelFormat
    scale: bool = True
    together: int = 1

    def __call__(self) -> Framefeed:
        return Framefeed(self)


class Framefeed:
    """The engine in its process, writing into memory that is used again, as the server's buffer pool is."""

    def __init__(self, start: FramefeedStart) -> None:
        self._engine = Engine(Library(start.root))
        self._requests = [replace(request, pixel_format=start.pixel_format) for request in start.requests]
        longest_bytes = max(request.clip_bytes for request in self._requests)
        self._buffers = [np.zeros(longest_bytes, np.uint8) for _ in range(start.together)]
        self._scale = start.scale
        self.infos: list[ClipInfo] = []

    def round(self) -> None:
        """All clips once."""
        if self._scale:
            self.infos = [info for group in self._groups() for info in self._engine.decode_together(*group)]
            return
        for request in self._requests:
            for chunk in self._engine.plan(request).chunks:
                for _ in self._engine.frames(chunk, {"read": 0.0}):
                    pass

    def _groups(self) -> Iterator[tuple[list[ClipRequest], list[Pixels]]]:
        for first in range(0, len(self._requests), len(self._buffers)):
            requests = self._requests[first : first + len(self._buffers)]
            yield requests, self._buffers[: len(requests)]

    def together(self, number: int) -> list[Pixels]:
        """A group of clips, decoded together."""
        requests = self._requests[number * len(self._buffers) :][: len(self._buffers)]
        outs = [np.empty(request.shape, np.uint8) for request in requests]
        self._engine.decode_together(requests, outs)
        return outs

    def clip(self, number: int) -> Pixels:
        """One clip in its pixel format."""
        request = self._requests[number]
        out = np.empty(request.shape, np.uint8)
        self._engine.decode(request, out)
        return out
