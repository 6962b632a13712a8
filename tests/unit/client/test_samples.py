"""Windows over the videos of a manifest, and how a sample becomes a request."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.crops import ResizedCentreCrop
from framefeed.errors import BadInput, BadRequest
from framefeed.manifest import Manifest
from framefeed.quarantine import Quarantine, QuarantinedSpan
from framefeed.sampling import Segments
from tests.manifests import manifest_of
from trainer_client.clip_policy import ClipPolicy
from trainer_client.samples import Sample, VideoWindows


def manifest(**duration_s: float) -> Manifest:
    return manifest_of(duration_s, identity="")


def spans(windows: VideoWindows) -> list[tuple[str, float, float]]:
    return [(s.video, s.start_s, s.end_s) for s in windows]


def test_windows_cover_each_video_in_name_order() -> None:
    windows = VideoWindows(manifest(b=5.0, a=2.5), window_s=2.0, min_window_s=0.5)
    assert spans(windows) == [("a", 0, 2), ("a", 2, 2.5), ("b", 0, 2), ("b", 2, 4), ("b", 4, 5)]


def test_a_partial_window_below_the_minimum_goes() -> None:
    windows = VideoWindows(manifest(a=2.5, c=4.0), window_s=2.0, min_window_s=0.6)
    assert spans(windows) == [("a", 0, 2), ("c", 0, 2), ("c", 2, 4)]


def test_a_video_shorter_than_a_window_is_one_sample() -> None:
    windows = VideoWindows(manifest(a=0.1, b=2.0, c=0.3), window_s=2.0)
    assert spans(windows) == [("a", 0, 0.1), ("b", 0, 2), ("c", 0, 0.3)]


def test_half_a_window_is_kept_unless_told() -> None:
    assert len(VideoWindows(manifest(a=3.0), window_s=2.0)) == 2
    assert len(VideoWindows(manifest(a=2.9), window_s=2.0)) == 1


@given(st.floats(0.5, 100), st.floats(0.1, 10))
def test_windows_follow_each_other_and_end_with_the_video(duration_s: float, window_s: float) -> None:
    windows = list(VideoWindows(manifest(a=duration_s), window_s=window_s))
    assert windows[0].start_s == 0
    for before, after in pairwise(windows):
        assert before.end_s == pytest.approx(after.start_s)
        assert before.end_s - before.start_s == pytest.approx(window_s)
    assert windows[-1].end_s <= duration_s
    assert duration_s - windows[-1].end_s <= window_s / 2 + 1e-6


@pytest.mark.parametrize(
    ("window_s", "min_window_s", "says"),
    [(0.0, None, "window_s is 0"), (float("nan"), None, "window_s is nan"), (1.0, 2.0, "min_window_s is 2")],
)
def test_lengths_that_make_no_windows_are_refused(window_s: float, min_window_s: float | None, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        VideoWindows(manifest(a=5.0), window_s=window_s, min_window_s=min_window_s)


def test_windows_over_a_quarantined_span_are_left_out_and_counted() -> None:
    bad = [("a", 1.5, 2.5), ("b", 0.0, 9.0)]
    quarantine = Quarantine(
        QuarantinedSpan(video=video, start_s=start_s, end_s=end_s, reason="torn", found_by="verify")
        for video, start_s, end_s in bad
    )
    windows = VideoWindows(manifest(a=5.0, b=2.0, c=2.0), window_s=1.0, quarantine=quarantine)
    assert spans(windows) == [("a", 0, 1), ("a", 3, 4), ("a", 4, 5), ("c", 0, 1), ("c", 1, 2)]
    assert len(windows) == 5
    assert windows.quarantined_windows == 4


def test_an_index_past_the_end_is_an_error_that_names_it() -> None:
    with pytest.raises(IndexError, match="index is 3"):
        VideoWindows(manifest(a=3.0), window_s=1.0)[3]


def test_a_sample_of_no_length_is_refused() -> None:
    with pytest.raises(BadInput, match=r"span of v is \[2, 2\)"):
        Sample(video="v", start_s=2.0, end_s=2.0)


def test_a_policy_makes_requests_of_one_shape() -> None:
    policy = ClipPolicy(
        sampling=Segments(frames=4), crop=ResizedCentreCrop(), width_px=32, height_px=16, pixel_format="yuv420p"
    )
    request = policy.request(Sample(video="v", start_s=1.0, end_s=2.0), 7)
    assert (request.video, request.start_s, request.end_s, request.seed) == ("v", 1.0, 2.0, 7)
    assert policy.shape == request.shape == (4, 24, 32)
    assert policy.clip_bytes == 4 * 24 * 32


def test_a_policy_out_of_limits_is_refused_when_it_is_made() -> None:
    with pytest.raises(BadRequest, match="width_px is 3"):
        ClipPolicy(sampling=Segments(frames=4), crop=ResizedCentreCrop(), width_px=3)
