"""Windows that slide over videos: every instant in one, in order, none twice, quarantined ones left out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from framefeed.quarantine import Quarantine, QuarantinedSpan
from tests.manifests import manifest_of
from trainer_client.extract.sliding_windows import SlidingWindows


def spans(windows: SlidingWindows) -> list[tuple[str, float, float]]:
    return [(s.video, s.start_s, s.end_s) for s in windows]


def test_they_overlap_by_window_less_stride_and_end_with_the_first_that_reaches_the_end() -> None:
    windows = SlidingWindows(manifest_of({"b": 2.5, "a": 0.4}, identity="x"), window_s=1.0, stride_s=0.5)
    assert spans(windows) == [
        ("a", 0.0, 0.4),
        ("b", 0.0, 1.0),
        ("b", 0.5, 1.5),
        ("b", 1.0, 2.0),
        ("b", 1.5, 2.5),
    ]
    assert windows.identity == "x"


def test_a_stride_beyond_the_window_leaves_gaps_and_begins_no_window_past_the_end() -> None:
    windows = SlidingWindows(manifest_of({"a": 5.0, "b": 6.5}, identity=""), window_s=1.0, stride_s=3.0)
    assert spans(windows) == [("a", 0.0, 1.0), ("a", 3.0, 4.0), ("b", 0.0, 1.0), ("b", 3.0, 4.0), ("b", 6.0, 6.5)]


@given(duration_s=st.floats(0.05, 50), window_s=st.floats(0.1, 20), overlap=st.floats(0.05, 1.0))
def test_every_instant_is_in_a_window(duration_s: float, window_s: float, overlap: float) -> None:
    stride_s = window_s * overlap
    found = spans(SlidingWindows(manifest_of({"a": duration_s}, identity=""), window_s=window_s, stride_s=stride_s))
    reached_s = 0.0
    for number, (_, start_s, end_s) in enumerate(found):
        assert start_s == number * stride_s <= reached_s + 1e-9
        assert reached_s < duration_s - 1e-6 or not number, "no window after the one that reaches the end"
        reached_s = max(reached_s, end_s)
    assert math.isclose(reached_s, duration_s, abs_tol=2e-6)


def test_quarantined_spans_are_in_no_window() -> None:
    bad = QuarantinedSpan(video="b", start_s=1.2, end_s=1.3, reason="corrupt", found_by="verify")
    videos = manifest_of({"a": 1.0, "b": 3.0, "c": 1.0}, identity="")
    windows = SlidingWindows(videos, window_s=1.0, stride_s=0.5, quarantine=Quarantine([bad]))
    assert [(video, start_s) for video, start_s, _ in spans(windows)] == [
        *(("a", 0.0), ("b", 0.0), ("b", 1.5), ("b", 2.0), ("c", 0.0))
    ]
    assert windows.quarantined_windows == 2


@pytest.mark.parametrize(("window_s", "stride_s", "name"), [(1e-7, 1.0, "window_s"), (1.0, 1e-7, "stride_s")])
def test_windows_closer_than_frames_are_refused(window_s: float, stride_s: float, name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} is 1e-07, wanted at least 0.001 seconds"):
        SlidingWindows(manifest_of({"a": 1.0}, identity=""), window_s=window_s, stride_s=stride_s)


@pytest.mark.parametrize(("window_s", "stride_s", "name"), [(0.0, 1.0, "window_s"), (1.0, -1.0, "stride_s")])
def test_a_length_that_is_none_is_refused(window_s: float, stride_s: float, name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} is .*, wanted a positive number"):
        SlidingWindows(manifest_of({"a": 1.0}, identity=""), window_s=window_s, stride_s=stride_s)
