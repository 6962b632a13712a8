"""Sizes that keep the aspect, buckets that lose no sample, and the masks of batches that are padded instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from framefeed.crops import Box, Letterbox
from framefeed.errors import BadInput
from framefeed.manifest import Manifest, VideoEntry
from tests.unit.client.clips import POLICY, info, plan
from trainer_client.feed.batch import Batch
from trainer_client.feed.buckets import ShortSide, bucket_by_size, bucket_order
from trainer_client.samples import Sample


def _entry(video: str, width_px: int, height_px: int) -> VideoEntry:
    return VideoEntry(
        video=video, codec="h264", duration_s=9.0, fps=30, width_px=width_px, height_px=height_px, media_bytes=1,
        chunk_start_s=(0.0,), record_offset=(0,), record_bytes=(1,),
    )  # fmt: skip


SHAPES = {"wide": (512, 288), "high": (288, 512), "square": (300, 300), "wider": (640, 360)}
MANIFEST = Manifest(videos={name: _entry(name, *size) for name, size in SHAPES.items()})


@pytest.mark.parametrize(
    ("size_px", "wanted"),
    [
        ((512, 288), (400, 224)),  # 398.2 is nearest to 25 x 16
        ((288, 512), (224, 400)),
        ((300, 300), (224, 224)),
        ((310, 300), (224, 224)),
        ((2000, 300), (448, 224)),
    ],
)
def test_sizes_keep_the_aspect(size_px: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert ShortSide().size_px(*size_px) == wanted


@given(st.integers(2, 5000), st.integers(2, 5000))
def test_sizes_are_multiples_within_bounds(width_px: int, height_px: int) -> None:
    rule = ShortSide(short_side_px=112, multiple_px=14, long_side_px=280)
    width, height = rule.size_px(width_px, height_px)
    assert min(width, height) == 112
    assert max(width, height) <= 280
    assert width % 14 == height % 14 == 0
    assert rule.size_px(height_px, width_px) == (height, width)
    if max(width, height) < 280:
        assert abs(max(width, height) - 112 * max(width_px, height_px) / min(width_px, height_px)) <= 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShortSide(multiple_px=7), "multiple_px is 7, wanted an even number"),
        (lambda: ShortSide(short_side_px=225), "short_side_px is 225, wanted a multiple of 16"),
        (lambda: ShortSide(long_side_px=208), "long_side_px is 208, less than the short one, 224"),
    ],
)
def test_sizes_out_of_bounds_are_refused(make: Callable[[], ShortSide], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_buckets_hold_each_sample_once_and_know_its_index() -> None:
    names = ["wide", "square", "wider", "high", "wide"]
    dataset = [Sample(video=name, start_s=i, end_s=i + 1) for i, name in enumerate(names)]
    buckets = bucket_by_size(dataset, MANIFEST, ShortSide())
    assert [(b.width_px, b.height_px, b.indices.tolist()) for b in buckets] == [
        (224, 224, [1]), (224, 400, [3]), (400, 224, [0, 2, 4])
    ]  # fmt: skip
    assert [buckets[2][i] for i in range(len(buckets[2]))] == [dataset[i] for i in (0, 2, 4)]
    with pytest.raises(BadInput, match="sample 0 is of 'gone', which is not in the manifest"):
        bucket_by_size([Sample(video="gone", start_s=0, end_s=1)], MANIFEST, ShortSide())


def test_the_order_of_buckets_gives_each_its_steps() -> None:
    order = bucket_order([3, 0, 5], seed=4)
    assert np.bincount(order, minlength=3).tolist() == [3, 0, 5]
    assert np.array_equal(order, bucket_order([3, 0, 5], seed=4))
    assert len({tuple(bucket_order([3, 0, 5], seed=seed)) for seed in range(30)}) > 10


@pytest.mark.parametrize("shape", [(2, 3, 8, 6, 3), (2, 3, 12, 6)])
def test_masks_say_what_is_of_the_video(shape: tuple[int, ...]) -> None:
    places = plan(0)
    placed = Box(x_px=2, y_px=0, width_px=4, height_px=8)
    infos = (
        structs.replace(info(), pts_s=(0.0, 0.1, 0.1), padding=(False, False, True)),
        structs.replace(info(), pts_s=(0.0, 0.1, 0.2), placed=placed),
    )
    batch = Batch(
        step=0, pixels=np.zeros(shape, np.uint8), positions=places.places.positions, epochs=places.places.epochs,
        indices=places.places.indices, seeds=places.places.seeds, samples=places.samples, infos=infos,
    )  # fmt: skip
    assert batch.frame_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.pixel_mask.shape == (2, 8, 6)
    assert batch.pixel_mask[0].all()
    assert batch.pixel_mask[1].all(axis=0).tolist() == [False, False, True, True, True, True]
    assert not batch.pixel_mask[1, :, :2].any()


def test_a_policy_asks_with_all_of_its_fields() -> None:
    policy = replace(POLICY, crop=Letterbox(), interpolation="bicubic", hflip_probability=0.25)
    request = policy.request(Sample(video="v", start_s=0, end_s=1), seed=3)
    assert {name: getattr(request, name) for name in policy.__slots__} == {
        name: getattr(policy, name) for name in policy.__slots__
    }
