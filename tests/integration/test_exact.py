"""Frame accuracy is an equality: kept frames are bit-identical to a full sequential decode.

Over thousands of random requests on every structure an encoder makes of a GOP, and on real footage where it is at
hand. Truth is made by PyAV's own demuxer and decoder, without anything of framefeed's.
"""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.media.packet_index import HIDDEN
from framefeed.crops import RandomResizedCrop
from framefeed.errors import CorruptMedia
from framefeed.request import ClipRequest
from framefeed.sampling import Dense, Segments
from tests.media_matrix import all_files, make_file
from tests.sequential import pixel_hash, sequential_frames
from tests.videos import SHARED_VIDEOS, luma, read_frame_number

FEW = (
    "x264_pyramid.mp4", "x264_open_gop.mp4", "x264_intra_refresh.mkv", "x264_tff.m2ts", "x264_default.avi",
    "x265_open.ts", "x265_layers.mp4", "svt_av1.mkv", "vp9_layers.webm", "vp8.webm", "mpeg4_b.avi", "mpeg2.ts",
    "mjpeg.mov",
)  # fmt: skip


def _requests(video: str, duration_s: float, n: int) -> Iterator[ClipRequest]:
    rng = random.Random(video)
    for seed in range(n):
        start_s = rng.uniform(0, 0.98 * duration_s)
        end_s = min(start_s + rng.choice([0.1, 1.0, 4.0]), duration_s)
        jitter, frames = rng.random() < 0.8, rng.choice([1, 4, 8])
        sampling = (
            Segments(frames=frames, jitter=jitter)
            if rng.random() < 0.6
            else Dense(frames=frames, stride=rng.randint(1, 5))
        )
        yield ClipRequest(
            video=video, start_s=start_s, end_s=end_s, sampling=sampling, crop=RandomResizedCrop(),
            width_px=32, height_px=32, seed=seed,
        )  # fmt: skip


def _check(engine: Engine, library: Library, root: Path, video: str, requests: int) -> tuple[int, int]:
    """Compare every kept frame of random requests. Returns (frames compared, requests refused as corrupt)."""
    entry = library.entry(video)
    ((_, index),) = library.chunks(entry, 0, entry.duration_s)
    truth = sequential_frames(root / index.path, index.stream)
    compared = refused = 0
    for request in _requests(video, entry.duration_s, requests):
        (chunk,) = engine.plan(request).chunks
        wanted = {places: packet for run in chunk.runs for packet, places in run.keep.items()}
        try:
            got = {places: pixel_hash(frame) for places, frame in engine.frames(chunk, {"read": 0.0})}
        except CorruptMedia:
            fed = {packet for run in chunk.runs for packet in run.feed.tolist() if not index.flags[packet] & HIDDEN}
            assert fed - truth.keys(), f"{request} was refused, but all that it needs decodes"
            refused += 1
            continue
        assert got == {places: truth[packet] for places, packet in wanted.items()}, request
        compared += len(got)
    return compared, refused


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


def _indexed(material: Path, name: str, frames: int) -> tuple[Library, Path]:
    path = make_file(material, name, frames=frames)
    root = material / f"root_{name}"
    root.mkdir()
    (root / name).hardlink_to(path)
    build_index(root)
    return Library(root), root


@pytest.mark.parametrize("name", FEW)
def test_kept_frames_are_those_of_a_sequential_decode(material: Path, name: str) -> None:
    library, root = _indexed(material, name, 90)
    video = Path(name).stem
    compared, refused = _check(Engine(library), library, root, video, 30)
    assert compared > 60
    assert refused == 0
    _check_numbers(library, video)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_20000_kept_frames_of_every_codec_structure_and_container(tmp_path: Path) -> None:
    compared = 0
    for name in all_files():
        library, root = _indexed(tmp_path, name, 150)
        got, refused = _check(Engine(library), library, root, Path(name).stem, 100)
        assert refused == 0, name
        _check_numbers(library, Path(name).stem)
        compared += got
    print(f"{compared} frames of {len(all_files())} files compared")
    assert compared >= 20_000


def _check_numbers(library: Library, video: str) -> None:
    """The number in each kept frame's pixels is that of its time: times are right, whatever the container says."""
    entry = library.entry(video)
    ((_, index),) = library.chunks(entry, 0, entry.duration_s)
    assert entry.fps == pytest.approx(30, rel=0.01)
    engine = Engine(library)
    for request in _requests(video, entry.duration_s, 8):
        plan = engine.plan(request)
        for places, frame in engine.frames(plan.chunks[0], {"read": 0.0}):
            if frame.format.components[0].bits == 8:
                assert {round(plan.pts_s[place] * 30) for place in places} == {read_frame_number(luma(frame))}
    assert index.times_s[0] == 0


@cache
def _real_library(folder: str) -> Library:
    build_index(SHARED_VIDEOS, index_folder=Path(folder))
    return Library(SHARED_VIDEOS, index_folder=Path(folder))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="the shared footage is not here")
@pytest.mark.parametrize("name", sorted(path.name for path in SHARED_VIDEOS.glob("*")))
def test_kept_frames_of_real_footage_are_those_of_a_sequential_decode(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    library = _real_library(str(tmp_path_factory.getbasetemp() / "real"))
    compared, refused = _check(Engine(library), library, SHARED_VIDEOS, Path(name).stem, 100)
    assert compared > 0
    assert (refused > 0) == (name == "corrupted.mp4")
