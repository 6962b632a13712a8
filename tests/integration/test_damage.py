"""Damaged files give exact frames or an error that names video and second; never a hang, a crash or a wrong frame.

Damage after indexing is measured against the undamaged file; damage before it against what a plain sequential decode
makes of the same damaged bytes, frames that it reports as corrupt left out; that is indexed with `check`, since some
codecs do not report all damage.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import av
import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.indexing.probe import probe
from framefeed.crops import WholeFrame
from framefeed.errors import BadInput, BadRequest, Permanent
from framefeed.request import ClipRequest
from framefeed.sampling import Dense, Segments
from tests.damage import KINDS, mutated, outcomes
from tests.media_matrix import MATRIX, SAMPLE, make_file
from tests.sequential import pixel_hash, sequential_frames

FRAMES = 60
REQUESTS = 6


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file to damage: `before` it is indexed, or after."""

    source: Path
    folder: Path
    kind: str
    seed: int
    before: bool


def try_damaged(job: Job) -> str:
    """Damage, index and decode; returns "exact", "refused", or what went wrong."""
    av.logging.set_level(None)
    folder = job.folder / f"{job.source.name}-{job.kind}-{job.seed}-{job.before}".replace(" ", "_")
    folder.mkdir()
    try:
        return _try(job, folder / job.source.name)
    finally:
        shutil.rmtree(folder)


def _try(job: Job, path: Path) -> str:
    clean = job.source.read_bytes()
    damaged = mutated(clean, job.kind, job.seed)
    path.write_bytes(damaged if job.before else clean)
    try:
        build_index(path.parent, check=job.before)
    except BadInput:
        return _refusal(path)
    library = Library(path.parent)
    entry = library.entry(path.stem)
    truth = sequential_frames(path, library.index(entry, 0).stream)
    # A run may begin behind the damage, and its frames be those of the undamaged file, which the sequential decode of
    # the damaged one is still concealing.
    whole = frozenset(sequential_frames(job.source, 0).values())
    times = path.stat()
    path.write_bytes(damaged)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as rot does; what someone wrote to is another version
    results = Counter(
        _request(library, request, truth, whole) for request in _requests(path.stem, entry.duration_s, job.seed)
    )
    wrong = sorted(set(results) - {"exact", "refused"})
    return wrong[0] if wrong else results.most_common(1)[0][0]


def _refusal(path: Path) -> str:
    try:
        probe(path, name=path.name, chunk=False, index_folder=path.parent, check=True)
    except Permanent as error:
        return "refused" if path.name in str(error) else f"refusal names no video: {error}"
    return "indexed by probe, not by build_index"


def _requests(video: str, duration_s: float, seed: int) -> list[ClipRequest]:
    rng = random.Random(seed)
    requests = []
    for n in range(REQUESTS):
        start_s = rng.uniform(0, 0.9 * duration_s)
        requests.append(
            ClipRequest(
                video=video, start_s=start_s, end_s=max(rng.uniform(start_s, duration_s), start_s * 1.01 + 1e-6),
                sampling=Dense(frames=4, stride=1) if n % 2 else Segments(frames=4), crop=WholeFrame(),
                width_px=32, height_px=32, seed=n,
            )
        )  # fmt: skip
    return requests


def _request(library: Library, request: ClipRequest, truth: dict[int, str], whole: frozenset[str]) -> str:
    engine = Engine(library)
    try:
        engine.decode(request, memoryview(bytearray(request.clip_bytes)))
        (chunk,) = engine.plan(request).chunks
        ordinals = {places: packet for run in chunk.runs for packet, places in run.keep.items()}
        for places, frame in engine.frames(chunk, {"read": 0.0}):
            got = pixel_hash(frame)
            if got != truth.get(ordinals[places]) and got not in whole:
                return f"frame of packet {ordinals[places]} is not that of a sequential decode: {request}"
    except BadRequest as error:
        return f"bad request: {error}"
    except Permanent as error:
        named = request.video in str(error) and re.search(r"\d+\.\d+ s", str(error))
        return "refused" if named else f"names not video and second: {error}"
    except Exception as error:
        return f"{type(error).__name__} is not of the tree: {error}"
    finally:
        engine.close()
    return "exact"


def _run(folder: Path, names: list[str], seeds: int) -> Counter[str]:
    sources = [make_file(folder, name, frames=FRAMES) for name in names]
    (folder / "work").mkdir()
    jobs = [
        Job(source=source, folder=folder / "work", kind=kind, seed=seed, before=before)
        for source in sources for kind in KINDS for seed in range(seeds) for before in (True, False)
    ]  # fmt: skip
    counts: Counter[str] = Counter()
    failures = []
    for job, outcome in zip(jobs, outcomes(try_damaged, jobs), strict=True):
        counts[outcome if outcome in ("exact", "refused") else "failed"] += 1
        if outcome not in ("exact", "refused"):
            failures.append(f"{job.source.name} {job.kind} seed {job.seed} before={job.before}: {outcome}")
    print(dict(counts))
    assert not failures, "\n".join(failures)
    return counts


@pytest.mark.slow
def test_damaged_files_of_each_codec_give_exact_frames_or_errors(tmp_path: Path) -> None:
    counts = _run(tmp_path, ["x264_default.mp4", "x265_open.mkv", "mpeg2.ts", "mpeg4_b.avi", "vp8.webm"], 1)
    assert counts.total() == 40
    assert counts["exact"] > 0
    assert counts["refused"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_500_damaged_files_give_exact_frames_or_errors(tmp_path: Path) -> None:
    names = [*SAMPLE, "x264_open_gop.mp4", "x264_tff.m2ts", "x264_slices.ts", "x264_repeat_headers.mkv"]
    assert all(name.split(".")[0] in MATRIX for name in names)
    counts = _run(tmp_path, names, 5)
    assert counts.total() >= 500
