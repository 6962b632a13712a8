"""A user's dataset as the feed sees it: of one length, Samples only, and every error names the sample it came from.

It knows no order, policies or servers. The user's object is indexed by the thread that iterates and by the feed's.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence

from framefeed.errors import BadInput, FramefeedError
from framefeed.option_types import shown
from trainer_client.samples import Dataset, Sample

_LISTED = 1 << 16  # samples of a list that are all looked at for its digest: 0.2 s
_SPREAD = 64  # samples of anything else that are, evenly from the first to the last


class CheckedDataset:
    """A Dataset over the user's."""

    def __init__(self, dataset: Dataset) -> None:
        """Raises BadInput for what has no length or no samples by number."""
        if isinstance(dataset, type) or not hasattr(dataset, "__getitem__"):
            raise BadInput(
                f"loader: the dataset is {shown(dataset)}, wanted a list of Samples or what is indexed as one"
            )
        self._dataset = dataset
        self._len = self._count()
        self._digest = ""

    def __len__(self) -> int:
        """Its length when the loader was made."""
        return self._len

    def __getitem__(self, index: int, /) -> Sample:
        """The sample at an index. Raises BadInput, with the user's exception as its cause, for whatever goes wrong."""
        try:
            sample: object = self._dataset[index]
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # a signal's, and no error of the dataset
            raise BadInput(f"sample {index} of the dataset: {_told(error)}{self._shrunk()}") from error
        if not isinstance(sample, Sample):
            wanted = "wanted a Sample(video=…, start_s=…, end_s=…)"
            raise BadInput(f"sample {index} of the dataset is {shown(sample)}, {wanted}")
        return sample

    @property
    def identity(self) -> str:
        """Which data set its videos are of, as the manifest that it was made from says; "" if it does not say."""
        identity = getattr(self._dataset, "identity", "")
        return identity if isinstance(identity, str) else ""

    @property
    def digest(self) -> str:
        """A hash of its length and its samples' videos, spans, views and sources: of all of a list of up to 65,536,
        else of 64 of them, evenly from the first to the last. Reckoned once; what raises is hashed as such.
        """
        if not self._digest:
            whole = hashlib.blake2b(json.dumps([self._len]).encode(), digest_size=8)
            for index in self._looked_at():
                whole.update(self._line(index))
            self._digest = f"v1-{whole.hexdigest()}"
        return self._digest

    def _looked_at(self) -> Sequence[int]:
        if self._len <= (_LISTED if isinstance(self._dataset, list | tuple) else _SPREAD):
            return range(self._len)
        return [place * (self._len - 1) // (_SPREAD - 1) for place in range(_SPREAD)]

    def _line(self, index: int) -> bytes:
        try:
            sample = self[index]
        except BadInput:  # it is raised when its turn comes
            return b"none\n"
        source = (sample.source,) if sample.source else ()
        return json.dumps([sample.video, sample.start_s, sample.end_s, sample.view, *source]).encode() + b"\n"

    def _count(self) -> int:
        try:
            return len(self._dataset)
        except Exception as error:
            raise BadInput(
                f"loader: the dataset, {shown(self._dataset)}, has no length ({_told(error)}); wanted a list of "
                "Samples or what is indexed as one"
            ) from error

    def _shrunk(self) -> str:
        try:
            now = len(self._dataset)
        except Exception:
            return ""
        return f" (it has {now} samples now, {self._len} when the loader was made)" if now != self._len else ""


def _told(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, FramefeedError):
        return str(error)
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
