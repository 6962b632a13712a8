"""Whole clips: pixels close to the ideal ones, one crop across chunks, errors that name video and second."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from decode_server.chunking.chunk_run import chunk_videos
from decode_server.chunking.profiles import profile_named
from decode_server.chunking.synthetic import make_videos
from decode_server.chunking.transcode import ChunkSettings
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from framefeed.crops import Box, ExplicitBox, Letterbox, RandomResizedCrop, ViewCrop
from framefeed.errors import BadRequest, Cancelled, CorruptMedia, FramefeedError, UnknownVideo
from framefeed.request import ClipRequest
from framefeed.sampling import Dense, Segments
from framefeed.wire import DecodeCall, pack_call
from framefeed_bench.fidelity import all_frames, ideal_clip, psnr_db
from tests.videos import make_numbered_video


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic videos of 20 s in chunks of 5 s."""
    folder = tmp_path_factory.mktemp("engine")
    make_videos(folder / "videos", videos=2, seconds=20, size_px=(320, 180), seed=3)
    settings = ChunkSettings(
        profile=dataclasses.replace(profile_named("train"), match_archive=False), short_side_px=180, chunk_s=5
    )
    chunk_videos([folder / "videos"], folder / "chunks", settings=settings)
    build_index(folder / "chunks")
    return folder / "chunks"


@pytest.fixture
def library(chunks: Path) -> Library:
    return Library(chunks)


def _request(library: Library, **fields: object) -> ClipRequest:
    video = next(iter(library.manifest.videos))
    base = ClipRequest(
        video=video, start_s=1.0, end_s=4.0, sampling=Segments(frames=4), crop=RandomResizedCrop(),
        width_px=112, height_px=112, seed=4,
    )  # fmt: skip
    return replace(base, **fields)  # type: ignore[arg-type]


def _decode(engine: Engine, request: ClipRequest) -> np.ndarray:
    out = np.full(request.clip_bytes, 77, np.uint8)
    engine.decode(request, memoryview(out))
    return out.reshape(request.shape)


@pytest.mark.slow
def test_rgb_is_close_to_the_ideal_clip(library: Library, chunks: Path) -> None:
    engine = Engine(library)
    for seed in range(8):
        request = _request(library, seed=seed)
        info = engine.decode(request, out := np.empty(request.shape, np.uint8))
        ((_, index),) = library.chunks(library.entry(request.video), request.start_s, request.end_s)
        numbers = [int(np.argmin(np.abs(index.times_s - t))) for t in info.pts_s]
        frames = all_frames(chunks / index.path)
        assert psnr_db(out, ideal_clip([frames[n] for n in numbers], info.box, 112)) >= 40


def test_a_flipped_clip_is_the_mirror_image(library: Library) -> None:
    engine = Engine(library)
    for pixel_format in ("rgb24", "yuv420p"):
        plain = _decode(engine, _request(library, pixel_format=pixel_format))
        mirrored = _decode(engine, _request(library, pixel_format=pixel_format, hflip_probability=1.0))
        luma_rows = 112 if pixel_format == "yuv420p" else None
        assert np.array_equal(mirrored[:, :luma_rows], plain[:, :luma_rows, ::-1])
        assert not np.array_equal(mirrored, plain)


@pytest.mark.slow
def test_a_clip_that_crosses_chunks_is_that_of_the_unchunked_video(tmp_path: Path) -> None:
    """The chunks and the whole file hold the same frames, so the clips differ only by what encoding lost."""
    source = make_numbered_video(
        tmp_path / "videos" / "v.mp4", frames=240, width_px=256, height_px=144, options={"crf": "8"}
    )
    settings = ChunkSettings(profile=profile_named("train"), short_side_px=144, chunk_s=2)
    chunk_videos([source.parent], tmp_path / "chunks", settings=settings)
    build_index(tmp_path / "chunks")
    build_index(source.parent)
    whole, cut = Library(source.parent), Library(tmp_path / "chunks")
    request = ClipRequest(
        video="v", start_s=1.3, end_s=6.9, sampling=Segments(frames=16, jitter=True), crop=RandomResizedCrop(),
        width_px=96, height_px=96, seed=11, hflip_probability=0.5,
    )  # fmt: skip
    assert len(Engine(cut).plan(request).chunks) == 4
    infos = [Engine(lib).decode(request, np.empty(request.shape, np.uint8)) for lib in (whole, cut)]
    assert infos[0].pts_s == pytest.approx(infos[1].pts_s)
    assert infos[0].box == infos[1].box
    clips = [_decode(Engine(lib), request) for lib in (whole, cut)]
    assert psnr_db(clips[1], clips[0].astype(np.float64)) > 25


def test_yuv_clips_are_half_the_bytes_and_name_their_colour(library: Library) -> None:
    request = _request(library, pixel_format="yuv420p")
    info = Engine(library).decode(request, np.empty(request.shape, np.uint8))
    assert request.clip_bytes * 2 == _request(library).clip_bytes
    assert not info.colour.full_range


def test_stage_times_and_costs_are_reported(library: Library) -> None:
    request = _request(library)
    info = Engine(library).decode(request, np.empty(request.shape, np.uint8))
    assert set(info.stage_s) == {"read", "decode", "scale"}
    assert all(seconds > 0 for seconds in info.stage_s.values())
    assert 4 <= info.fed_packets < 60
    assert info.read_bytes > 1000


def test_clips_decoded_together_are_those_decoded_alone_and_cost_less(library: Library) -> None:
    _, second = library.manifest.videos
    crops = [_request(library, crop=ViewCrop(view=view)) for view in range(3)]
    mixed = [
        _request(library, seed=1, pixel_format="yuv420p"),
        _request(library, start_s=2.0, end_s=6.0, seed=2, hflip_probability=1.0, width_px=96),
        _request(library, start_s=9.0, end_s=11.5, sampling=Dense(frames=9, stride=2, short="hold")),
        _request(library, start_s=19.5, end_s=20.0, sampling=Dense(frames=8, stride=4, short="pad")),
        _request(library, video=second, crop=Letterbox()),
    ]
    for group in (crops, mixed, mixed[::-1], [*mixed, *crops, mixed[0]], crops[:1]):
        engine = Engine(library)
        outs = [np.full(request.shape, 77, np.uint8) for request in group]
        infos = engine.decode_together(group, outs)
        alone = [engine.decode(request, np.empty(request.shape, np.uint8)) for request in group]
        for request, out, info, by_itself in zip(group, outs, infos, alone, strict=True):
            assert np.array_equal(out, _decode(engine, request)), request
            costs = {"read_bytes": 0, "fed_packets": 0, "stage_s": {}}
            assert replace(info, **costs) == replace(by_itself, **costs)
        assert sum(info.fed_packets for info in infos) <= sum(info.fed_packets for info in alone)
    together = Engine(library).decode_together(crops, [np.empty(request.shape, np.uint8) for request in crops])
    by_itself = Engine(library).decode(crops[0], np.empty(crops[0].shape, np.uint8))
    assert sum(info.fed_packets for info in together) == by_itself.fed_packets
    assert sum(info.read_bytes for info in together) == by_itself.read_bytes


@pytest.mark.parametrize("after_packets", [0, 1, 7])
def test_a_cancelled_decode_stops_at_the_next_packet_and_the_engine_goes_on(
    library: Library, after_packets: int
) -> None:
    request, engine = _request(library, end_s=9.0), Engine(library)
    looks: list[bool] = []

    def cancelled() -> bool:
        looks.append(len(looks) >= after_packets)
        return looks[-1]

    with pytest.raises(Cancelled):
        engine.decode_together([request], [np.empty(request.shape, np.uint8)], cancelled=cancelled)
    assert looks == [False] * after_packets + [True], "it decoded on"
    assert np.array_equal(_decode(engine, request), _decode(Engine(library), request))


def test_what_one_of_several_lacks_is_raised_for_all(library: Library) -> None:
    group = [_request(library), _request(library, start_s=100.0, end_s=101.0)]
    with pytest.raises(BadRequest, match="lies outside"):
        Engine(library).decode_together(group, [np.empty(request.shape, np.uint8) for request in group])


def test_the_same_request_gives_the_same_bytes_whatever_came_before(library: Library) -> None:
    request = _request(library, seed=9)
    fresh = hashlib.sha256(_decode(Engine(library), request)).hexdigest()
    engine = Engine(library)
    for seed in range(5):
        _decode(engine, _request(library, seed=seed, start_s=seed + 0.2, end_s=seed + 3.0))
        assert hashlib.sha256(_decode(engine, request)).hexdigest() == fresh


def test_another_ffmpeg_in_the_process_changes_nothing(library: Library, chunks: Path) -> None:
    """OpenCV and decord bring FFmpeg libraries of their own; frames must be scaled by the one that decoded them."""
    request = _request(library)
    code = (
        "import cv2, decord, hashlib, numpy as np, sys\n"
        "from pathlib import Path\n"
        "from decode_server.clips.engine import Engine\n"
        "from decode_server.clips.library import Library\n"
        "from framefeed.wire import unpack_call\n"
        "request = unpack_call(sys.stdin.buffer.read()).request\n"
        "out = np.zeros(request.shape, np.uint8)\n"
        "Engine(Library(Path(sys.argv[1]))).decode(request, out)\n"
        "print(hashlib.sha256(out).hexdigest())"
    )
    call = pack_call(DecodeCall(attempt=1, deadline_s=1.0, request=request))
    done = subprocess.run([sys.executable, "-c", code, str(chunks)], input=call, capture_output=True, check=True)
    assert done.stdout.decode().strip() == hashlib.sha256(_decode(Engine(library), request)).hexdigest()


def test_bad_requests_name_what_is_wrong_and_leave_the_engine_usable(library: Library) -> None:
    engine = Engine(library)
    video = next(iter(library.manifest.videos))
    with pytest.raises(UnknownVideo, match="video 'nobody' is not in the manifest of 2 videos"):
        _decode(engine, _request(library, video="nobody"))
    with pytest.raises(BadRequest, match=rf"span \[30, 31\) s lies outside {video}, which is 20.000 s long"):
        _decode(engine, _request(library, start_s=30.0, end_s=31.0))
    with pytest.raises(BadRequest, match="does not lie in the 320x180 frame"):
        _decode(engine, _request(library, crop=ExplicitBox(box=Box(x_px=300, y_px=0, width_px=100, height_px=100))))
    with pytest.raises(BadRequest, match="buffer holds 10 bytes, the clip needs"):
        engine.decode(_request(library), np.empty(10, np.uint8))
    assert _decode(engine, _request(library)).any()


def test_a_changed_byte_is_corrupt_media_not_a_clip(tmp_path: Path) -> None:
    path = make_numbered_video(tmp_path / "v.mp4", frames=60, width_px=256, height_px=144)
    build_index(tmp_path)
    engine = Engine(Library(tmp_path))
    request = ClipRequest(
        video="v",
        start_s=0.5,
        end_s=1.5,
        sampling=Segments(frames=4),
        crop=RandomResizedCrop(),
        width_px=64,
        height_px=64,
    )
    before = _decode(engine, request)
    good = path.read_bytes()
    (chunk,) = engine.plan(request).chunks
    fed = chunk.runs[0].feed
    at = int(chunk.index.offset[fed[1]]) + 5
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    engine = Engine(Library(tmp_path))
    with pytest.raises(CorruptMedia, match=r"v\.mp4 at \d\.\d+ s \(packet \d+\): its bytes differ from those"):
        _decode(engine, request)
    path.write_bytes(good[: chunk.reads[0][1] - 10])
    with pytest.raises(CorruptMedia, match=r"v\.mp4 ends at byte"):
        _decode(Engine(Library(tmp_path)), request)
    path.unlink()
    with pytest.raises(CorruptMedia, match=r"v\.mp4 is gone"):
        _decode(Engine(Library(tmp_path)), request)
    path.write_bytes(good)
    assert np.array_equal(_decode(Engine(Library(tmp_path)), request), before)


def test_every_error_of_the_engine_is_of_the_tree(library: Library) -> None:
    engine = Engine(library)
    with pytest.raises(FramefeedError):
        _decode(engine, _request(library, video="nobody"))
    engine.close()
    engine.close()
    library.close()
    library.close()
