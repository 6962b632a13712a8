"""A seeded permutation of 0…n-1 computed place by place, in memory that n does not change; it knows no epochs or ranks.

A generalised Feistel network (Black, Rogaway: "Ciphers with Arbitrary Finite Domains", 2002, §5) with cycle walking
(§4): a number below a·b is taken as left + a·right; odd rounds add F(right) to left, modulo a, even ones F(left) to
right, modulo b; and a result that is not below n goes through the network again. Subtracting undoes a round, so this
is a permutation whatever F is: here a draw from the seed. Only integers are used, so it is equal on every machine.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from framefeed.draws import ORDER, U64, draws_at, keys_u64

_ROUND_BITS = 40  # a draw's counter is the round above this bit and the half that F is of below it: it is below 2**32


def sides(n: int) -> tuple[int, int]:
    """(a, b) of the least domain for n places: n <= a·b < n + a, a within 2 of the root of n.

    With an even a some rounds are odd permutations; of an odd a and an odd b all are even, and so half of all orders.
    """
    a = math.isqrt(n - 1) + 1
    a += a % 2
    return a, -(-n // a)


def rounds(n: int) -> int:
    """How often halves are mixed. Of few places, until all whole orders are equally likely: of eight to 1 %, the root
    of k·Σp² - 1 over all k orders, for a random F. Of many, four times the 3 that still show in a stretch of an order.
    """
    return 24 if n <= 4096 else 12


def shuffled(places: npt.NDArray[np.int64], *, seeds: U64, n: int) -> npt.NDArray[np.int64]:
    """What stands at each place, 0 to n-1, in the order of its seed: int64 (B,) of two (B,), n from 1 to 2**63-1."""
    keys, found = keys_u64(seeds, stream=ORDER), places.astype(np.uint64)
    outside = np.arange(len(found))
    while len(outside):  # passes are at most a·b - n + 1: no walk meets a number twice
        found[outside] = _network(found[outside], keys[outside], n)
        outside = outside[found[outside] >= n]
    return found.astype(np.int64)


def _network(numbers: U64, keys: U64, n: int) -> U64:
    a, b = (np.uint64(side) for side in sides(n))
    left, right = numbers % a, numbers // a
    for at in range(rounds(n)):
        if at % 2 == 0:
            left = (left + _half_draws(keys, at, right)) % a
        else:
            right = (right + _half_draws(keys, at, left)) % b
    return left + a * right


def _half_draws(keys: U64, at: int, halves: U64) -> U64:
    """F of a round, below 2**63, so that its sum with a half stays below 2**64."""
    return draws_at(keys, halves + np.uint64(at << _ROUND_BITS)) >> np.uint64(1)
