"""Sizes that keep the aspect, buckets that lose no sample, and the masks of batches that are padded instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from framefeed.crops import Box, Letterbox, WholeFrame
from framefeed.errors import BadInput
from framefeed.manifest import Manifest, VideoEntry
from framefeed.sampling import Dense
from tests.unit.client.clips import POLICY, info, plan
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.feed.buckets import BucketRule, Buckets, ClipLengths, ShortSide, into_buckets
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


@pytest.mark.parametrize(
    ("seconds", "wanted"), [(0.1, 4), (0.5, 4), (0.99, 4), (1.0, 8), (1.99, 8), (2.0, 16), (9.0, 16)]
)
def test_a_clip_is_as_long_as_its_sample_has_the_time_for(seconds: float, wanted: int) -> None:
    lengths = ClipLengths(frames=(4, 8, 16), frames_per_s=8)
    assert lengths.frames[lengths.numbers_of(np.array([seconds]))[0]] == wanted


@pytest.mark.parametrize(
    ("frames", "per_s", "message"),
    [((), 8, "frames is \\(\\)"), ((8, 4), 8, "that grow"), ((0,), 8, "from 1 to"), ((4,), 0, "frames_per_s is 0")],
)
def test_lengths_that_are_none_are_refused(frames: tuple[int, ...], per_s: float, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ClipLengths(frames=frames, frames_per_s=per_s)


def _policy(*, frames: int, height_px: int, width_px: int) -> ClipPolicy:
    return ClipPolicy(
        sampling=Dense(frames=frames, stride=1), crop=WholeFrame(), width_px=width_px, height_px=height_px
    )


RULE = BucketRule(size=ShortSide(), lengths=ClipLengths(frames=(4, 8), frames_per_s=4))


def _members(buckets: Buckets) -> dict[tuple[int, ...], list[int]]:
    return {policy.shape[:3]: of.tolist() for policy, of in zip(buckets.policies, buckets.members, strict=True)}


def test_buckets_hold_each_sample_once_by_the_shape_of_its_clip() -> None:
    names = ["wide", "square", "wider", "high", "wide"]
    dataset = [Sample(video=name, start_s=0, end_s=1 + (i > 2)) for i, name in enumerate(names)]
    assert _members(into_buckets(dataset, MANIFEST, RULE, _policy)) == {
        (4, 224, 224): [1], (4, 224, 400): [0, 2], (8, 224, 400): [4], (8, 400, 224): [3]
    }  # fmt: skip
    with pytest.raises(BadInput, match="sample 0 is of 'gone', which is not in the manifest"):
        into_buckets([Sample(video="gone", start_s=0, end_s=1)], MANIFEST, RULE, _policy)


def test_small_buckets_join_those_of_the_most_similar_clips() -> None:
    dataset = [Sample(video=name, start_s=0, end_s=end) for name in ("wide", "high") for end in (1, 1, 1, 2)]
    joined = into_buckets(dataset, MANIFEST, replace(RULE, at_least=3), _policy)
    assert _members(joined) == {(4, 224, 400): [0, 1, 2, 3], (4, 400, 224): [4, 5, 6, 7]}
    one = into_buckets(dataset, MANIFEST, replace(RULE, at_least=100), _policy)
    assert [len(of) for of in one.members] == [8]


def test_buckets_of_other_policies_or_samples_have_another_digest() -> None:
    policies = tuple(_policy(frames=frames, height_px=32, width_px=32) for frames in (4, 8))
    halves = (np.array([0, 2]), np.array([1, 3]))
    found = Buckets(policies=policies, members=halves)
    assert found.digest == Buckets(policies=policies, members=halves).digest
    assert found.clip_bytes == 8 * 32 * 32 * 3
    others = (Buckets(policies=policies, members=halves[::-1]), Buckets(policies=policies[::-1], members=halves))
    assert len({found.digest, *(other.digest for other in others)}) == 3
    with pytest.raises(BadInput, match=r"2 policies for \[4\] samples"):
        Buckets(policies=policies, members=(np.arange(4),))


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
