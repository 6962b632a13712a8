"""A value of another type than its field declares is refused by the field's name; NumPy's numbers become Python's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput, BadRequest, FramefeedError
from framefeed.manifest import read_manifest
from framefeed.sampling import Dense, Segments
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.stand_ins import PoisonOptions
from trainer_client.loader import LoaderOptions
from trainer_client.samples import Sample, VideoWindows
from trainer_client.transports.credentials import Credentials
from trainer_client.views import Views


def options(**chosen: Any) -> LoaderOptions:
    return LoaderOptions(**{"servers": ["tcp://a:1"], "batch_clips": 4, **chosen})


def policy(**chosen: Any) -> ClipPolicy:
    return ClipPolicy(**{"sampling": Segments(frames=4), "crop": RandomResizedCrop(), **chosen})


def sample(**chosen: Any) -> Sample:
    return Sample(**{"video": "v0", "start_s": 0.0, "end_s": 1.0, **chosen})


WRONG: list[tuple[str, Any]] = [
    *(("batch_clips", value) for value in (2.5, True, "4", None, np.float64(4), [4])),
    *(("steps", value) for value in (2.5, "2", True, np.nan)),
    *(("epochs", value) for value in ("1", float("nan"), True, [1])),
    *((name, value) for name in ("attempt_s", "stall_s", "look_every_s") for value in (float("inf"), "5", None)),
    *(("affinity_slack", value) for value in (float("inf"), float("nan"), "1")),
    *(("io_threads", value) for value in (0, 65, 10**10, 2.0)),
    *(("run_seed", value) for value in (None, "0", 1.5)),
    *(("rank", value) for value in ("0", 0.0, True)),
    *(("order", value) for value in (None, 3, "Strict")),
    *(("poison", value) for value in ("skip", None, PoisonOptions)),
    *(("credentials", value) for value in (None, "key", Credentials)),
    *(("servers", value) for value in (None, [1], [b"tcp://a:1"], 7, {"tcp://a:1"}, "tcp://a:1")),
    *(("shuffle", value) for value in ("no", None, 1)),
    *(("run", value) for value in (None, "a b\n", "x" * 10_000)),
    *(("dataset_identity", value) for value in (3, b"v1-x")),
    ("work_class", "evaluation"),
    ("on_stall", "x"),
    ("allow_mixed_decoders", "yes"),
    ("prefetch_bytes", 1e9),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name} {value!r:.30}" for name, value in WRONG])
def test_an_option_of_another_type_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(BadInput, match=rf"\b{name} is .*wanted") as refused:
        options(**{name: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: policy(crop=RandomResizedCrop), "crop is the class RandomResizedCrop, wanted one of Random"),
        (lambda: policy(sampling=None), "sampling is None, wanted one of Segments, "),
        (lambda: policy(width_px=64.0), "width_px is 64.0, wanted a whole number"),
        (lambda: policy(pixel_format="rgb"), "pixel_format is 'rgb', wanted 'rgb24' or 'yuv420p'"),
        (lambda: policy(hflip_probability=float("nan")), "hflip_probability is nan, wanted a finite number"),
        (lambda: Segments(frames=4.0), "frames is 4.0, wanted 1 to 512, a whole number"),  # type: ignore[arg-type]
        (lambda: Segments(frames="4"), "frames is '4'"),  # type: ignore[arg-type]
        (lambda: Dense(frames=4, stride=True), "stride is True"),
        (lambda: policy(sampling=Segments(frames=4, jitter="x")), "sampling: jitter is 'x', wanted True or False"),  # type: ignore[arg-type]
        (lambda: sample(video=Path("v0")), "video is the path v0, wanted a string"),
        (lambda: sample(video=3), "video is 3, wanted a string"),
        (lambda: sample(video=""), "video is '', wanted a video's name"),
        (lambda: sample(video="\udcff"), r"video is '\\udcff', wanted a video's name"),
        (lambda: sample(video="x" * 100_000), r"video is 'xxx.*…x*', wanted a video's name"),
        (lambda: sample(start_s="0"), "start_s is '0', wanted a finite number"),
        (lambda: sample(end_s=None), "end_s is None, wanted a finite number"),
        (lambda: sample(start_s=False), "start_s is False, wanted a finite number"),
        (lambda: sample(view=0.0), "view is 0.0, wanted a whole number"),
        (lambda: Views([sample()], views=2.5), "views is 2.5"),  # type: ignore[arg-type]
        (lambda: PoisonOptions(policy="Skip"), "poison: policy is 'Skip', wanted 'raise' or"),  # type: ignore[arg-type]
        (lambda: PoisonOptions(folder="there"), "poison: folder is 'there', wanted a Path or None"),  # type: ignore[arg-type]
        (lambda: Credentials(token_file="there"), "credentials: token_file is 'there', wanted"),  # type: ignore[arg-type]
        (lambda: read_manifest("there"), "root 'there' is no pathlib.Path"),  # type: ignore[arg-type]
        (lambda: VideoWindows("there", window_s=1.0), "manifest is 'there', wanted"),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_another_type_is_one_line(make: Any, says: str) -> None:
    with pytest.raises(FramefeedError, match=says) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_a_crop_of_strings_is_refused() -> None:
    with pytest.raises(BadRequest, match="scale is"):
        RandomResizedCrop(scale=("a", 1.0))  # type: ignore[arg-type]


def test_numpy_s_numbers_become_python_s_of_the_same_value() -> None:
    one = sample(start_s=np.float32(0.1), end_s=np.int64(2), view=np.int32(1))
    assert (one.start_s, one.end_s, one.view) == (float(np.float32(0.1)), 2.0, 1)
    assert [type(value) for value in (one.start_s, one.end_s, one.view)] == [float, float, int]
    assert type(sample(start_s=0, end_s=np.float64(1)).end_s) is float
    chosen = options(batch_clips=np.int64(4), attempt_s=np.float32(20), steps=np.uint8(3))
    assert [type(value) for value in (chosen.batch_clips, chosen.attempt_s, chosen.steps)] == [int, float, int]
    made = policy(sampling=Segments(frames=np.int64(4)), width_px=np.int64(64))  # type: ignore[arg-type]
    assert (type(made.sampling.frames), type(made.width_px)) == (int, int)
    assert made == policy(width_px=64)
