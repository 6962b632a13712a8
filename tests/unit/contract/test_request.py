"""A request checks itself when built, and says what it wanted."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from framefeed.crops import Box, CentreCrop, Letterbox, RandomResizedCrop
from framefeed.errors import BadRequest
from framefeed.request import ClipRequest
from framefeed.sampling import Sampling, Segments
from framefeed.sampling_rules import PUBLISHED, PublishedRule
from tests.unit.contract.test_sampling import POLICIES

REQUEST = ClipRequest(
    video="P01/P01_01", start_s=1.0, end_s=2.0, sampling=Segments(frames=4), crop=RandomResizedCrop(),
    width_px=224, height_px=224, seed=5, hflip_probability=0.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": ""}, "video name has 0 characters"),
        ({"start_s": -1.0}, r"\[-1, 2\) s, wanted 0 <= start < end"),
        ({"end_s": 1.0}, r"\[1, 1\) s, wanted 0 <= start < end"),
        ({"end_s": float("inf")}, "wanted 0 <= start < end"),
        ({"start_s": float("nan")}, "wanted 0 <= start < end"),
        ({"width_px": 223}, "width_px is 223, wanted an even number"),
        ({"height_px": 100_000}, "height_px is 100000, wanted an even number from 2 to 4096"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "wanted 0 to 2"),
        ({"hflip_probability": 1.5}, "hflip_probability is 1.5, wanted 0 to 1"),
        ({"pixel_format": "bgr24"}, "pixel_format is 'bgr24'"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest', wanted 'bilinear' or 'bicubic'"),
        ({"width_px": 4096, "height_px": 4096, "sampling": Segments(frames=16)}, "the clip would be 805306368 bytes"),
    ],
)
def test_a_bad_field_is_refused_with_the_value_seen(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        replace(REQUEST, **change)


def test_shapes() -> None:
    assert REQUEST.shape == (4, 224, 224, 3)
    assert REQUEST.clip_bytes == 602_112
    assert replace(REQUEST, pixel_format="yuv420p").shape == (4, 336, 224)
    assert replace(REQUEST, pixel_format="yuv420p").clip_bytes == 301_056


def test_only_a_letterbox_that_does_not_fill_the_picture_is_placed() -> None:
    box = Box(x_px=0, y_px=0, width_px=512, height_px=288)
    assert REQUEST.placed(box) is None
    letterbox = replace(REQUEST, crop=Letterbox())
    assert letterbox.placed(box) == Box(x_px=0, y_px=48, width_px=224, height_px=126)
    assert letterbox.placed(Box(x_px=0, y_px=0, width_px=100, height_px=100)) is None


def test_the_flip_is_a_draw_of_the_seed() -> None:
    flips = [replace(REQUEST, seed=seed).flipped for seed in range(1000)]
    assert 440 < sum(flips) < 560
    assert flips == [replace(REQUEST, seed=seed).flipped for seed in range(1000)]
    assert not any(replace(REQUEST, seed=seed, hflip_probability=0.0).flipped for seed in range(50))
    assert all(replace(REQUEST, seed=seed, hflip_probability=1.0).flipped for seed in range(50))


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        REQUEST.seed = 6  # type: ignore[misc]


def _published() -> list[PublishedRule]:
    """Each rule in training and in its tests."""
    rules = [PublishedRule(rule=rule, frames=5, train="train" in known.takes) for rule, known in PUBLISHED.items()]
    rules += [PublishedRule(rule=rule, frames=5) for rule, known in PUBLISHED.items() if "test" in known.takes]
    viewed = [rule for rule, known in PUBLISHED.items() if "views" in known.takes]
    return rules + [PublishedRule(rule=rule, frames=5, view=1, views=3) for rule in viewed]


@pytest.mark.parametrize("policy", [*POLICIES, *_published()], ids=str)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=60), st.floats(0.001, 30), st.integers(0, 2**63))
@settings(max_examples=40)
def test_equal_frames_keys_are_equal_frames(policy: Sampling, gaps_s: list[float], length_s: float, seed: int) -> None:
    one = replace(REQUEST, sampling=policy, seed=seed)
    two = replace(one, seed=seed + 1)
    times_s = np.cumsum(gaps_s) - gaps_s[0]
    equal = np.array_equal(*(policy.pick(times_s, (0.0, length_s), request.seed) for request in (one, two)))
    assert equal or one.frames_key != two.frames_key
    crop = CentreCrop(width_px=64, height_px=64)
    assert one.frames_key == replace(one, crop=crop, pixel_format="yuv420p", width_px=64).frames_key
    assert one.frames_key != replace(one, end_s=one.end_s + 1).frames_key


def test_the_crops_of_a_test_have_one_frames_key() -> None:
    for sampling in (Segments(frames=4), PublishedRule(rule="avion_views", frames=4, view=1, views=5)):
        keys = {replace(REQUEST, sampling=sampling, seed=seed).frames_key for seed in range(3)}
        assert len(keys) == 1
