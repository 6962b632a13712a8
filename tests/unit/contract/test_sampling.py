"""Sampling policies over frame times."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadRequest
from framefeed.sampling import MAX_FRAMES, Dense, Segments

THIRTY_FPS = np.arange(300) / 30


def test_midpoints_of_a_second_at_30_fps() -> None:
    ids = Segments(frames=4).pick(THIRTY_FPS, (1.0, 2.0), 0)
    assert ids.tolist() == [33, 41, 48, 56]  # AVION's midpoints of frames 30 to 60


def test_jitter_stays_in_its_segment_and_depends_on_the_seed_alone() -> None:
    policy = Segments(frames=8, jitter=True)
    drawn = [policy.pick(THIRTY_FPS, (2.0, 6.0), seed) for seed in range(200)]
    edges = 60 + 15 * np.arange(9)
    for ids in drawn:
        assert np.all((edges[:-1] <= ids) & (ids < edges[1:]))
    assert len({tuple(ids) for ids in drawn}) == 200
    assert np.array_equal(policy.pick(THIRTY_FPS, (2.0, 6.0), 7), drawn[7])


def test_segments_of_a_span_shorter_than_its_frames_repeat_them() -> None:
    assert Segments(frames=4).pick(THIRTY_FPS, (1.0, 1.05), 0).tolist() == [30, 30, 30, 31]


def test_segments_follow_time_not_frame_numbers_where_the_rate_varies() -> None:
    times_s = np.array([0.0, 0.1, 0.2, 0.3, 2.0, 3.9])
    assert Segments(frames=4).pick(times_s, (0.0, 4.0), 0).tolist() == [3, 3, 4, 4]


def test_dense_window_is_drawn_in_the_span() -> None:
    policy = Dense(frames=4, stride=4)
    starts = {int(policy.pick(THIRTY_FPS, (1.0, 2.0), seed)[0]) for seed in range(500)}
    assert starts == set(range(30, 30 + 30 - 12))
    ids = policy.pick(THIRTY_FPS, (1.0, 2.0), 3)
    assert np.all(np.diff(ids) == 4)


def test_dense_window_is_centred_without_jitter() -> None:
    assert Dense(frames=4, stride=4, jitter=False).pick(THIRTY_FPS, (1.0, 2.0), 3).tolist() == [38, 42, 46, 50]


def test_dense_holds_the_last_frame_of_a_short_span() -> None:
    assert Dense(frames=4, stride=4).pick(THIRTY_FPS, (1.0, 1.2), 3).tolist() == [30, 34, 35, 35]


@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=60),
    st.floats(0, 30),
    st.floats(0.001, 30),
    st.integers(0, 2**64 - 1),
)
def test_every_policy_picks_ordered_frames_of_the_span(
    gaps_s: list[float], start_s: float, length_s: float, seed: int
) -> None:
    times_s = np.cumsum(gaps_s) - gaps_s[0]
    span_s = (min(start_s, float(times_s[-1])), min(start_s, float(times_s[-1])) + length_s)
    for policy in (Segments(frames=5, jitter=True), Segments(frames=5), Dense(frames=5, stride=3)):
        ids = policy.pick(times_s, span_s, seed)
        assert len(ids) == 5
        assert np.all(np.diff(ids) >= 0)
        assert 0 <= ids[0] <= ids[-1] < len(times_s)
        on_show = np.searchsorted(times_s, span_s[0], side="right") - 1
        assert ids[0] >= on_show
        assert times_s[ids[-1]] < span_s[1] or ids[-1] == on_show


@pytest.mark.parametrize("frames", [0, -1, MAX_FRAMES + 1])
def test_frame_counts_out_of_bounds_are_refused(frames: int) -> None:
    with pytest.raises(BadRequest, match=f"frames is {frames}"):
        Segments(frames=frames)


def test_strides_out_of_bounds_are_refused() -> None:
    with pytest.raises(BadRequest, match="stride is 0, wanted 1"):
        Dense(frames=4, stride=0)
