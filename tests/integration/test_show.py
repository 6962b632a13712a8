"""`framefeed show`: the sheet holds the clip that a server would send, and the box lies where it was cut."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.show.show import Show
from framefeed.cli.drawing import GREEN
from framefeed.crops import Box, ExplicitBox
from framefeed.draws import clip_seed
from framefeed.errors import BadInput
from framefeed.request import ClipRequest
from framefeed.sampling import Dense
from framefeed.wire import map_of_request
from tests.videos import make_numbered_video


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("show")
    make_numbered_video(folder / "v.mp4", frames=60, width_px=256, height_px=144)
    build_index(folder)
    return folder


def _pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_a_sheet_shows_the_clip_and_its_box_on_the_source(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    show = Show(
        root=root, sampling="dense:frames=3,stride=2", crop='explicit:box={"x_px":64,"y_px":0}',
        size_px=(64, 72), tile_px=144, out=out,
    )  # fmt: skip
    with pytest.raises(BadInput, match="does not read"):  # a nested box is for --requests
        show.run()
    request = ClipRequest(
        video="v", start_s=0.5, end_s=1.5, sampling=Dense(frames=3, stride=2),
        crop=ExplicitBox(box=Box(x_px=64, y_px=0, width_px=64, height_px=72)), width_px=64, height_px=72, seed=4,
    )  # fmt: skip
    (tmp_path / "batch.json").write_text(json.dumps([map_of_request(request)]))
    replace(show, requests=tmp_path / "batch.json").run()
    (sheet,) = _pictures(out)
    clip = np.empty(request.shape, np.uint8)
    Engine(Library(root)).decode(request, clip)
    head_px, tile_px, step_px = 18 + 4, 144 + 4, 256 + 4
    for number, frame in enumerate(clip):
        x = number * step_px
        assert np.array_equal(sheet[head_px + tile_px : head_px + tile_px + 72, x : x + 64], frame)
        source = sheet[head_px : head_px + 144, x : x + 256]
        assert (source[20:72, 64:66] == GREEN).all()
        assert (source[70:72, 64:128] == GREEN).all()
    assert not list(tmp_path.glob("*.part*"))


def test_an_index_is_the_clip_that_training_gets(root: Path, tmp_path: Path) -> None:
    samples = tmp_path / "train.jsonl"
    samples.write_text("\n".join(json.dumps({"video": "v", "start_s": i / 4, "end_s": 1 + i / 4}) for i in range(4)))
    show = Show(root=root, samples=samples, index=3, epoch=2, run_seed=7, hflip=0.5, crop="random_resized")
    (request,) = show.wanted(Library(root))
    assert (request.start_s, request.end_s) == (0.75, 1.75)
    assert request.seed == clip_seed(7, epoch=2, index=3)
    assert replace(show, epoch=3).wanted(Library(root))[0].seed != request.seed


def test_a_video_has_one_frame_for_each_of_the_clips(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.mp4"
    Show(root=root, start_s=1.8, sampling="dense:frames=8,stride=1,short=pad", crop="letterbox", out=out).run()
    assert len(_pictures(out)) == 8
    said = capsys.readouterr().out
    assert (
        "v [1.8, 2) s, box 256x144+0+0, 224x224, seed 0, frames at 1.800 1.833 1.867 1.900 1.933 1.967 pad pad s"
        in said
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": Path("a.gif")}, r"out is a\.gif, wanted a file ending in \.png or \.mp4"),
        ({"tile_px": 2}, "tile_px is 2"),
        ({"sampling": "denze"}, r"^show: sampling is 'denze': there is no policy 'denze'; did you mean dense\?$"),
        ({"sampling": "foo"}, "sampling is 'foo': there is no policy 'foo'; wanted one of segments, linspace, dense, "),
        (
            {"sampling": "dense:frames=4"},
            r"sampling is 'dense:frames=4': wanted stride too: dense:frames=…,stride=…,\[jitter=…\],\[short=…\]$",
        ),
        ({"sampling": "segments:frames=abc"}, "': frames is 'abc', wanted a whole number$"),
        ({"sampling": "segments:frames=4,jitter=3"}, "': jitter is '3', wanted True or False$"),
        ({"sampling": "segments:frames=0"}, "sampling is 'segments:frames=0': frames is 0, wanted 1 to 512"),
        ({"sampling": "segments:framez=4"}, r"': segments has no 'framez'; did you mean frames\?$"),
        ({"crop": "random_resized:scale=1"}, r"crop is 'random_resized:scale=1': scale is '1', wanted 2 of finite"),
        (
            {"crop": "random_resized:scale=[1"},
            r"^show: --crop: policy '.*' does not read, from 'scale=\[1' on; wanted NAME",
        ),
        ({"crop": "view:view=3"}, "show: crop is 'view:view=3': view is 3 of 3"),
        ({"start_s": 2.0}, "^show: start_s is 2, wanted less than 2: 'v' is 2 s long$"),
        ({"start_s": 1.0, "end_s": 0.5}, "show: end_s is 0.5, wanted more than --start-s, which is 1: 'v' is 2 s long"),
        ({"samples": Path("x.jsonl")}, "--samples without --index"),
        ({"index": 3}, "--index is 3 without --samples; wanted the dataset that it is an index of"),
        ({"video": "vv"}, "--video is 'vv', wanted one of the manifest's 1 videos; the nearest is 'v'"),
        ({"video": "plain"}, "--video is 'plain', wanted one of the manifest's 1 videos; the nearest is 'v'"),
        ({"index_folder": Path(__file__).parent}, "name the folder of its index with --index-folder"),
        ({"requests": Path("nowhere.json")}, r"requests nowhere\.json cannot be read"),
    ],
)
def test_options_that_say_no_clip_are_one_clear_line(root: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(Show(root=root), **change).run()  # type: ignore[arg-type]
