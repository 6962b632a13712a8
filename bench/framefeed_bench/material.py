"""What the decode benches decode: five minutes of synthetic video, or the user's own, chunked in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from rich.console import Console

from decode_server.chunking.chunk_run import chunk_videos
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.synthetic import make_videos
from decode_server.chunking.transcode import ChunkSettings
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index

_WAYS = {"train": ("train", 15), "train_300": ("train", 300), "archive": ("archive", 15)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Roots of the same videos: `train` and `archive` (ffmpeg's defaults) in 15 s chunks, `train_300` in 300 s ones."""

    videos: Path
    roots: dict[str, Path]

    def media_bytes(self, way: str) -> int:
        """Bytes of all chunks made one way."""
        library = Library(self.roots[way])
        total = sum(entry.media_bytes for entry in library.manifest.videos.values())
        library.close()
        return total

    def psnr_db(self, way: str, *, frames: int = 200) -> float:
        """PSNR of luma and chroma of the chunks against the source, over the first frames of each video.

        Only where the chunk's pictures have the source's size; the source is not scaled for the comparison.
        """
        errors: list[float] = []
        for entry in Library(self.roots[way]).manifest.videos.values():
            source = next(self.videos.rglob(entry.video + ".*"))
            chunk = self.roots[way] / f"{entry.video}.mp4" / "0.mp4"
            for seen, wanted in zip(_planes(chunk, frames), _planes(source, frames), strict=False):
                if seen.shape == wanted.shape:
                    errors.append(float(np.mean((seen.astype(np.float64) - wanted) ** 2)))
        return 10 * float(np.log10(255**2 / np.mean(errors))) if errors else float("nan")


def make_material(videos: Path | None, work: Path) -> Material:
    """Make, or find again in `work`, the chunks of `videos` (default: synthetic, 512x288 at 30 fps, 300 s and 30 s)."""
    source = videos or work / "videos"
    if videos is None and not source.is_dir():
        make_videos(source / "long", videos=1, seconds=300, seed=1)
        make_videos(source / "short", videos=2, seconds=30, seed=2)
    roots = {}
    for name, (profile, chunk_s) in _WAYS.items():
        roots[name] = work / name
        settings = ChunkSettings(profile=profile_named(profile), chunk_s=chunk_s)
        chunk_videos([source], roots[name], settings=settings, console=Console(stderr=True))
        build_index(roots[name])
    return Material(videos=source, roots=roots)


def _planes(path: Path, frames: int) -> list[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        found = []
        for frame in container.decode(video=0):
            found.append(np.asarray(frame.to_ndarray(format="yuv420p"), np.uint8))
            if len(found) == frames:
                break
        return found
