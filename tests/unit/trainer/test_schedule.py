"""The learning-rate curve at steps whose value can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from trainer_client.training.schedules import WarmupCosine, scale_rate

CURVE = WarmupCosine(peak=1.0, warmup_steps=10, total_steps=110, start=0.2, end=0.1)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.2),
        (5, 0.6),
        (9, 0.92),
        (10, 1.0),
        (35, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the way down
        (60, 0.55),  # half way
        (85, 0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2),
        (110, 0.1),
    ],
)
def test_values_at_known_steps(step: int, rate: float) -> None:
    assert CURVE.at(step) == pytest.approx(rate, rel=1e-12)


def test_rises_then_falls() -> None:
    rates = [CURVE.at(step) for step in range(111)]
    steps = [after - before for before, after in pairwise(rates)]
    assert all(step > 0 for step in steps[:10])
    assert all(step < 0 for step in steps[10:])


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert replace(CURVE, warmup_steps=0).at(0) == 1.0


def test_all_warm_up_ends_at_the_peak() -> None:
    curve = replace(CURVE, warmup_steps=110)
    assert curve.at(109) == pytest.approx(0.2 + 0.8 * 109 / 110)
    assert curve.at(110) == 1.0


@given(
    total=st.integers(1, 10_000),
    share=st.floats(0, 1),
    at=st.floats(0, 1),
    rates=st.tuples(*[st.floats(0, 10)] * 3),
)
def test_never_leaves_the_span_of_its_rates(
    total: int, share: float, at: float, rates: tuple[float, float, float]
) -> None:
    start, peak, end = rates
    curve = WarmupCosine(peak=peak, warmup_steps=int(share * total), total_steps=total, start=start, end=end)
    assert min(rates) - 1e-9 <= curve.at(int(at * total)) <= max(rates) + 1e-9


@pytest.mark.parametrize("step", [-1, 111])
def test_refuses_steps_off_the_curve(step: int) -> None:
    with pytest.raises(BadInput, match=f"step is {step}, wanted 0 to 110"):
        CURVE.at(step)


@pytest.mark.parametrize(
    "change",
    [
        {"warmup_steps": 111},
        {"warmup_steps": -1},
        {"total_steps": 0, "warmup_steps": 0},
        {"peak": -1.0},
        {"start": math.nan},
        {"end": math.inf},
    ],
)
def test_refuses_what_makes_no_curve(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"schedule: .* wanted"):
        replace(CURVE, **change)


def test_linear_scaling_of_the_published_rate() -> None:
    assert scale_rate(1.5e-4, batch_clips=2048) == pytest.approx(1.2e-3)
    assert scale_rate(3e-3, batch_clips=512, reference_clips=128) == pytest.approx(0.012)
    with pytest.raises(BadInput, match="batches of 0 and 256"):
        scale_rate(1e-3, batch_clips=0)


def test_a_rate_that_does_not_fall_is_said_with_its_option() -> None:
    flat = WarmupCosine(peak=1e-5, warmup_steps=2, total_steps=9, start=0.0, end=1e-5)
    assert {flat.at(step) for step in range(2, 10)} == {1e-5}
    said = flat.oddity
    assert said.startswith("the learning rate is flat at 1e-05 behind its warm-up: --end-lr, 1e-05 here")
    assert "\n" not in said
    assert replace(flat, peak=2e-5).oddity == ""
    assert replace(flat, warmup_steps=9).oddity == "", "it is all warm-up"
