"""Draws are pure, equal everywhere, and spread evenly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.draws import (
    CROP,
    ORDER,
    _mix,
    clip_seed,
    clip_seeds,
    draw_below,
    draw_log_uniform,
    draw_u64,
    draw_uniform,
    draws_at,
    keys_u64,
    permutation,
)

seeds = st.integers(0, 2**64 - 1)


def test_the_hash_is_splitmix64() -> None:
    """Published outputs of SplitMix64 seeded with 1234567: its hash of the state after each golden step."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [(1234567 + step * 0x9E3779B97F4A7C15) % 2**64 for step in (1, 2, 3)]
    assert [_mix(state) for state in states] == published


def test_pinned_values() -> None:
    """These numbers are part of the contract: a change here changes every user's data."""
    assert [draw_u64(1, stream=1, counter=i) for i in range(2)] == [12793040940332582595, 17925934194126948328]
    assert permutation(7, stream=ORDER, n=8).tolist() == [3, 7, 1, 6, 4, 0, 5, 2]
    assert clip_seed(0, epoch=3, index=41307) == 11618788398902034140
    assert draw_log_uniform(5, stream=CROP, low=3 / 4, high=4 / 3) == 1.145912907354346


@given(st.lists(st.tuples(seeds, st.integers(0, 2**63 - 1)), max_size=50), st.integers(1, 7))
def test_array_draws_equal_single_draws(pairs: list[tuple[int, int]], stream: int) -> None:
    array = np.array(pairs, np.uint64).reshape(-1, 2)
    drawn = draws_at(keys_u64(array[:, 0], stream=stream), array[:, 1])
    assert drawn.dtype == np.uint64
    assert drawn.tolist() == [draw_u64(seed, stream=stream, counter=counter) for seed, counter in pairs]


@given(seeds, st.integers(0, 50))
def test_array_draws_spread_one_key_over_all_counters(seed: int, n: int) -> None:
    drawn = draws_at(keys_u64(np.array([seed], np.uint64), stream=3), np.arange(n, dtype=np.uint64))
    assert drawn.tolist() == [draw_u64(seed, stream=3, counter=i) for i in range(n)]


@given(seeds, st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**63 - 1)), max_size=50))
def test_array_clip_seeds_equal_single_ones(run_seed: int, pairs: list[tuple[int, int]]) -> None:
    array = np.array(pairs, np.int64).reshape(-1, 2)
    drawn = clip_seeds(run_seed, epochs=array[:, 0], indices=array[:, 1])
    assert drawn.dtype == np.uint64
    assert drawn.tolist() == [clip_seed(run_seed, epoch=epoch, index=index) for epoch, index in pairs]


@given(seeds, st.integers(0, 300))
def test_permutation_is_one(seed: int, n: int) -> None:
    assert sorted(permutation(seed, stream=ORDER, n=n).tolist()) == list(range(n))


@given(seeds, st.integers(1, 1000))
def test_bounds(seed: int, n: int) -> None:
    assert 0 <= draw_below(seed, n, stream=2) < n
    assert -3 <= draw_uniform(seed, stream=2, low=-3, high=5) < 5
    assert 0.75 <= draw_log_uniform(seed, stream=2, low=0.75, high=4 / 3) <= 4 / 3


@pytest.mark.parametrize("draw", ["counter", "seed", "stream"])
def test_draws_are_uniform_along_each_argument(draw: str) -> None:
    arguments = [{"seed": 9, "stream": 1, "counter": 0} | {draw: i} for i in range(20_000)]
    values = np.array([draw_uniform(a["seed"], stream=a["stream"], counter=a["counter"]) for a in arguments])
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert chi_square < 50, chi_square  # 19 degrees of freedom: beyond the 99.99th percentile
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.03


def test_log_uniform_has_a_uniform_logarithm() -> None:
    values = np.log([draw_log_uniform(i, stream=CROP, low=0.5, high=2.0) for i in range(4000)])
    assert abs(values.mean()) < 0.03
    assert abs(values.std() - np.log(4) / np.sqrt(12)) < 0.02
