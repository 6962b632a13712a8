"""The order of an epoch: a permutation at every length, the same however it is reckoned, and like one drawn by lot."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.draws import ORDER, draw_u64
from trainer_client.feed.shuffle import rounds, shuffled, sides

Array = npt.NDArray[np.int64]

MANY = 100_000_000
POWERS = [2**k + d for k in (2, 3, 8, 16, 32, 40) for d in (-1, 0, 1)]
LENGTHS = [1, 2, 6, 100, 1000, *POWERS, MANY, 2**63 - 1]
seeds = st.integers(0, 2**64 - 1)


def orders(n: int, run_seeds: int, *, first: int = 0) -> Array:
    """Whole orders of n, one a row, of so many seeds."""
    of_rows = np.arange(first, first + run_seeds, dtype=np.uint64)
    found = shuffled(np.tile(np.arange(n), run_seeds), seeds=np.repeat(of_rows, n), n=n)
    return found.reshape(run_seeds, n)


def one_by_one(place: int, *, seed: int, n: int) -> int:
    """The plain version: the definition in Python's integers, one place at a time."""
    a, b = sides(n)
    while True:
        left, right = place % a, place // a
        for at in range(rounds(n)):
            half = right if at % 2 == 0 else left
            drawn = draw_u64(seed, stream=ORDER, counter=at * 2**40 + half) // 2
            if at % 2 == 0:
                left = (left + drawn) % a
            else:
                right = (right + drawn) % b
        place = left + a * right
        if place < n:
            return place


def undone(index: int, *, seed: int, n: int) -> int:
    """The place at which an index stands: the rounds from the last to the first, subtracting."""
    a, b = sides(n)
    while True:
        left, right = index % a, index // a
        for at in reversed(range(rounds(n))):
            half = right if at % 2 == 0 else left
            drawn = draw_u64(seed, stream=ORDER, counter=at * 2**40 + half) // 2
            if at % 2 == 0:
                left = (left - drawn) % a
            else:
                right = (right - drawn) % b
        index = left + a * right
        if index < n:
            return index


@given(st.sampled_from(LENGTHS) | st.integers(1, 2**63 - 1), st.data())
def test_arrays_and_single_places_agree_and_each_place_is_found_again(n: int, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), seeds), max_size=8))
    places = np.array([place for place, _ in pairs], np.int64)
    found = shuffled(places, seeds=np.array([seed for _, seed in pairs], np.uint64), n=n)
    assert found.dtype == np.int64
    assert found.tolist() == [one_by_one(place, seed=seed, n=n) for place, seed in pairs]
    undo = zip(found.tolist(), (seed for _, seed in pairs), strict=True)
    assert [undone(index, seed=seed, n=n) for index, seed in undo] == places.tolist()


def test_pinned_values() -> None:
    """These numbers are part of the run's state: a change here needs another STATE_VERSION."""
    assert orders(8, 1, first=7).tolist() == [[1, 3, 6, 0, 7, 5, 2, 4]]
    several = [
        shuffled(np.array([0, n // 2, n - 1]), seeds=np.array([0, 1, 2**64 - 1], np.uint64), n=n).tolist()
        for n in (1, 1000, MANY, 2**40, 2**63 - 1)
    ]
    assert several == [
        [0, 0, 0],
        [804, 427, 812],
        [35361797, 952332, 50345638],
        [390833390785, 983836125255, 555392436507],
        [1324340833321510274, 3309624746997385519, 5629350730249802959],
    ]


@pytest.mark.parametrize("n", [*range(1, 70), 127, 128, 129, 1000, 4095, 4096, 4097, 100_003])
def test_every_sample_is_there_once(n: int) -> None:
    rows = orders(n, 20 if n < 5000 else 1)
    assert (np.sort(rows, axis=1) == np.arange(n)).all()


@pytest.mark.parametrize("n", LENGTHS)
def test_the_domain_is_no_more_than_a_root_longer(n: int) -> None:
    a, b = sides(n)
    assert n <= a * b < n + a <= n + math.isqrt(n) + 3
    assert a % 2 == 0
    assert max(a, b) < 2**40, "the halves and the number of a round share a counter"


def assert_chi_square(statistic: float, freedom: int) -> None:
    """Within five deviations of its mean: about one in a million by chance, and the seeds are fixed."""
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom), f"chi-square {statistic:.0f} of {freedom}"


@pytest.mark.parametrize(("n", "run_seeds"), [(2, 200_000), (3, 200_000), (4, 200_000), (5, 100_000), (6, 100_000)])
def test_all_orders_of_few_samples_are_equally_likely(n: int, run_seeds: int) -> None:
    codes = orders(n, run_seeds) @ n ** np.arange(n)
    _, counts = np.unique(codes, return_counts=True)
    every = math.factorial(n)
    assert len(counts) == every
    expected = run_seeds / every
    assert_chi_square(float(((counts - expected) ** 2).sum() / expected), every - 1)


@pytest.mark.parametrize(("n", "run_seeds"), [(2, 20_000), (7, 20_000), (100, 4000), (1000, 400)])
def test_each_sample_comes_equally_often_at_each_place(n: int, run_seeds: int) -> None:
    """Counts of a permutation have (n-1)² freedoms, each n / (n-1) too wide: rows and columns have fixed sums."""
    places = np.tile(np.arange(n), run_seeds)
    counts = np.bincount(places * n + orders(n, run_seeds).ravel(), minlength=n * n)
    expected = run_seeds / n
    assert_chi_square(float(((counts - expected) ** 2).sum() / expected) * (n - 1) / n, (n - 1) ** 2)


@pytest.mark.parametrize("n", [12, 23])
def test_each_pair_of_samples_comes_equally_often_at_a_pair_of_places(n: int) -> None:
    """Neighbours, the ends, and places that share a half of the network."""
    run_seeds, (a, _) = 60_000, sides(n)
    rows = orders(n, run_seeds)
    for one, other in ((0, 1), (0, n - 1), (0, a), (a - 1, a), (1, 2 * a + 1)):
        counts = np.bincount(rows[:, one] * n + rows[:, other], minlength=n * n)
        assert counts.reshape(n, n).trace() == 0
        expected = run_seeds / (n * (n - 1))
        spread = ((counts - expected) ** 2).sum() - n * expected**2  # without the pairs that cannot be
        assert_chi_square(float(spread / expected), n * (n - 1) - 1)


@pytest.mark.parametrize("n", [MANY, MANY + 1, 2**40])
def test_a_stretch_of_a_long_order_is_spread_and_does_not_follow_itself(n: int) -> None:
    few, bins, (a, _) = 200_000, 100, sides(n)
    for first in (0, n // 2, n - few):
        found = shuffled(np.arange(first, first + few), seeds=np.full(few, 11, np.uint64), n=n)
        assert len(np.unique(found)) == few
        for values, below in ((found, n), (found % a, a), (np.diff(found) % n, n)):
            counts = np.bincount(values * bins // below, minlength=bins)
            expected = len(values) / bins
            assert_chi_square(float(((counts - expected) ** 2).sum() / expected), bins - 1)
        for lag in (1, 2, min(a, 12_345)):
            assert abs(np.corrcoef(found[lag:], found[:-lag])[0, 1]) < 5 / math.sqrt(few)


@pytest.mark.parametrize("n", [1000, MANY])
def test_orders_of_neighbouring_seeds_have_nothing_in_common(n: int) -> None:
    few = min(n, 100_000)
    rows = [shuffled(np.arange(few), seeds=np.full(few, seed, np.uint64), n=n) for seed in (0, 1, 2, 2**63)]
    for at, one in enumerate(rows):
        for other in rows[:at]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(few)
            assert (one == other).sum() <= 8, "one by chance, of a thousand or all"


def test_samples_move_as_far_as_by_lot() -> None:
    """Means of a random permutation: displacement (n²-1) / 3n, one fixed point, (n-1) / 2 ascents, H(n) cycles."""
    n, run_seeds = 500, 1000
    rows, own = orders(n, run_seeds), np.arange(n)
    displacement = np.abs(rows - own).mean(axis=1)
    assert abs(displacement.mean() - (n * n - 1) / (3 * n)) < 5 * displacement.std() / math.sqrt(run_seeds)
    fixed = (rows == own).sum(axis=1)
    assert abs(fixed.mean() - 1) < 5 / math.sqrt(run_seeds)
    assert abs(fixed.var() - 1) < 0.3
    ascents = (np.diff(rows, axis=1) > 0).sum(axis=1)
    assert abs(ascents.mean() - (n - 1) / 2) < 5 * math.sqrt((n + 1) / 12 / run_seeds)
    assert abs(ascents.var() / ((n + 1) / 12) - 1) < 0.25
    harmonic = sum(1 / k for k in range(1, n + 1))
    cycles = np.array([_cycles(row.tolist()) for row in rows[:400]])
    assert abs(cycles.mean() - harmonic) < 5 * math.sqrt(harmonic / 400)


def test_half_of_the_orders_are_odd() -> None:
    """n less its cycles is a permutation's parity; a network of two odd sides would only have even ones (n = 9)."""
    for n in (9, 12, 15, 25):
        odd = sum((n - _cycles(row.tolist())) % 2 for row in orders(n, 2000))
        assert abs(odd - 1000) < 5 * math.sqrt(500), n


def _cycles(row: list[int]) -> int:
    seen = [False] * len(row)
    count = 0
    for start in range(len(row)):
        count += not seen[start]
        at = start
        while not seen[at]:
            seen[at] = True
            at = row[at]
    return count
