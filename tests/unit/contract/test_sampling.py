"""Sampling policies over frame times."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefeed.errors import BadRequest
from framefeed.sampling import (
    AtFrames,
    AtSeconds,
    Dense,
    DenseView,
    FrameWindow,
    Linspace,
    Resampled,
    Sampling,
    Segments,
)
from framefeed.spans import MAX_FRAMES, PADDING, Short

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


def test_linspace_takes_the_first_and_the_last() -> None:
    assert Linspace(frames=4).pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() == [30, 39, 49, 59]
    assert Linspace(frames=1).pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() == [30]
    assert Linspace(frames=4).pick(THIRTY_FPS, (1.0, 1.06), 0).tolist() == [30, 30, 30, 31]


def test_views_are_spread_from_the_start_of_the_span_to_its_end() -> None:
    views = [DenseView(frames=4, stride=4, view=k, views=3) for k in range(3)]
    assert [v.pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() for v in views] == [
        [30, 34, 38, 42],
        [38, 42, 46, 50],
        [47, 51, 55, 59],
    ]
    assert DenseView(frames=4, stride=4, view=0, views=1).pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() == [38, 42, 46, 50]


def test_a_frame_window_is_spread_evenly_and_drawn_in_the_span() -> None:
    centred = FrameWindow(frames=4, window_frames=10, jitter=False)
    assert centred.pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() == [40, 43, 46, 49]
    drawn = {tuple(FrameWindow(frames=4, window_frames=10).pick(THIRTY_FPS, (1.0, 2.0), s)) for s in range(400)}
    assert {ids[0] for ids in drawn} == set(range(30, 51))
    assert {ids[-1] - ids[0] for ids in drawn} == {9}


@pytest.mark.parametrize(
    ("fps", "ids"),
    [(10, [39, 42, 45, 48]), (30, [43, 44, 45, 46]), (60, [44, 44, 45, 45]), (7.5, [37, 41, 45, 49])],
)
def test_resampling_shows_what_is_on_show_at_the_rates_instants(fps: float, ids: list[int]) -> None:
    """4 frames at 10 fps last 0.4 s; centred in 1 s they begin at 1.3 s, that is at frame 39 of 30 fps."""
    assert Resampled(frames=4, fps=fps, jitter=False).pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() == ids


def test_resampling_a_source_of_another_rate_keeps_the_seconds() -> None:
    for source_fps in (23.976, 25, 29.97, 50, 59.94):
        times_s = np.arange(int(10 * source_fps)) / source_fps
        ids = Resampled(frames=16, fps=8, jitter=False).pick(times_s, (2.0, 6.0), 0)
        wanted_s = 3.0 + np.arange(16) / 8
        assert np.all(times_s[ids] <= wanted_s + 1e-5)
        assert np.all(times_s[ids] > wanted_s - 1 / source_fps)


def test_explicit_frames_and_seconds_count_from_the_start_of_the_span() -> None:
    assert AtSeconds(offsets_s=(0.0, 0.5, 0.25)).pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() == [30, 45, 37]
    assert AtFrames(offsets_frames=(0, 5, 5, 2)).pick(THIRTY_FPS, (1.0, 2.0), 0).tolist() == [30, 35, 35, 32]
    with pytest.raises(BadRequest, match=r"the span lasts 1 s and the clip wants its second 1\.5"):
        AtSeconds(offsets_s=(0.0, 1.5)).pick(THIRTY_FPS, (1.0, 2.0), 0)
    with pytest.raises(BadRequest, match="the span shows 30 frames and the clip wants frame 30 of it"):
        AtFrames(offsets_frames=(0, 30)).pick(THIRTY_FPS, (1.0, 2.0), 0)


SHORT_POLICIES = [
    lambda short: Dense(frames=6, stride=1, short=short),
    lambda short: DenseView(frames=6, stride=1, view=1, views=2, short=short),
    lambda short: FrameWindow(frames=6, window_frames=6, short=short),
    lambda short: Resampled(frames=6, fps=30, short=short),
    lambda short: AtFrames(offsets_frames=tuple(range(6)), short=short),
    lambda short: AtSeconds(offsets_s=tuple(i / 30 for i in range(6)), short=short),
]


@pytest.mark.parametrize("make", SHORT_POLICIES)
@pytest.mark.parametrize(
    ("short", "ids"),
    [
        ("hold", [30, 31, 32, 33, 33, 33]),
        ("loop", [30, 31, 32, 33, 30, 31]),
        ("pad", [30, 31, 32, 33, PADDING, PADDING]),
    ],
)
def test_a_span_of_four_frames_is_filled_to_six_as_asked(
    make: Callable[[Short], Sampling], short: Short, ids: list[int]
) -> None:
    assert make(short).pick(THIRTY_FPS, (1.0, 1.0 + 4 / 30), 5).tolist() == ids


@pytest.mark.parametrize("make", SHORT_POLICIES)
def test_a_short_span_is_refused_where_that_is_asked(make: Callable[[Short], Sampling]) -> None:
    with pytest.raises(BadRequest, match="short='hold', 'loop' or 'pad'"):
        make("refuse").pick(THIRTY_FPS, (1.0, 1.0 + 4 / 30), 5)


POLICIES = [
    Segments(frames=5, jitter=True),
    Segments(frames=5),
    Linspace(frames=5),
    *(Dense(frames=5, stride=3, short=short) for short in ("hold", "loop", "pad")),
    *(DenseView(frames=5, stride=2, view=2, views=4, short=short) for short in ("hold", "loop", "pad")),
    *(FrameWindow(frames=5, window_frames=13, short=short) for short in ("hold", "loop", "pad")),
    *(Resampled(frames=5, fps=4, short=short) for short in ("hold", "loop", "pad")),
    AtSeconds(offsets_s=(0.0, 0.01, 0.5, 0.6, 9.0), short="hold"),
    AtFrames(offsets_frames=(0, 1, 1, 5, 100), short="loop"),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=60),
    st.floats(0, 30),
    st.floats(0.001, 30),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=40)
def test_every_policy_picks_frames_of_the_span(
    policy: Sampling, gaps_s: list[float], start_s: float, length_s: float, seed: int
) -> None:
    times_s = np.cumsum(gaps_s) - gaps_s[0]
    span_s = (min(start_s, float(times_s[-1])), min(start_s, float(times_s[-1])) + length_s)
    ids = policy.pick(times_s, span_s, seed)
    assert np.array_equal(policy.pick(times_s, span_s, seed), ids), "a function of the seed"
    assert ids.dtype == np.int64
    assert len(ids) == policy.frames == 5
    short = getattr(policy, "short", "hold")
    kept = ids[ids != PADDING]
    assert short == "pad" or len(kept) == 5
    assert np.array_equal(ids[: len(kept)], kept), "padding comes last"
    assert short == "loop" or np.all(np.diff(kept) >= 0)
    on_show = np.searchsorted(times_s, span_s[0], side="right") - 1
    assert kept.min() >= on_show
    assert times_s[kept.max()] < span_s[1] or kept.max() == on_show


@pytest.mark.parametrize("frames", [0, -1, MAX_FRAMES + 1])
def test_frame_counts_out_of_bounds_are_refused(frames: int) -> None:
    with pytest.raises(BadRequest, match=f"frames is {frames}"):
        Segments(frames=frames)


def test_strides_out_of_bounds_are_refused() -> None:
    with pytest.raises(BadRequest, match="stride is 0, wanted 1"):
        Dense(frames=4, stride=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(frames=4, stride=1, short="mirror"), "short is 'mirror', wanted one of hold, loop, pad, refuse"),  # type: ignore[arg-type]
        (lambda: DenseView(frames=4, stride=1, view=3, views=3), "view is 3 of 3, wanted 0 to"),
        (lambda: FrameWindow(frames=4, window_frames=0), "window_frames is 0, wanted 1 to"),
        (lambda: Resampled(frames=4, fps=0.0), "fps is 0, wanted 0.001 to 1000"),
        (lambda: Resampled(frames=4, fps=float("nan")), "fps is nan"),
        (lambda: AtSeconds(offsets_s=()), "frames is 0"),
        (lambda: AtSeconds(offsets_s=(-1.0,)), "offsets_s has -1, wanted"),
        (lambda: AtSeconds(offsets_s=(float("inf"),)), "offsets_s has inf"),
        (lambda: AtFrames(offsets_frames=(1, -1)), "offsets_frames has -1, wanted 0 to"),
        (lambda: AtFrames(offsets_frames=(0,) * 513), "frames is 513"),
    ],
)
def test_policies_out_of_bounds_are_refused(make: Callable[[], Sampling], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        make()
