"""Windows that slide over every video of a manifest, as a dataset; knows no order, crops, models or servers."""

from __future__ import annotations

import math
from functools import partial

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from framefeed.quarantine import Quarantine
from trainer_client.samples import EvenWindows

_LEAST_S = 1e-3
_EDGE_S = 1e-6  # a window that ends so shortly before the video does reaches its end


class SlidingWindows(EvenWindows):
    """Windows of `window_s` that begin every `stride_s`.

    The last window of a video is the first that reaches its end, and is cut there: a video shorter than a window has
    one. With a stride of at most a window every instant is in one.
    """

    def __init__(
        self, manifest: Manifest, *, window_s: float, stride_s: float, quarantine: Quarantine | None = None
    ) -> None:
        """Raises BadInput for a length or a stride that is none, or shorter than any frame is shown."""
        for name, value_s in (("window_s", window_s), ("stride_s", stride_s)):
            if not (math.isfinite(value_s) and value_s > 0):
                raise BadInput(f"is {value_s:g}, wanted a positive number of seconds", of="windows", field=name)
            if value_s < _LEAST_S:
                why = f"is {value_s:g}, wanted at least {_LEAST_S:g} seconds: no frame is shorter"
                raise BadInput(why, of="windows", field=name)
        count = partial(_count, window_s=window_s, stride_s=stride_s)
        super().__init__(manifest, window_s=window_s, stride_s=stride_s, count=count, quarantine=quarantine)


def _count(duration_s: float, *, window_s: float, stride_s: float) -> int:
    """Windows up to the first that reaches the end, of those that begin before it."""
    reaching = math.ceil((duration_s - window_s - _EDGE_S) / stride_s) + 1
    beginning = math.ceil((duration_s - _EDGE_S) / stride_s)
    return max(min(reaching, beginning), 1)
