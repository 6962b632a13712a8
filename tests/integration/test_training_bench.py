"""What feeding costs: the training thread's time for a batch of 256, and a fed run's steps beside a resident one's."""

from __future__ import annotations

import pytest

from framefeed_bench.gpu_fed import fed_against_resident
from framefeed_bench.gpu_thread import LIMIT_MS, served_thread_ms

pytestmark = [pytest.mark.calm, pytest.mark.timeout(600)]


def test_a_batch_of_256_takes_the_training_thread_two_milliseconds_at_most() -> None:
    """With all augmentations, mixup, masks and tokens, from a real server's clips on."""
    assert served_thread_ms(256, steps=30)["taken"] <= LIMIT_MS


def test_a_fed_run_is_as_fast_as_one_whose_batches_are_there() -> None:
    found = fed_against_resident(steps=20)
    assert found["fed_over_resident"] == pytest.approx(1.0, abs=0.05), found
    assert isinstance(share := found["wait_share"], float)
    assert share <= 0.01, found
