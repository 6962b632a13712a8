"""Windows that slide over every video of a manifest, as a dataset; knows no order, crops, models or servers."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from framefeed.quarantine import Quarantine
from trainer_client.samples import Sample

_EDGE_S = 1e-6  # a window that ends so shortly before the video does reaches its end


class SlidingWindows:
    """Windows of `window_s` that begin every `stride_s`, in name order then time order, each made when asked for.

    The last window of a video is the first that reaches its end, and is cut there: a video shorter than a window has
    one. With a stride of at most a window every instant is in one. Windows that overlap a quarantined span are left
    out and counted in `quarantined_windows`.
    """

    def __init__(
        self, manifest: Manifest, *, window_s: float, stride_s: float, quarantine: Quarantine | None = None
    ) -> None:
        """Raises BadInput for a length or a stride that is not positive."""
        for option, value_s in (("--window-s", window_s), ("--stride-s", stride_s)):
            if not (math.isfinite(value_s) and value_s > 0):
                raise BadInput(f"{option} is {value_s:g}, wanted a positive number of seconds")
        self.identity = manifest.identity
        """Which data set the videos are of; "" where the manifest does not say."""
        self._window_s, self._stride_s = window_s, stride_s
        self._videos = [(name, manifest.videos[name].duration_s) for name in sorted(manifest.videos)]
        self._used = _used_windows(self._videos, window_s, stride_s, quarantine or Quarantine())
        counts = [_count(duration_s, window_s, stride_s) for _, duration_s in self._videos]
        kept = [len(self._used.get(at, range(count))) for at, count in enumerate(counts)]
        self._ends = list(accumulate(kept))
        self.quarantined_windows = sum(counts) - sum(kept)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> Sample:
        """The sample at an index from 0. Raises IndexError past the end, so iteration ends there."""
        if not 0 <= index < len(self):
            raise IndexError(f"windows: index is {index}, wanted 0 to {len(self) - 1}")
        at = bisect_right(self._ends, index)
        name, duration_s = self._videos[at]
        window = index - (self._ends[at - 1] if at else 0)
        start_s = (self._used[at][window] if at in self._used else window) * self._stride_s
        return Sample(video=name, start_s=start_s, end_s=min(start_s + self._window_s, duration_s))


def _used_windows(
    videos: list[tuple[str, float]], window_s: float, stride_s: float, quarantine: Quarantine
) -> dict[int, list[int]]:
    """The numbers of the windows that are used, of the videos that have quarantined spans alone."""
    used: dict[int, list[int]] = {}
    for at, (name, duration_s) in enumerate(videos):
        if quarantine.of(name):
            starts = ((n, n * stride_s) for n in range(_count(duration_s, window_s, stride_s)))
            used[at] = [n for n, start_s in starts if not quarantine.touching(name, start_s, start_s + window_s)]
    return used


def _count(duration_s: float, window_s: float, stride_s: float) -> int:
    """Windows up to the first that reaches the end, of those that begin before it."""
    reaching = math.ceil((duration_s - window_s - _EDGE_S) / stride_s) + 1
    beginning = math.ceil((duration_s - _EDGE_S) / stride_s)
    return max(min(reaching, beginning), 1)
