"""The quarantine list: stretches of videos that must not be used, and why; servers refuse them, datasets skip them.

JSON lines beside the manifest, written by `framefeed index` (what is damaged in a file that is served as it is),
`chunk` (what a damaged source lost) and `verify` (what is damaged since), each of which replaces its own lines only;
and by a training run in a folder of its own (what no server could give). It knows no packets and opens no media.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct

from framefeed.errors import BadInput
from framefeed.new_file import write_whole
from framefeed.ranges import MAX_SECONDS, check_range, check_text
from framefeed.regular_file import opened_regular
from framefeed.show_value import one_line, show_value

QUARANTINE_NAME = "framefeed.quarantine.jsonl"
_VERSION = 1
_LIST_BYTES, _LINE_BYTES = 1 << 28, 1 << 18
_MAX_SPANS = 1 << 20
_MAX_REASON = 1 << 14
_MAX_WHY = 200
_EDGE_S = 1e-4  # spans that share no more than this do not touch: frame times are rounded on their way

Finder = Literal["index", "chunk", "verify", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedSpan:
    """[start_s, end_s) of a video is not to be used, for this reason; `found_by` is the verb that says so."""

    video: str
    start_s: float
    end_s: float
    reason: str
    found_by: Finder

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and 0 <= self.start_s < self.end_s):
            raise BadInput(
                f"quarantine: span of {show_value(self.video)} is [{self.start_s:g}, {self.end_s:g}) s, "
                "wanted 0 <= start < end"
            )
        try:
            check_text("its video", self.video)
            check_text("its reason", self.reason, most=_MAX_REASON)
            check_range("its end_s", self.end_s, 0, MAX_SECONDS)
        except ValueError as error:
            raise BadInput(f"quarantine: a span cannot be used: {error}") from None

    def __str__(self) -> str:
        return f"{self.video} from {self.start_s:.3f} to {self.end_s:.3f} s: {self.reason}"


class Quarantine:
    """Quarantined spans by video, in time order."""

    def __init__(self, spans: Iterable[QuarantinedSpan] = ()) -> None:
        self.spans = tuple(sorted(spans, key=lambda span: (span.video, span.start_s, span.end_s, span.reason)))
        self._by_video: dict[str, list[QuarantinedSpan]] = {}
        for span in self.spans:
            self._by_video.setdefault(span.video, []).append(span)

    def of(self, video: str) -> tuple[QuarantinedSpan, ...]:
        """The spans of one video."""
        return tuple(self._by_video.get(video, ()))

    def touching(self, video: str, start_s: float, end_s: float) -> QuarantinedSpan | None:
        """The first span of `video` that overlaps [start_s, end_s), if there is one."""
        spans = self._by_video.get(video, ())
        before = bisect.bisect_left(spans, end_s - _EDGE_S, key=lambda span: span.start_s)
        return next((span for span in spans[:before] if span.end_s > start_s + _EDGE_S), None)

    def replaced(
        self, spans: Iterable[QuarantinedSpan], *, found_by: Finder, videos: Collection[str] | None = None
    ) -> Quarantine:
        """With `spans` in the place of those found by this verb in these videos (all, unless given)."""
        kept = [s for s in self.spans if s.found_by != found_by or (videos is not None and s.video not in videos)]
        return Quarantine([*kept, *spans])

    def write(self, folder: Path) -> None:
        """Write FOLDER/framefeed.quarantine.jsonl atomically; an empty list is no file."""
        path = folder / QUARANTINE_NAME
        if not self.spans:
            path.unlink(missing_ok=True)
            return
        lines = [json.dumps({"framefeed_quarantine": _VERSION, "spans": len(self.spans)})]
        lines += [json.dumps(asdict(span)) for span in self.spans]
        write_whole(path, ("\n".join(lines) + "\n").encode())


def read_quarantine(*folders: Path) -> Quarantine:
    """The quarantine lists of the folders together; a folder without one adds nothing.

    Raises BadInput for a list that is damaged, of another version or cannot be read: what it lists must not be served.
    """
    spans: dict[QuarantinedSpan, None] = {}
    for folder in folders:
        path = folder / QUARANTINE_NAME
        try:
            with opened_regular(path, limit_bytes=_LIST_BYTES) as file:
                spans |= dict.fromkeys(_parse(path, file))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadInput(f"quarantine list {path} cannot be read: {error.strerror}") from None
    return Quarantine(spans)


class _Head(Struct):
    framefeed_quarantine: int
    spans: int


_HEAD, _SPAN = msgspec.json.Decoder(_Head), msgspec.json.Decoder(QuarantinedSpan)


def _parse(path: Path, file: BinaryIO) -> Iterator[QuarantinedSpan]:
    """One line in memory at a time. Raises BadInput once it is clear that the list is not whole."""
    number, wanted = 0, 0
    try:
        while line := file.readline(_LINE_BYTES):
            number += 1
            if number > 1:
                yield _SPAN.decode(line)
                continue
            head = _HEAD.decode(line)
            wanted = head.spans if head.framefeed_quarantine == _VERSION and 0 < head.spans <= _MAX_SPANS else -1
            if wanted < 0:
                break
    except (msgspec.MsgspecError, ValueError, RecursionError, BadInput) as error:
        why = one_line(f"line {number}: {error}", chars=_MAX_WHY)
        raise BadInput(f"quarantine list {path} is damaged ({why}); run 'framefeed verify' again") from None
    if number == 0 or number != wanted + 1:
        raise BadInput(f"quarantine list {path} is of another version or cut off; run 'framefeed verify' again")
