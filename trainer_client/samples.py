"""Samples and the first dataset, windows over every video of a manifest; knows no order, epochs, crops or servers."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from framefeed.option_types import settle_types, shown
from framefeed.quarantine import Quarantine
from framefeed.request import MAX_VIDEO_NAME_BYTES

_EDGE_S = 1e-6  # a video this much shorter than a whole number of windows still ends in a whole one


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The span [start_s, end_s) of a video, and what the task should learn from it (a class, a sentence, nothing).

    `video` is its name in the manifest. `view` is which of the views that a ClipPolicy has of it, 0 where it has one;
    `source` which data set of a mixture it is of.
    Raises BadInput for a value of another type or out of its limits; NumPy's numbers become Python's.
    """

    video: str
    start_s: float
    end_s: float
    target: object = None
    view: int = 0
    source: int = 0

    def __post_init__(self) -> None:
        kinds = type(self.video), type(self.start_s), type(self.end_s), type(self.view), type(self.source)
        if kinds != (str, float, float, int, int):
            settle_types(self, what="sample")
        if not _is_name(self.video):
            raise BadInput(
                f"sample: video is {shown(self.video)}, wanted a video's name in the manifest, of 1 to "
                f"{MAX_VIDEO_NAME_BYTES} bytes"
            )
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and 0 <= self.start_s < self.end_s):
            raise BadInput(
                f"sample: span of {self.video} is [{self.start_s:g}, {self.end_s:g}) s, wanted 0 <= start < end"
            )


def _is_name(video: str) -> bool:
    try:
        return 0 < len(video.encode()) <= MAX_VIDEO_NAME_BYTES
    except UnicodeEncodeError:  # half of a character
        return False


class Dataset(Protocol):
    """What the sampler indexes: a length that never changes and a Sample at each index; a list of them will do.

    The thread that iterates and the feed's index it. One made from a manifest says in `identity` (a string) which data
    set its videos are of; where it does not, LoaderOptions.dataset_identity can.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spans:
    """What all samples of a data set say of their spans at once: of which of `videos` each is, int (samples,), and how
    many seconds it lasts, float64 (samples,).
    """

    videos: Sequence[str | None]
    video_of: npt.NDArray[np.integer]
    seconds: npt.NDArray[np.float64]


def spans_of(dataset: Dataset) -> Spans:
    """Those of a data set: its own `spans()` if it has one, or by a look at each sample, some seconds a million."""
    own: Callable[[], Spans] | None = getattr(dataset, "spans", None)
    if own is not None:
        return own()
    numbers: dict[str, int] = {}
    video_of, seconds = np.empty(len(dataset), np.int32), np.empty(len(dataset), np.float64)
    for index in range(len(dataset)):
        sample = dataset[index]
        video_of[index] = numbers.setdefault(sample.video, len(numbers))
        seconds[index] = sample.end_s - sample.start_s
    return Spans(videos=list(numbers), video_of=video_of, seconds=seconds)


class EvenWindows:
    """Windows of `window_s` that begin every `stride_s` in every video of a manifest, in name order then time order,
    each made when asked for and cut off at its video's end.

    Windows that overlap a quarantined span are left out and counted in `quarantined_windows`. Memory is one integer a
    video and one a window left out, whatever the number of windows.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        window_s: float,
        stride_s: float,
        count: Callable[[float], int],
        quarantine: Quarantine | None,
    ) -> None:
        """`count` says how many windows a video of so many seconds has, at least one."""
        self.identity = manifest.identity
        """Which data set the videos are of; "" where the manifest does not say."""
        self._window_s, self._stride_s = window_s, stride_s
        self._videos = [(name, manifest.videos[name].duration_s) for name in sorted(manifest.videos)]
        counts = [count(duration_s) for _, duration_s in self._videos]
        self._left_out = self._quarantined(counts, quarantine or Quarantine())
        names = (name for name, _ in self._videos)
        self._ends = list(
            accumulate(n - len(self._left_out.get(name, ())) for n, name in zip(counts, names, strict=True))
        )
        self.quarantined_windows = sum(len(windows) for windows in self._left_out.values())

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int, /) -> Sample:
        """The sample at an index from 0. Raises IndexError past the end, so iteration ends there."""
        if not 0 <= index < len(self):
            raise IndexError(f"windows: index is {index}, wanted 0 to {len(self) - 1}")
        at = bisect_right(self._ends, index)
        name, duration_s = self._videos[at]
        window = index - (self._ends[at - 1] if at else 0)
        for left_out in self._left_out.get(name, ()):
            window += left_out <= window
        start_s = window * self._stride_s
        return Sample(video=name, start_s=start_s, end_s=min(start_s + self._window_s, duration_s))

    def _quarantined(self, counts: list[int], quarantine: Quarantine) -> dict[str, list[int]]:
        """The numbers, ascending, of the windows of each video that overlap a quarantined span."""
        left_out: dict[str, list[int]] = {}
        strides = self._window_s / self._stride_s
        for (name, _), count in zip(self._videos, counts, strict=True):
            if quarantine.of(name):
                spans_s = ((n, n * self._stride_s, (n + strides) * self._stride_s) for n in range(count))
                left_out[name] = [n for n, start_s, end_s in spans_s if quarantine.touching(name, start_s, end_s)]
        return left_out


class VideoWindows(EvenWindows):
    """Windows of `window_s` over every video of a manifest, in name order then time order, each made when asked for.

    They begin at the start of each video and do not overlap; the last, partial one is kept if it lasts at least
    `min_window_s` (half a window unless told) or is the video's only one, so every video is used. Windows that
    overlap a quarantined span are left out and counted in `quarantined_windows`. Memory is one integer a video and one
    a window left out, whatever the number of windows.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        window_s: float,
        min_window_s: float | None = None,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Raises BadInput for a length that is not positive."""
        if not isinstance(manifest, Manifest):
            raise BadInput(f"windows: manifest is {shown(manifest)}, wanted what read_manifest(Path(ROOT)) returns")
        for name, value_s in (("window_s", window_s), ("min_window_s", min_window_s)):
            if not (isinstance(value_s, int | float) or (value_s is None and name == "min_window_s")):
                raise BadInput(f"windows: {name} is {shown(value_s)}, wanted a number of seconds")
        min_window_s = window_s / 2 if min_window_s is None else min_window_s
        if not (math.isfinite(window_s) and window_s > 0):
            raise BadInput(f"windows: window_s is {window_s:g}, wanted a positive number of seconds")
        if not 0 < min_window_s <= window_s:
            raise BadInput(f"windows: min_window_s is {min_window_s:g}, wanted more than 0 and at most {window_s:g} s")
        count = partial(_count, window_s=window_s, min_window_s=min_window_s)
        super().__init__(manifest, window_s=window_s, stride_s=window_s, count=count, quarantine=quarantine)


def _count(duration_s: float, *, window_s: float, min_window_s: float) -> int:
    whole = math.floor((duration_s + _EDGE_S) / window_s)
    return max(whole + (duration_s - whole * window_s >= min_window_s), 1)
