"""The paper's equation 3 with its own numbers, and what advice follows from costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.chunking.advise import (
    USUAL_LENGTHS_S,
    Load,
    ProfileCost,
    advise,
    cores,
    longest_chunk_s,
    read_bytes_per_s,
    usual_length_s,
)
from framefeed.errors import BadInput

PAPER = Load(batch_clips=1024, step_s=4, storage_bytes_per_s=500e6)
ARCHIVE = ProfileCost(profile="archive", bits_per_s=1e6, clip_bytes=200e3, clip_ms=20)
TRAIN = ProfileCost(profile="train", bits_per_s=1.3e6, clip_bytes=250e3, clip_ms=4)
INTRA = ProfileCost(profile="intra", bits_per_s=4e6, clip_bytes=60e3, clip_ms=3.8)


def test_the_paper_s_numbers_give_16_and_hence_15_seconds() -> None:
    limit_s = longest_chunk_s(PAPER, bits_per_s=1e6)
    assert limit_s == pytest.approx(15.625)
    assert round(limit_s) == 16
    assert usual_length_s(limit_s) == 15
    advice = advise([ARCHIVE], PAPER)
    assert advice.chunk_s == 15
    assert "1024 clips × 1.00 Mb/s × T ≤ 500 MB/s × 4 s gives T ≤ 15.6 s" in advice.why


@given(st.integers(1, 5000), st.floats(0.05, 30), st.floats(1e6, 1e10), st.floats(1e5, 1e8))
def test_the_longest_length_just_keeps_the_equation(batch: int, step_s: float, storage: float, rate: float) -> None:
    load = Load(batch_clips=batch, step_s=step_s, storage_bytes_per_s=storage)
    limit_s = longest_chunk_s(load, bits_per_s=rate)
    assert batch * rate / 8 * limit_s == pytest.approx(storage * step_s)
    assert usual_length_s(limit_s) in USUAL_LENGTHS_S
    assert usual_length_s(limit_s) <= max(limit_s, 1)


def test_twice_the_bytes_must_at_least_halve_the_decoding() -> None:
    assert (
        advise([ARCHIVE, TRAIN, replace(TRAIN, profile="x", bits_per_s=2.6e6, clip_ms=2.1)], PAPER).profile == "train"
    )
    assert advise([ARCHIVE, TRAIN, replace(TRAIN, profile="x", bits_per_s=2.6e6, clip_ms=1.9)], PAPER).profile == "x"
    assert advise([ARCHIVE, TRAIN, INTRA], PAPER).profile == "train"


def test_a_profile_that_the_storage_does_not_afford_is_not_proposed() -> None:
    slow = replace(PAPER, storage_bytes_per_s=55e6)
    assert read_bytes_per_s(slow, TRAIN) > 55e6 > read_bytes_per_s(slow, ARCHIVE)
    assert advise([ARCHIVE, TRAIN], slow).profile == "archive"


def test_storage_too_slow_for_all_says_how_long_steps_become() -> None:
    advice = advise([ARCHIVE, TRAIN, INTRA], replace(PAPER, storage_bytes_per_s=10e6))
    assert advice.profile == "intra"
    assert "No profile fits this storage; with this one steps take at least 6.1 s" in advice.why


def test_fast_storage_allows_longer_chunks_and_slow_storage_needs_none_shorter_than_15_s() -> None:
    assert advise([TRAIN], replace(PAPER, storage_bytes_per_s=3e9)).chunk_s == 60
    advice = advise([TRAIN], replace(PAPER, storage_bytes_per_s=80e6))
    assert advice.chunk_s == 15
    assert "would need 1 s or less" in advice.why
    assert "7% of the clips of 1 s cross" in advice.why


def test_cores_are_clips_times_milliseconds_over_the_step() -> None:
    assert cores(PAPER, TRAIN) == pytest.approx(1.024)


@pytest.mark.parametrize("name", ["batch_clips", "step_s", "storage_bytes_per_s", "clip_s"])
def test_a_load_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} is 0"):
        replace(PAPER, **{name: 0})
