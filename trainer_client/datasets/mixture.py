"""Several data sets as one, each with its share of every epoch. It knows nothing of what is in them.

The epoch is as long as it takes to have the shares, and every sample at least once: the data set with the most samples
for its share has each once, the others' are repeated, all of one equally often or once more, each time with another
clip seed. A loader shuffles them like any samples.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from math import ceil, isfinite

import numpy as np

from framefeed.errors import BadInput
from trainer_client.samples import Dataset, Sample, Spans, spans_of


class Mixture:
    """A Dataset; a sample's `source` says which of the data sets it is of, for a policy of its own."""

    def __init__(self, datasets: Sequence[Dataset], *, weights: Sequence[float] | None = None) -> None:
        """`weights` are shares of an epoch, of any sum; None is as many as each has samples: one behind the other.

        Raises BadInput for data sets of different roots, none at all, or weights that are no shares.
        """
        sizes = [len(dataset) for dataset in datasets]
        if not sizes or min(sizes) < 1:
            raise BadInput(f"mixture: data sets have {sizes} samples, wanted at least one each")
        shares = sizes if weights is None else list(weights)
        if len(shares) != len(sizes) or not all(isfinite(share) and share > 0 for share in shares):
            raise BadInput(
                f"mixture: weights are {shares} of {len(sizes)} data sets, wanted a positive number for each"
            )
        identities = {str(getattr(dataset, "identity", "")) for dataset in datasets} - {""}
        if len(identities) > 1:
            raise BadInput(f"mixture: data sets are of the roots {', '.join(sorted(identities))}, wanted one")
        self.identity = next(iter(identities), "")
        """Which data set the videos are of, if one of the data sets says it."""
        self._datasets, self._sizes = list(datasets), sizes
        scale = max(size / share for size, share in zip(sizes, shares, strict=True))
        self.counts = tuple(max(size, ceil(share * scale - 1e-9)) for size, share in zip(sizes, shares, strict=True))
        """How many samples of an epoch are of each data set."""
        self._ends = list(accumulate(self.counts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int, /) -> Sample:
        """The sample at an index from 0. Raises IndexError past the end, so iteration ends there."""
        if not 0 <= index < len(self):
            raise IndexError(f"mixture: index is {index}, wanted 0 to {len(self) - 1}")
        source = bisect_right(self._ends, index)
        place = index - (self._ends[source - 1] if source else 0)
        # Spread evenly, so that those that come once more are not the first ones.
        inner = place * self._sizes[source] // self.counts[source]
        return replace(self._datasets[source][inner], source=source)

    def spans(self) -> Spans:
        """The videos and seconds of all samples of an epoch, as its data sets say them."""
        parts, videos = [], list[str | None]()
        for dataset, size, count in zip(self._datasets, self._sizes, self.counts, strict=True):
            own, inner = spans_of(dataset), np.arange(count) * size // count
            parts.append((own.video_of[inner] + len(videos), own.seconds[inner]))
            videos += own.videos
        video_of, seconds = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Spans(videos=videos, video_of=video_of, seconds=seconds)
