"""`framefeed bench pairs`: what opening millions of narrated clips costs, and planning the first batch of them.

The pairs are made, in the columns that annotations are converted to, and thrown out of the page cache before they are
opened. A batch's samples are proved to be those that were written. It knows no servers and decodes nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from framefeed.draws import draw_u64
from framefeed.errors import FramefeedError
from framefeed.manifest import Manifest, VideoEntry
from framefeed_bench.machine import provenance
from trainer_client.datasets.annotated import AnnotatedDataset, Naming
from trainer_client.datasets.annotation import text_of
from trainer_client.datasets.column_writer import Block, ColumnWriter, Meaning, new_columns
from trainer_client.datasets.columns import TEXT_NAME, VIDEOS_NAME, open_columns
from trainer_client.datasets.mixture import Mixture
from trainer_client.feed.sampler import Sampler, Share

_BLOCK_ROWS = 1 << 20
_TEXT_BYTES = 16
_DURATION_S = 3600.0
_STREAM = 1


@dataclass(frozen=True, kw_only=True)
class PairsBench:
    """Opening and planning millions of pairs of a span and a text."""

    pairs: int = 35_000_000
    """Samples of the data set."""
    mixed_in: int = 10_000_000
    """Samples of a second one, whose mixture with the first is planned too: one of its for each of the first's."""
    videos: int = 9_600
    """Videos that they are of."""
    batch_clips: int = 256
    """Clips of the first batch."""
    folder: Path | None = None
    """Where they are written, 2 GB for 45 million. Default: the folder for temporary files."""
    out: Path = Path("bench/results/pairs.json")
    """Where the result is written."""

    def run(self) -> None:
        """Make, open, plan, write and print. Raises FramefeedError if a sample is not what was written."""
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            own, other = Path(made) / "pairs", Path(made) / "mixed_in"
            for folder, pairs in ((own, self.pairs), (other, self.mixed_in)):
                with new_columns(folder) as writer:
                    write_pairs(writer, pairs=pairs, videos=self.videos)
                _forget(folder)
            result: dict[str, Any] = {
                **provenance(),
                "pairs": self.pairs,
                "bytes_a_sample": round(bytes_beside_text(own) / self.pairs, 2),
                **self._measure(own),
                "mixed_in": self.mixed_in,
                "mixture": self._measure(own, other),
            }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(result, indent=1) + "\n")
        Console().print_json(data=result)

    def _measure(self, *folders: Path) -> dict[str, float]:
        manifest = manifest_of_pairs(self.videos)
        before_bytes, began_s = _own_bytes(), time.perf_counter()
        opened = [AnnotatedDataset(open_columns(folder), manifest, Naming(what="pairs")) for folder in folders]
        dataset = opened[0] if len(opened) == 1 else Mixture(opened, weights=[1.0] * len(opened))
        opened_s = time.perf_counter()
        batch = Sampler(samples=len(dataset), run_seed=1, share=Share(batch_clips=self.batch_clips)).batch(0)
        samples = [dataset[index] for index in batch.indices.tolist()]
        planned_s = time.perf_counter()
        for index, sample in zip(batch.indices.tolist(), samples, strict=True):
            own = index if not sample.source else (index - self.pairs) * self.mixed_in // self.pairs
            if text_of(sample.target) != f"{own:0{_TEXT_BYTES}d}":
                raise FramefeedError(f"bench: sample {index} says {text_of(sample.target)!r}, wanted pair {own}")
        return {
            "samples": len(dataset),
            "of_mixed_in": sum(sample.source for sample in samples),
            "open_s": round(opened_s - began_s, 2),
            "first_plan_s": round(planned_s - opened_s, 3),
            "own_memory_bytes": _own_bytes() - before_bytes,
        }


def write_pairs(writer: ColumnWriter, *, pairs: int, videos: int) -> None:
    """Pair i is one second of a drawn video, and its text is i in 16 digits."""
    for video in range(videos):
        writer.number(f"video{video}")
    generator = np.random.default_rng(draw_u64(0, stream=_STREAM))
    for begin in range(0, pairs, _BLOCK_ROWS):
        count = min(_BLOCK_ROWS, pairs - begin)
        start_s = generator.uniform(0, _DURATION_S - 2, count)
        numbers = np.arange(begin, begin + count)[:, None] // 10 ** np.arange(_TEXT_BYTES - 1, -1, -1) % 10
        writer.add_block(
            Block(
                video_of=generator.integers(0, videos, count, dtype=np.int32),
                start_s=start_s,
                end_s=start_s + 1,
                text_bytes=np.full(count, _TEXT_BYTES, np.int64),
                text=(numbers + ord("0")).astype(np.uint8).tobytes(),
                labels=np.empty((count, 0), np.int32),
            )
        )
    writer.finish(Meaning(has_text=True, fingerprint="pairs"))


def absent_video(name: str, duration_s: float) -> VideoEntry:
    """The entry of a video that is not there."""
    return VideoEntry(
        video=name,
        codec="h264",
        duration_s=duration_s,
        fps=30.0,
        width_px=512,
        height_px=288,
        media_bytes=1,
        chunk_start_s=(0.0,),
        record_offset=(0,),
        record_bytes=(1,),
    )


def manifest_of_pairs(videos: int) -> Manifest:
    """Of videos of an hour, which are not there."""
    entry = absent_video("video0", _DURATION_S)
    return Manifest(videos={f"video{video}": entry for video in range(videos)})


def bytes_beside_text(folder: Path) -> int:
    """Of all files of columns but the text's and the videos' names."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name not in (TEXT_NAME, VIDEOS_NAME))


def _forget(folder: Path) -> None:
    """Throw what was written out of the page cache, so that it is read from storage."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _own_bytes() -> int:
    """Memory of this process that is no file's: a mapped file's pages are the kernel's to take back."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])
