"""How many tasks a worker should have beyond those that it decodes, so that it never waits for storage. Pure.

As long as storage answers at once it is one, and all others wait in the front, where they can still be reordered,
joined and given to another worker; the slower storage is, the more are read at a time.
"""

from __future__ import annotations

import math

SPARE_TASKS = 1  # handed to a worker beyond its threads, so that none idles while the front turns round
_READERS_A_THREAD = 8
_MOST_READERS = 32  # of one worker
_WEIGHT = 0.05  # of the newest clip in the moving averages
_NOTHING = 0.1  # of the time to decode a clip: waiting so long for its storage hides in the spare task
_MARGIN = 1.5  # of reads at a time over what they take on average, since storage is uneven


def readers(threads: int) -> int:
    """The threads of a worker that read ahead, beside so many that decode."""
    return min(_READERS_A_THREAD * threads, _MOST_READERS)


def most_spare(threads: int) -> int:
    """The most tasks that a worker may have beyond its threads."""
    return SPARE_TASKS + readers(threads)


def most_stuck_readers(threads: int) -> int:
    """Hung reads of threads that read ahead beyond which a worker is of no use: half of them, and as many as decode.

    Each holds a buffer until it returns, so a worker that goes on with few is no better than a new one.
    """
    return max(readers(threads) // 2, min(threads, readers(threads)))


def most_tasks(threads: int) -> int:
    """The most tasks that a worker may have, those whose reads hang included."""
    return threads + most_spare(threads) + threads + most_stuck_readers(threads)


class ReadDepth:
    """Moving averages of what a clip's storage operations took, and of its decoding, over workers of `threads`."""

    def __init__(self, *, threads: int) -> None:
        self.spare = SPARE_TASKS
        self._threads = threads
        self._storage_s = self._decode_s = 0.0

    def took(self, storage_s: float, decode_s: float) -> None:
        """A clip's operations of storage took so long, and a thread to decode it."""
        weight = _WEIGHT if self._decode_s else 1.0
        self._storage_s += weight * (storage_s - self._storage_s)
        self._decode_s += weight * (decode_s - self._decode_s)
        ratio = self._storage_s / self._decode_s if self._decode_s > 0 else 0.0
        deeper = 0 if ratio < _NOTHING else math.ceil(min(_MARGIN * self._threads * ratio, readers(self._threads)))
        self.spare = SPARE_TASKS + deeper

    def __repr__(self) -> str:
        return f"ReadDepth({self.spare} spare; {self._storage_s:.4f} s of storage, {self._decode_s:.4f} s to decode)"
