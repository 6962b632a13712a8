"""Indexed roots that several suites are about, and a small server of one. It makes files; it tests nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from decode_server.chunking.synthetic_actions import make_actions
from decode_server.indexing.index import Index, build_index
from tests.integration.serving import SERVE, Server
from tests.videos import make_numbered_video

DAMAGED = "bad"


def root_of_a_clip(folder: Path) -> Path:
    """One numbered video, called clip."""
    make_numbered_video(folder / "clip.mp4")
    build_index(folder)
    return folder


def root_of_shapes(folder: Path, sizes_px: Mapping[str, tuple[int, int]], *, frames: int) -> Path:
    """A numbered video of each (width, height)."""
    for name, (width_px, height_px) in sizes_px.items():
        make_numbered_video(folder / f"{name}.mp4", frames=frames, width_px=width_px, height_px=height_px)
    Index(root=folder, jobs=1).run()
    return folder


def root_of_lengths(folder: Path, frames: Mapping[str, int]) -> Path:
    """A numbered video of each length; of the one called DAMAGED the bytes were changed after it was indexed."""
    for name, count in frames.items():
        make_numbered_video(folder / f"{name}.mp4", frames=count, width_px=96, height_px=64)
    Index(root=folder, jobs=1).run()
    path = folder / f"{DAMAGED}.mp4"
    whole = path.read_bytes()
    begin = whole.index(b"mdat") + 4
    path.write_bytes(whole[:begin] + bytes(len(whole) - begin))
    return folder


def root_of_scenes(folder: Path, *, train: int, val: int) -> Path:
    """Scenes of a second with captions and labels, 8 a video."""
    make_actions(folder, train=train, val=val, test=0, scenes_a_video=8)
    Index(root=folder, jobs=1).run()
    return folder


def small_server(logs: Path, root: Path, *, threads: int = 2, pool_mib: int = 16) -> Server:
    """One worker that serves a root; `with` starts and ends it."""
    options = ("--workers", "1", "--threads", str(threads), "--buffer-pool-mib", str(pool_mib))
    return Server(logs, str(root), *options, program=SERVE)
