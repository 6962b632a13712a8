"""Deadlines follow what answers took, within bounds, and only once enough is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from trainer_client.fleet.timeout_estimator import TimeoutEstimator, TimeoutLimits


def timeouts(**limits: float) -> TimeoutEstimator:
    return TimeoutEstimator(TimeoutLimits(**{"attempt_s": 10.0, "attempt_min_s": 0.1, **limits}))


def test_until_enough_is_seen_the_option_stands() -> None:
    target = timeouts()
    for _ in range(99):
        target.took(0.2)
    assert (target.deadline_s, target.p95_s) == (10.0, None)
    target.took(0.2)
    assert target.deadline_s == pytest.approx(0.6)
    assert target.p95_s == 0.2


def test_quantiles_are_those_of_recent_answers() -> None:
    target = timeouts()
    for milliseconds in range(1, 1001):
        target.took(milliseconds / 1000)
    assert target.p95_s == pytest.approx(0.951, abs=0.035)
    assert target.p99_s == pytest.approx(0.991, abs=0.035)
    for _ in range(1032):
        target.took(0.5)
    assert (target.p95_s, target.p99_s) == (0.5, 0.5), "the old ones are forgotten"


def test_a_fleet_that_grows_slower_is_given_more_time() -> None:
    target = timeouts()
    for _ in range(100):
        target.took(0.1)
    deadlines_s = []
    for _ in range(400):
        deadlines_s.append(target.deadline_s)
        target.took(target.deadline_s)  # every answer takes longer than it is given
    assert deadlines_s[0] == pytest.approx(0.3)
    assert deadlines_s[-1] == 10.0


@given(st.lists(st.floats(0, 1000), min_size=100, max_size=300), st.floats(0.01, 20), st.floats(0.01, 20))
def test_the_deadline_keeps_its_bounds(durations_s: list[float], least_s: float, most_s: float) -> None:
    target = timeouts(attempt_min_s=least_s, attempt_s=most_s)
    for duration_s in durations_s:
        target.took(duration_s)
        assert min(least_s, most_s) <= target.deadline_s <= most_s


@pytest.mark.parametrize("name", ["attempt_s", "attempt_min_s"])
def test_limits_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} is 0"):
        timeouts(**{name: 0.0})
