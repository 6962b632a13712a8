"""The decode bench: its stages hold what they say and add up, and a clip far from the ideal one is no figure."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from decode_server.chunking.synthetic import make_videos
from decode_server.clips import swscale
from decode_server.clips.clip_reader import ClipReader
from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.clips.packet_bytes import PacketBytes
from decode_server.indexing.index import build_index
from framefeed.errors import FramefeedError
from framefeed.request import ClipRequest, PixelFormat
from framefeed_bench.clips import DENSE, SPARSE, draw_requests
from framefeed_bench.contestants import Framefeed, FramefeedStart
from framefeed_bench.decode import profile
from framefeed_bench.proof import prove
from framefeed_bench.stages import STAGES, timed_stages
from framefeed_bench.tables import profile_markdown

Clip = np.ndarray
CLIPS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench_decode")
    make_videos(folder, videos=1, seconds=4, size_px=(192, 128), seed=5)
    build_index(folder)
    return folder


@pytest.fixture
def requests(root: Path) -> list[ClipRequest]:
    return draw_requests(root, SPARSE, CLIPS)


def started(root: Path, requests: list[ClipRequest], pixel_format: PixelFormat) -> Framefeed:
    return FramefeedStart(root=root, requests=requests, pixel_format=pixel_format)()


@pytest.mark.parametrize("shape", [SPARSE, DENSE], ids=lambda shape: shape.title)
@pytest.mark.parametrize("pixel_format", ["rgb24", "yuv420p"])
def test_every_call_counts_in_its_stage_once(root: Path, shape: object, pixel_format: PixelFormat) -> None:
    """By a clock that moves by 1 s each time it is read, a timed call takes 1 s, and one with another in it more."""
    (request,) = draw_requests(root, shape, 1)
    own = started(root, [request], pixel_format)
    (chunk,) = Engine(Library(root)).plan(request).chunks
    runs, frames = len(chunk.runs), sum(len(run.keep) for run in chunk.runs)
    ticks = itertools.count()
    with timed_stages(lambda: float(next(ticks))) as spent_s:
        own.round()
    packets = own.infos[0].fed_packets
    assert packets > frames >= 4
    assert spent_s == {
        "read": 1,
        # The packet None that asks for what the codec holds, that there are no more, and around the read once more.
        "feed": packets + 2 * runs + 1,
        "decode": packets + 2 * runs,  # that None, and the flush
        "scale": 1 + frames,
        "convert": frames if pixel_format == "rgb24" else 0,
    }
    seen = dict(spent_s)
    own.round()
    assert spent_s == seen, "timed after it was left"


@pytest.mark.parametrize(
    ("owner", "name", "stage"),
    [
        (Library, "read", "read"),
        (PacketBytes, "packet", "feed"),
        (swscale, "_new_context", "scale"),
        (swscale, "_new_interleaver", "convert"),
        (ClipReader, "plan", None),
    ],
)
def test_time_goes_to_the_stage_it_is_spent_in(
    root: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, stage: str | None
) -> None:
    now_s, plain = [0.0], getattr(owner, name)

    def slow(*args: object, **options: object) -> object:
        now_s[0] += 1
        return plain(*args, **options)

    own = started(root, draw_requests(root, SPARSE, 1), "rgb24")
    monkeypatch.setattr(owner, name, slow)
    with timed_stages(lambda: now_s[0]) as spent_s:
        own.round()
    assert now_s[0] > 0
    assert spent_s == dict.fromkeys(STAGES, 0.0) | ({stage: now_s[0]} if stage else {})


@pytest.mark.parametrize("pixel_format", ["rgb24", "yuv420p"])
def test_timed_clips_are_the_same(root: Path, requests: list[ClipRequest], pixel_format: PixelFormat) -> None:
    own = started(root, requests, pixel_format)
    with timed_stages() as spent_s:
        timed = [own.clip(number) for number in range(CLIPS)]
    assert spent_s["decode"] > 0
    assert all(np.array_equal(own.clip(number), clip) for number, clip in enumerate(timed))


def test_an_error_ends_the_timing(root: Path, requests: list[ClipRequest]) -> None:
    own = started(root, [replace(requests[0], start_s=1e6, end_s=1e6 + 1)], "rgb24")
    before = PacketBytes._read
    with pytest.raises(FramefeedError), timed_stages():
        own.round()
    assert PacketBytes._read is before


def test_stages_and_python_add_up(root: Path) -> None:
    found = profile(root, 2, 3)
    assert list(found) == [f"{shape.title}, {way}" for shape in (SPARSE, DENSE) for way in ("rgb24", "yuv420p")]
    for name, row in found.items():
        assert list(row) == [*STAGES, "python", "total", "packets"]
        assert sum(row[stage] for stage in (*STAGES, "python")) == pytest.approx(row["total"], abs=1e-9)
        assert min(row[stage] for stage in ("decode", "scale", "python")) > 0
        assert (row["convert"] > 0) == name.endswith("rgb24")


class Contestants:
    """framefeed twice, in this process, its YUV clips spoilt."""

    def __init__(self, root: Path, requests: list[ClipRequest], spoil: Callable[[Clip, int], Clip]) -> None:
        self._own = {"RGB": started(root, requests, "rgb24"), "YUV": started(root, requests, "yuv420p")}
        self._spoil = spoil

    def clip(self, name: str, number: int) -> Clip:
        clip = self._own[name].clip(number)
        return self._spoil(clip, number) if name == "YUV" else clip


def as_it_is(clip: Clip, _: int) -> Clip:
    return clip


def swap_chroma(clip: Clip, _: int) -> Clip:
    luma, u, v = np.split(clip.reshape(len(clip), -1), [224 * 224, 224 * 224 * 5 // 4], axis=1)
    return np.concatenate((luma, v, u), axis=1).reshape(clip.shape)


def reverse_the_last(clip: Clip, number: int) -> Clip:
    return clip[::-1].copy() if number == CLIPS - 1 else clip


def dim_the_first(clip: Clip, number: int) -> Clip:
    return np.where(clip > 8, clip - 4, clip) if number == 0 else clip


def proved(root: Path, requests: list[ClipRequest], spoil: Callable[[Clip, int], Clip]) -> dict[str, float]:
    return prove(Contestants(root, requests, spoil), requests, exact=root, roots={"RGB": root, "YUV": root})


def test_yuv_clips_are_proved_by_their_worst(root: Path, requests: list[ClipRequest]) -> None:
    clean, spoilt = proved(root, requests, as_it_is), proved(root, requests, dim_the_first)
    assert min(clean.values()) > 44, "42 with chroma sited left"
    assert spoilt["RGB"] == clean["RGB"]
    assert 25 < spoilt["YUV"] < 36


@pytest.mark.parametrize("spoil", [swap_chroma, reverse_the_last])
def test_other_pixels_are_no_figure(
    root: Path, requests: list[ClipRequest], spoil: Callable[[Clip, int], Clip]
) -> None:
    with pytest.raises(FramefeedError, match=r"bench: YUV is at \d+\.\d dB on scene_000\.mp4, wanted 25\.0"):
        proved(root, requests, spoil)


def test_each_case_has_its_row_in_the_table() -> None:
    stages = {"read": 0.1, "feed": 0.2, "decode": 3.0, "scale": 0.5, "convert": 0.0}
    row = {"packets": 10.6, "total": 4.2, "python": 0.4, **stages}  # in no order
    table = profile_markdown({"profile_ms": {"four": row, "five": {**row, "convert": 0.3, "total": 4.5}}})
    assert table.splitlines() == [
        "|  | read | feed | decode | scale | convert | Python | total | packets |",
        "|---|---|---|---|---|---|---|---|---|",
        "| four | 0.1 | 0.2 | 3.0 | 0.5 | 0.0 | 0.4 | 4.2 | 10.6 |",
        "| five | 0.1 | 0.2 | 3.0 | 0.5 | 0.3 | 0.4 | 4.5 | 10.6 |",
    ]
