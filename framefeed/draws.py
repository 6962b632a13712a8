"""Seeded draws: pure functions of (seed, stream, counter), equal on every machine and NumPy version.

SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014) used as a hash of a counter,
so no draw depends on how many were made before it, or by whom. It does not know what the draws are used for.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_DECIMAL = Context(prec=25)
_ROUNDS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)

# Streams keep draws for different purposes apart under one seed.
ORDER, CLIP, SAMPLING, CROP, FLIP, TUBES, SPARE, SHIFT, TEXT = range(1, 10)


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _key(seed: int, stream: int) -> int:
    return _mix((_mix((seed + _GOLDEN) & _MASK) + stream * _GOLDEN) & _MASK)


def draw_u64(seed: int, *, stream: int, counter: int = 0) -> int:
    """One uniform integer in [0, 2**64)."""
    return _mix((_key(seed, stream) + (counter + 1) * _GOLDEN) & _MASK)


def draw_uniform(seed: int, *, stream: int, counter: int = 0, low: float = 0.0, high: float = 1.0) -> float:
    """One uniform float in [low, high), of 53 random bits."""
    return low + (high - low) * ((draw_u64(seed, stream=stream, counter=counter) >> 11) * 2.0**-53)


def draw_below(seed: int, n: int, *, stream: int, counter: int = 0) -> int:
    """One uniform integer in [0, n); the bias is below n / 2**64."""
    return (draw_u64(seed, stream=stream, counter=counter) * n) >> 64


def draw_log_uniform(seed: int, *, stream: int, counter: int = 0, low: float, high: float) -> float:
    """One float in [low, high) whose logarithm is uniform.

    The exponential is decimal's, which is correctly rounded everywhere; the C library's differs between machines.
    """
    u = Decimal(draw_uniform(seed, stream=stream, counter=counter))
    low_ln, width_ln = _logarithms(low, high)
    return float(_DECIMAL.exp(_DECIMAL.fma(u, width_ln, low_ln)))


@lru_cache(maxsize=256)
def _logarithms(low: float, high: float) -> tuple[Decimal, Decimal]:
    low_ln = _DECIMAL.ln(Decimal(low))
    return low_ln, _DECIMAL.subtract(_DECIMAL.ln(Decimal(high)), low_ln)


def keys_u64(seeds: U64, *, stream: int) -> U64:
    """What draws_at makes draws of: a key for each seed, uint64 of the same shape (at least one axis)."""
    return _mix_array(_mix_array(seeds + np.uint64(_GOLDEN)) + np.uint64(stream * _GOLDEN & _MASK))


def draws_at(keys: U64, counters: U64) -> U64:
    """draw_u64 of each key's seed and stream and each counter: uint64, of the shape to which the two broadcast."""
    return _mix_array(keys + (counters + np.uint64(1)) * np.uint64(_GOLDEN))


def _mix_array(z: U64) -> U64:
    for shift, factor in _ROUNDS:
        z = (z ^ (z >> shift)) * factor
    return z ^ (z >> _LAST_SHIFT)


def permutation(seed: int, *, stream: int, n: int) -> npt.NDArray[np.int64]:
    """A uniform permutation of 0…n-1 as an int64 array (n,): the order of n random keys, which are sorted."""
    keys = draws_at(keys_u64(np.array([seed], np.uint64), stream=stream), np.arange(n, dtype=np.uint64))
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def clip_seed(run_seed: int, *, epoch: int, index: int) -> int:
    """The 64-bit seed of one sample in one epoch: all that is random about a clip follows from it."""
    return draw_u64(draw_u64(run_seed, stream=CLIP, counter=epoch), stream=CLIP, counter=index)


def clip_seeds(run_seed: int, *, epochs: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> U64:
    """clip_seed of each pair of an epoch and an index: int64 (B,) each, uint64 (B,)."""
    of_epochs = draws_at(keys_u64(np.array([run_seed], np.uint64), stream=CLIP), epochs.astype(np.uint64))
    return draws_at(keys_u64(of_epochs, stream=CLIP), indices.astype(np.uint64))
