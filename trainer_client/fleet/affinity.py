"""Affinity: which servers should have which part of which video, so that its bytes and index are in few caches.

Consistent hashing (Karger et al. 1997): a server that joins or leaves moves only its own share. It knows names and keys
only; who is up, and how loaded, is the fleet's to say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from framefeed.request import ClipRequest

_POINTS = 64  # of each server on the circle: shares of the keys differ by some 1/8


def part_key(request: ClipRequest, *, part_s: float) -> int:
    """The 64-bit key of the part of a video, `part_s` seconds long, in which the clip's span begins."""
    return _hash(f"{request.video}\0{int(request.start_s // part_s)}")


class Ring:
    """Names on a circle of 64-bit hashes, many points each; the same everywhere, whatever the order of the names."""

    def __init__(self, names: Iterable[str]) -> None:
        points = sorted((_hash(f"{name}\0{point}"), name) for name in names for point in range(_POINTS))
        self._hashes = [point for point, _ in points]
        self._names = [name for _, name in points]
        self._count = len(set(self._names))

    def walk(self, key: int) -> Iterator[str]:
        """Each name once: the key's home first, then who takes over from it, and so on around the circle."""
        seen: set[str] = set()
        first = bisect_right(self._hashes, key)
        for i in range(len(self._names)):
            name = self._names[(first + i) % len(self._names)]
            if name not in seen:
                seen.add(name)
                yield name
                if len(seen) == self._count:
                    return


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
