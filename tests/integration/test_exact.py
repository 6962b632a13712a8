"""Frame accuracy is an equality: kept frames are bit-identical to a full sequential decode.

Over thousands of random requests on every structure an encoder makes of a GOP, and on real footage where it is at
hand. Truth is made by PyAV's own demuxer and decoder, without anything of framefeed's.
"""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from decode_server.engine import Engine
from decode_server.index import build_index
from decode_server.library import Library
from decode_server.packet_index import HIDDEN
from framefeed.crops import RandomResizedCrop
from framefeed.errors import CorruptMedia
from framefeed.request import ClipRequest
from framefeed.sampling import Dense, Segments
from tests.sequential import pixel_hash, sequential_frames
from tests.videos import luma, make_numbered_video, read_frame_number

REAL = Path(__file__).parents[2] / "../shared/data/videos"
_X264 = {"preset": "veryfast"}
_FIVE_B = "bframes=5:b-adapt=0:b-pyramid=none"
_X265 = {"preset": "ultrafast", "x265-params": "keyint=30:bframes=4:log-level=none"}
STRUCTURES = {
    "b_pyramid.mp4": {"options": {**_X264, "x264-params": "keyint=250:bframes=5:b-pyramid=normal"}},
    "no_pyramid.mp4": {"options": {**_X264, "x264-params": "keyint=30:bframes=3:b-pyramid=none"}},
    "train.mp4": {"options": {**_X264, "tune": "fastdecode", "x264-params": f"keyint=30:{_FIVE_B}"}},
    "open_gop.mp4": {"options": {**_X264, "x264-params": "keyint=30:open-gop=1:bframes=5"}},
    "intra_refresh.mkv": {"options": {**_X264, "x264-params": "keyint=30:intra-refresh=1"}},
    "interlaced.mp4": {"options": {**_X264, "x264-params": "keyint=30:interlaced=1"}},
    "all_intra.mov": {"options": {**_X264, "x264-params": "keyint=1"}},
    "matroska.mkv": {"options": {**_X264, "x264-params": "keyint=60:bframes=3"}},
    "hevc.mp4": {"codec": "libx265", "options": _X265},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "12"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "8", "crf": "8", "svtav1-params": "keyint=60:enable-tf=0"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "24", "bf": "2"}},
    "ten_bit.mp4": {"options": _X264, "pix_fmt": "yuv420p10le"},
    "odd.mp4": {"options": _X264, "pix_fmt": "yuv444p", "width_px": 255, "height_px": 143},
}  # fmt: skip


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
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("numbered")
    for name, fields in STRUCTURES.items():
        make_numbered_video(root / name, **{"frames": 150, "width_px": 256, "height_px": 144, **fields})
    build_index(root)
    return root


@pytest.mark.parametrize("name", STRUCTURES)
def test_kept_frames_are_those_of_a_sequential_decode(numbered: Path, name: str) -> None:
    library = Library(numbered)
    compared, refused = _check(Engine(library), library, numbered, Path(name).stem, 120)
    assert compared > 200
    assert refused == 0


@pytest.mark.parametrize("name", [name for name in STRUCTURES if name != "ten_bit.mp4"])
def test_frame_numbers_in_the_pixels_are_those_of_the_times(numbered: Path, name: str) -> None:
    library = Library(numbered)
    engine = Engine(library)
    video = Path(name).stem
    for request in _requests(video, library.entry(video).duration_s, 10):
        plan = engine.plan(request)
        for places, frame in engine.frames(plan.chunks[0], {"read": 0.0}):
            assert {round(plan.pts_s[place] * 30) for place in places} == {read_frame_number(luma(frame))}


@cache
def _real_library(folder: str) -> Library:
    build_index(REAL, index_folder=Path(folder))
    return Library(REAL, index_folder=Path(folder))


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared footage is not here")
@pytest.mark.parametrize("name", sorted(path.name for path in REAL.glob("*")) if REAL.is_dir() else [])
def test_kept_frames_of_real_footage_are_those_of_a_sequential_decode(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    library = _real_library(str(tmp_path_factory.getbasetemp() / "real"))
    compared, refused = _check(Engine(library), library, REAL, Path(name).stem, 100)
    assert compared > 0
    assert (refused > 0) == (name == "corrupted.mp4")
