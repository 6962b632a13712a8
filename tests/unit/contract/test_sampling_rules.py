"""Published rules: the frames that their code picks, by hand from the rule's text; draws in the published ranges."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefeed.errors import BadRequest
from framefeed.sampling_rules import PUBLISHED, PublishedRule
from framefeed.spans import PADDING

THIRTY_FPS = np.arange(600) / 30


def _pick(rule: str, frames: int, first: int, last: int, *, seed: int = 0, **options: Any) -> list[int]:
    """Ids of the rule over frames first … last - 1 of a video of 600 frames at 30 fps, counted from the first."""
    policy = PublishedRule(rule=rule, frames=frames, **options)
    ids = policy.pick(THIRTY_FPS, (first / 30, last / 30), seed)
    return [PADDING if i == PADDING else int(i) - first for i in ids]


def _draws(rule: str, frames: int, first: int, last: int, **options: Any) -> np.ndarray:
    seeds = range(800)
    return np.array([_pick(rule, frames, first, last, seed=seed, train=True, **options) for seed in seeds])


def _absolute(rule: str, frames: int, first: int, last: int, **options: Any) -> list[int]:
    return [first + i for i in _pick(rule, frames, first, last, **options)]


def test_avion_sparse_takes_truncated_midpoints() -> None:
    assert _absolute("avion_sparse", 4, 30, 60) == [33, 41, 48, 56]
    assert _absolute("avion_sparse", 16, 100, 105) == [100, 100, 100, 101, 101, 101, 102, 102, 102, 102, 103, 103, 103,
                                                       104, 104, 104]  # fmt: skip


def test_avion_sparse_rounds_its_span_to_frames_and_ends_at_the_last_one() -> None:
    rule = PublishedRule(rule="avion_sparse", frames=2)
    assert rule.pick(THIRTY_FPS, (1.019, 2.0), 0).tolist() == [38, 52]  # 30.57 -> 31; 31 + 29/4 and 31 + 3 * 29/4
    assert rule.pick(THIRTY_FPS, (19.0, 20.0), 0).tolist() == [577, 591]  # 600 frames: the end is frame 599
    later = rule.pick(THIRTY_FPS[450:], (15.5, 16.5), 0)  # a chunk that begins at 15 s
    assert (later + 450).tolist() == [472, 487]


def test_avion_sparse_jitters_by_half_a_segment_less_a_frame() -> None:
    ids = _draws("avion_sparse", 4, 30, 60)
    centres, half = np.array([3.75, 11.25, 18.75, 26.25]), 29 / 4 / 2
    assert np.all(ids >= np.floor(centres - half))
    assert np.all(ids <= np.floor(centres + half))
    assert ids.min(axis=0).tolist() == np.floor(centres - half).tolist()
    assert ids.max(axis=0).tolist() == np.floor(centres + half).tolist()


def test_lavila_takes_the_middle_of_each_rounded_segment() -> None:
    # (60 - 30 - 1) / 4 = 7.25: edges 30, 37, 44 (14.5 to even 14), 52, 59
    assert _absolute("lavila_segments", 4, 30, 60) == [33, 40, 48, 55]
    ids = _draws("lavila_segments", 4, 30, 60)
    assert ids.min(axis=0).tolist() == [0, 7, 14, 22]
    assert ids.max(axis=0).tolist() == [7, 14, 22, 29], "both ends included"
    # A span of 5 frames is stretched to the 16 of the clip: 15 / 16 a segment; edges 7.5 and 8.44 both round to 8.
    assert _absolute("lavila_segments", 16, 100, 105) == list(range(100, 109)) + list(range(108, 115))


def test_avion_dense_jitters_each_frame_and_wraps_around() -> None:
    ids = _draws("avion_dense", 4, 0, 100, stride=5)
    starts = ids[:, 0]
    assert starts.min() == 0
    assert starts.max() == 100 - 25 - 1 + 4
    steps = np.diff(ids, axis=1)
    assert steps.min() == 1
    assert steps.max() == 9
    short = _draws("avion_dense", 4, 0, 12, stride=5)
    unwrapped = np.arange(4) * 5 + np.arange(5)[:, None]
    assert [set(column) for column in short.T] == [set(column) for column in (unwrapped % 12).T]


def test_videomae_dense_starts_anywhere_that_fits_and_holds() -> None:
    ids = _draws("videomae_dense", 4, 0, 40, stride=4)
    assert set(ids[:, 0]) == set(range(40 - 16 + 1))
    assert np.all(np.diff(ids) == 4)
    assert _pick("videomae_dense", 4, 0, 10, stride=4, train=True) == [0, 4, 8, 8]
    assert _pick("videomae_dense", 4, 0, 9, stride=4, train=True) == [0, 4, 4, 4]  # 1 + 8 < 9 fails, counted from 1
    assert _pick("videomae_dense", 4, 0, 1, stride=4, train=True) == [0, 0, 0, 0]


def test_videomae_finetune_linspaces_a_window_with_its_end() -> None:
    ids = _draws("videomae_finetune", 16, 0, 100, stride=4)
    assert set(ids[:, 0]) == set(range(100 - 64))
    window = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]  # int(64 i / 15), the last held at 63
    assert np.all(ids - ids[:, :1] == window)
    assert _pick("videomae_finetune", 16, 0, 64, stride=4, train=True) == window
    assert _pick("videomae_finetune", 6, 0, 17, stride=4, train=True) == [0, 5, 11, 16, 16, 16]  # linspace(0, 17, 4)


def test_views_of_kinetics_tests() -> None:
    avion = [_pick("avion_views", 16, 0, 101, stride=4, view=k, views=5) for k in range(5)]
    assert [ids[0] for ids in avion] == [0, 9, 18, 27, 37]  # int(k * 37 / 4)
    assert all(np.all(np.diff(ids) == 4) for ids in avion)
    videomae = [_pick("videomae_views", 16, 0, 101, stride=4, view=k, views=5) for k in range(5)]
    assert [ids[0] for ids in videomae] == [0, 8, 20, 28, 40]  # 26 kept: int(k * 10 / 4) of them, 4 apart
    assert _pick("videomae_views", 4, 0, 10, stride=4, view=1, views=2) == [0, 4, 8, 8]
    assert _pick("avion_views", 4, 0, 10, stride=4, view=1, views=2) == [0, 4, 8, 9]


def test_tsn_segments() -> None:
    assert _pick("tsn_segments", 4, 0, 30) == [3, 11, 18, 26]
    assert _pick("tsn_segments", 4, 0, 30, view=0, views=2) == [0, 7, 15, 22]
    assert _pick("tsn_segments", 4, 0, 30, view=1, views=2) == [3, 11, 18, 26]
    ids = _draws("tsn_segments", 4, 0, 30)
    assert ids.min(axis=0).tolist() == [0, 7, 14, 21]
    assert ids.max(axis=0).tolist() == [6, 13, 20, 27]
    assert _pick("tsn_segments", 4, 0, 3, train=True) == [0, 1, 1, 2]


def test_lavila_dense_pads_what_is_short() -> None:
    assert _pick("lavila_dense", 4, 0, 9, stride=4) == [0, 4, 8, PADDING]
    views = [_pick("lavila_dense", 4, 0, 40, stride=4, view=k, views=10)[0] for k in range(10)]
    assert views == [0, 2, 5, 8, 10, 13, 16, 18, 21, 24]
    assert set(_draws("lavila_dense", 4, 0, 40, stride=4)[:, 0]) == set(range(25))


@pytest.mark.parametrize("fps", [24000 / 1001, 25, 30000 / 1001, 50, 60000 / 1001])
def test_frames_are_numbered_by_the_rate_also_where_time_stamps_are_rounded(fps: float) -> None:
    times_s = np.round(np.arange(450) / fps, 3)  # Matroska's milliseconds
    ids = PublishedRule(rule="avion_sparse", frames=4).pick(times_s, (100 / fps, 200 / fps), 0)
    assert ids.tolist() == [112, 137, 162, 187]


@pytest.mark.parametrize("rule", PUBLISHED)
@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=60),
    st.floats(0, 30),
    st.floats(0.001, 30),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=30)
def test_every_rule_picks_frames_that_are_there(
    rule: str, gaps_s: list[float], start_s: float, length_s: float, seed: int
) -> None:
    times_s = np.cumsum(gaps_s) - gaps_s[0]
    span_s = (min(start_s, float(times_s[-1])), min(start_s, float(times_s[-1])) + length_s)
    takes = PUBLISHED[rule].takes
    policy = PublishedRule(rule=rule, frames=5, stride=2 if "stride" in takes else 1, train="train" in takes)
    ids = policy.pick(times_s, span_s, seed)
    assert ids.shape == (5,)
    assert np.array_equal(policy.pick(times_s, span_s, seed), ids)
    kept = ids[ids != PADDING]
    assert len(kept) == 5 or rule == "lavila_dense"
    assert 0 <= kept.min() <= kept.max() < len(times_s)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PublishedRule(rule="avion", frames=4), "rule is 'avion', wanted one of avion_sparse, "),
        (lambda: PublishedRule(rule="avion_sparse", frames=4, stride=4), "rule avion_sparse has no stride; it has"),
        (lambda: PublishedRule(rule="avion_dense", frames=4, stride=4), "rule avion_dense has no test; it has train"),
        (lambda: PublishedRule(rule="avion_views", frames=4, train=True), "rule avion_views has no train"),
        (lambda: PublishedRule(rule="avion_sparse", frames=4, views=5), "rule avion_sparse has no views"),
        (lambda: PublishedRule(rule="tsn_segments", frames=4, views=2, train=True), "has views in a test only"),
        (lambda: PublishedRule(rule="avion_views", frames=4, view=5, views=5), "view is 5 of 5"),
    ],
)
def test_an_option_that_a_rule_lacks_is_refused(make: Callable[[], PublishedRule], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        make()
