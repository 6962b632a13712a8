"""Policies through the engine: letterboxes, padding frames, bicubic, published rules and views, in RGB and in YUV."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from decode_server.chunking.synthetic import make_videos
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from framefeed.clip import Clip
from framefeed.crops import Box, CentreCrop, Letterbox, MultiScaleCrop, ViewCrop, WholeFrame
from framefeed.errors import BadRequest
from framefeed.request import ClipRequest
from framefeed.sampling import AtFrames, AtSeconds, Dense, Resampled, Segments
from framefeed.sampling_rules import PublishedRule
from framefeed_bench.fidelity import all_frames, ideal_clip, psnr_db
from tests.videos import make_numbered_video, read_frame_number


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`numbered`, 90 frames at 30 fps; `turned`, the same with a display matrix; `real`, a synthetic scene."""
    folder = tmp_path_factory.mktemp("policies")
    make_numbered_video(folder / "numbered.mp4", frames=90, width_px=256, height_px=144)
    make_numbered_video(folder / "turned.mp4", frames=30, width_px=256, height_px=144, rotation_deg=90)
    (scene,) = make_videos(folder / "scene", videos=1, seconds=3, size_px=(512, 288), seed=5)
    scene.rename(folder / "real.mp4")
    build_index(folder)
    return folder


@pytest.fixture
def engine(videos: Path) -> Engine:
    return Engine(Library(videos))


REQUEST = ClipRequest(
    video="numbered",
    start_s=1.0,
    end_s=2.0,
    sampling=Segments(frames=4),
    crop=WholeFrame(),
    width_px=256,
    height_px=144,
)


def _decode(engine: Engine, **fields: object) -> Clip:
    request = replace(REQUEST, **fields)  # type: ignore[arg-type]
    pixels = np.full(request.shape, 77, np.uint8)
    return Clip(pixels=pixels, info=engine.decode(request, pixels))


def _numbers(clip: Clip) -> list[int]:
    return [read_frame_number(frame[..., 1]) for frame in clip.pixels]


def test_a_short_span_is_padded_with_black_frames_that_are_reported(engine: Engine) -> None:
    for pixel_format, black in (("rgb24", {0}), ("yuv420p", {16, 128})):
        clip = _decode(engine, end_s=1.1, sampling=Dense(frames=5, stride=1, short="pad"), pixel_format=pixel_format)
        assert clip.info.padding == (False, False, False, True, True)
        assert clip.info.pts_s == pytest.approx((30 / 30, 31 / 30, 32 / 30, 32 / 30, 32 / 30))
        assert set(np.unique(clip.pixels[3:])) == black
        assert clip.pixels[:3].std() > 10
        assert len(clip.truncated().pixels) == 3


def test_a_short_span_loops_or_holds_without_padding(engine: Engine) -> None:
    for short, wanted in (("loop", [30, 31, 32, 30, 31]), ("hold", [30, 31, 32, 32, 32])):
        clip = _decode(engine, end_s=1.1, sampling=Dense(frames=5, stride=1, short=short))  # type: ignore[arg-type]
        assert clip.info.padding == ()
        assert _numbers(clip) == wanted


def test_the_frames_are_those_that_the_policy_names(engine: Engine) -> None:
    assert _numbers(_decode(engine, sampling=AtFrames(offsets_frames=(7, 0, 7, 3)))) == [37, 30, 37, 33]
    assert _numbers(_decode(engine, sampling=AtSeconds(offsets_s=(0.5, 0.1)))) == [45, 33]
    assert _numbers(_decode(engine, sampling=Resampled(frames=4, fps=10, jitter=False))) == [39, 42, 45, 48]
    assert _numbers(_decode(engine, sampling=PublishedRule(rule="avion_sparse", frames=4))) == [33, 41, 48, 56]
    with pytest.raises(BadRequest, match="the span lasts 1 s and the clip wants its second 2"):
        _decode(engine, sampling=AtSeconds(offsets_s=(2.0,)))
    with pytest.raises(BadRequest, match=r"no frame of the clip lies in \[1, 2\) s"):
        _decode(engine, sampling=AtSeconds(offsets_s=(2.0,), short="pad"))


@pytest.mark.parametrize("video", ["numbered", "turned"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_letterbox_is_the_whole_frame_where_it_says_and_black_elsewhere(
    engine: Engine, video: str, flip: float
) -> None:
    size = {"numbered": (256, 144), "turned": (144, 256)}[video]
    common = {"video": video, "start_s": 0.2, "end_s": 0.9, "hflip_probability": flip}
    for pixel_format in ("rgb24", "yuv420p"):
        whole = _decode(engine, **common, pixel_format=pixel_format, width_px=size[0], height_px=size[1])
        boxed = _decode(engine, **common, pixel_format=pixel_format, crop=Letterbox(), width_px=256, height_px=320)
        place = boxed.info.placed or Box(x_px=0, y_px=0, width_px=256, height_px=320)
        assert (place.width_px, place.height_px) == {"numbered": (256, 144), "turned": (180, 320)}[video]
        luma = boxed.pixels[:, :320, :, 1] if pixel_format == "rgb24" else boxed.pixels[:, :320]
        rows, columns = slice(place.y_px, place.y_px + place.height_px), slice(place.x_px, place.x_px + place.width_px)
        outside = luma.copy()
        outside[:, rows, columns] = 0 if pixel_format == "rgb24" else 16
        assert set(np.unique(outside)) == ({0} if pixel_format == "rgb24" else {16})
        if video == "numbered":  # the same scale: the same pixels
            inside = luma[:, rows, columns]
            assert np.array_equal(inside, whole.pixels[..., 1] if pixel_format == "rgb24" else whole.pixels[:, :144])
        if pixel_format == "yuv420p":
            chroma = boxed.pixels[:, 320:].reshape(4, 2, 160, 128)
            chroma[:, :, rows.start // 2 : rows.stop // 2, columns.start // 2 : columns.stop // 2] = 128
            assert set(np.unique(chroma)) == {128}


@pytest.mark.parametrize("size_px", [(112, 112), (224, 224), (320, 200), (600, 400)])
def test_bicubic_is_close_to_the_ideal_and_is_not_bilinear(
    engine: Engine, videos: Path, size_px: tuple[int, int]
) -> None:
    frames = all_frames(videos / "real.mp4")
    for crop in (MultiScaleCrop(snap_px=0), CentreCrop(width_px=288, height_px=288), WholeFrame()):
        clips = {}
        for kernel in ("bicubic", "bilinear"):
            clip = _decode(
                engine, video="real", crop=crop, width_px=size_px[0], height_px=size_px[1], seed=3, interpolation=kernel
            )
            kept = [frames[round(t * 30)] for t in clip.info.pts_s]
            ideal = ideal_clip(kept, clip.info.box, size_px, bicubic=kernel == "bicubic")
            assert psnr_db(clip.pixels, np.clip(ideal, 0, 255)) >= 40, (kernel, crop)
            clips[kernel] = clip.pixels
        assert psnr_db(clips["bicubic"], clips["bilinear"].astype(np.float64)) < 60


def test_three_views_of_a_wide_frame_show_its_left_middle_and_right(engine: Engine) -> None:
    boxes = [_decode(engine, crop=ViewCrop(view=k), width_px=144).info.box for k in range(3)]
    assert [box.x_px for box in boxes] == [0, 56, 112]
