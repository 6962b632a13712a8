"""What of each row of annotations a root can give: every row is usable or counted, by why not. It reads no file.

What is found is by row, in arrays; a line of it is made only where somebody looks. A million rows take a second or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from framefeed.nearest_name import nearest_name
from framefeed.quarantine import Quarantine
from framefeed.show_value import show_value
from trainer_client.checked_dataset import CheckedDataset
from trainer_client.datasets.annotated import ABSENT, NO_SPAN, NO_TEXT, PAST_END, frames_of, latest_ends_s, span_faults
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.video_names import VideoNames, without_ending
from trainer_client.samples import Dataset, Sample

USABLE, CLIPPED, QUARANTINED, UNREAD = "usable", "usable, cut off at the end", "quarantined", "not readable"
UNSAID = "no label and no text"
_UNSEEN_S = 1e-3  # less than that is no frame's: not a cut
_STATES = (USABLE, CLIPPED, ABSENT, NO_SPAN, PAST_END, QUARANTINED, NO_TEXT, UNSAID)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFinding:
    """A row that is not used as it is: where it is (`place` "line" and its number from 1 in the file, or "row" and its
    number from 0), what of it, and why in words.
    """

    place: str
    number: int
    state: str
    video: str
    start_s: float
    end_s: float
    why: str

    def __str__(self) -> str:
        if self.state == UNREAD:
            return f"{self.place} {self.number}: {self.why}"
        span = "" if np.isinf(self.end_s) and not self.start_s else f" [{self.start_s:g}, {self.end_s:g}) s"
        return f"{self.place} {self.number}: {show_value(self.video)}{span}: {self.why}"


@dataclass(frozen=True, kw_only=True, eq=False)
class RowCheck:
    """What was found: a state (`_STATES`, by number) and a video (None: unknown) of each row that could be read, and
    the places that could not. `spans_s` are float64 (N, 2), an end of infinity being the video's. `lines` are those of
    the rows in their file, from 1, and empty where these are of none: then `place` is "row", numbered from 0.
    """

    names: tuple[str, ...]
    video_of: npt.NDArray[np.int32]
    spans_s: npt.NDArray[np.float64]
    state_of: npt.NDArray[np.int8]
    found: tuple[str | None, ...]
    manifest: Manifest
    quarantine: Quarantine
    unread: tuple[tuple[int, str], ...] = ()
    lines: Sequence[int] = ()
    place: str = "row"

    @property
    def rows(self) -> int:
        """How many rows there are, read or not."""
        return len(self.video_of) + len(self.unread)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many rows are what; the sum is `rows`."""
        numbers = np.bincount(self.state_of, minlength=len(_STATES)).tolist()
        return {**dict(zip(_STATES, numbers, strict=True)), UNREAD: len(self.unread)}

    @property
    def unusable(self) -> int:
        """How many rows cannot be used."""
        return self.rows - self.counts[USABLE] - self.counts[CLIPPED]

    def require_usable(self, what: str) -> None:
        """Raise BadInput, in one line with the first of them, if a row of what is called so cannot be used."""
        for state in (UNREAD, *(one for one in _STATES if one not in (USABLE, CLIPPED))):
            for first in self.findings(state, most=1):
                raise BadInput(f"{self.unusable} of {self.rows} rows of {what} cannot be used; {first}")

    def usable_rows(self) -> Iterator[tuple[int, Row]]:
        """The rows that can be used, by number: videos as the root calls them, ends no later than theirs."""
        for row in np.flatnonzero(self.state_of <= _STATES.index(CLIPPED)).tolist():
            video = self.found[self.video_of[row]]
            assert video is not None
            end_s = min(float(self.spans_s[row, 1]), self.manifest.videos[video].duration_s)
            yield row, Row(video, float(self.spans_s[row, 0]), end_s)

    def but(self, state: str, rows: npt.NDArray[np.bool_]) -> RowCheck:
        """The same where these rows, bool (N,), are of this state, unless they cannot be used already."""
        usable = self.state_of <= _STATES.index(CLIPPED)
        state_of = np.where(usable & rows, np.int8(_STATES.index(state)), self.state_of)
        return replace(self, state_of=state_of)

    def findings(self, state: str, *, most: int | None = None) -> Iterator[RowFinding]:
        """The rows of this state (or places that have none), the first `most` of them."""
        if state == UNREAD:
            for number, why in self.unread[:most]:
                yield self._finding(number, state=state, video="", span_s=(0.0, 0.0), why=why)
            return
        for row in np.flatnonzero(self.state_of == _STATES.index(state))[:most].tolist():
            at, number = int(self.video_of[row]), self.lines[row] if self.lines else row
            start_s, end_s = self.spans_s[row].tolist()
            why = self._why(state, at, start_s, end_s)
            yield self._finding(number, state=state, video=self.names[at], span_s=(start_s, end_s), why=why)

    def _finding(self, number: int, *, state: str, video: str, span_s: tuple[float, float], why: str) -> RowFinding:
        start_s, end_s = span_s
        return RowFinding(
            place=self.place, number=number, state=state, video=video, start_s=start_s, end_s=end_s, why=why
        )

    def _why(self, state: str, at: int, start_s: float, end_s: float) -> str:
        video = self.found[at]
        if state == ABSENT:
            return self._absent(self.names[at])
        if state in (NO_TEXT, UNSAID):
            return f"there is {state}"
        if state == NO_SPAN:
            return "wanted 0 <= start < end"
        assert video is not None
        if state == QUARANTINED:
            return f"quarantined: {self.quarantine.touching(video, start_s, end_s)}"
        return f"past the end: it has {self.manifest.videos[video].duration_s:g} s"

    def _absent(self, name: str) -> str:
        """Why a name is no video's: its file was refused when it was indexed, or nothing is called so."""
        if name not in self._why_absent:
            refused = self._refused.get(_last(name))
            near = "" if refused else self._near(_last(name))
            hint = f"; did you mean {near!r}?" if near else ""
            self._why_absent[name] = f"refused when it was indexed: {refused}" if refused else f"not in the root{hint}"
        return self._why_absent[name]

    def _near(self, last: str) -> str:
        """The video whose name is most like one, by its last part; empty if none is."""
        return self._videos_by_last.get(nearest_name(last, self._videos_by_last), "")

    @cached_property
    def _why_absent(self) -> dict[str, str]:
        return {}

    @cached_property
    def _videos_by_last(self) -> Mapping[str, str]:
        return {_last(video): video for video in self.manifest.videos}

    @cached_property
    def _refused(self) -> Mapping[str, str]:
        return {_last(one.path): one.reason for one in self.manifest.refused}


def check_rows(
    rows: Iterable[Row], manifest: Manifest, quarantine: Quarantine, *, clip: bool = False, exact: bool = False
) -> RowCheck:
    """What of each row the manifest's videos can give. With `clip` a span that begins in its video and ends past that
    is used up to there; without, only one that ends so little past it that this is rounding (`latest_ends_s`). With
    `exact` a name is a video's only if it is the root's own.
    """
    numbers: dict[str, int] = {}
    table = [(numbers.setdefault(row.video, len(numbers)), row.start_s, row.end_s) for row in rows]
    values = np.array(table, np.float64).reshape(len(table), 3)
    video_of, spans_s = values[:, 0].astype(np.int32), np.ascontiguousarray(values[:, 1:])
    videos = VideoNames(manifest.videos.keys())
    found = tuple((name if name in manifest.videos else None) if exact else videos.find(name) for name in numbers)
    lengths_s = np.array([np.nan if one is None else manifest.videos[one].duration_s for one in found], np.float64)
    of_row_s = lengths_s[video_of]
    state_of = np.zeros(len(values), np.int8)
    state_of[_touched(found, video_of, spans_s, quarantine)] = _STATES.index(QUARANTINED)
    latest_s = latest_ends_s(lengths_s, frames_of(manifest, found), spans_s[:, 1])[video_of]
    ends_past = np.isfinite(spans_s[:, 1]) & (spans_s[:, 1] > of_row_s + _UNSEEN_S)
    state_of[ends_past & (state_of == 0)] = _STATES.index(CLIPPED)
    faults = span_faults(of_row_s, latest_s, spans_s[:, 0], spans_s[:, 1])
    for why, these in reversed(faults.items()):  # the first reason is told
        begins_inside = (spans_s[:, 0] < of_row_s) if clip and why == PAST_END else np.zeros(len(these), np.bool_)
        state_of[these & ~begins_inside] = _STATES.index(why)
    return RowCheck(
        names=tuple(numbers),
        video_of=video_of,
        spans_s=spans_s,
        state_of=state_of,
        found=found,
        manifest=manifest,
        quarantine=quarantine,
    )


def check_samples(dataset: Dataset, manifest: Manifest, quarantine: Quarantine, *, clip: bool = False) -> RowCheck:
    """The same of Samples, as a script has them, whose videos are called as in the root: `unread` are those that raise
    or are none, by their index.
    """
    checked = CheckedDataset(dataset)
    rows, unread = [], []
    for index in range(len(checked)):
        try:
            sample: Sample = checked[index]
            rows.append(Row(sample.video, sample.start_s, sample.end_s))
        except BadInput as error:
            unread.append((index, str(error)))
    found = check_rows(rows, manifest, quarantine, clip=clip, exact=True)
    return replace(found, unread=tuple(unread))


def _touched(
    found: Sequence[str | None], video_of: npt.NDArray[np.int32], spans_s: npt.NDArray[np.float64], listed: Quarantine
) -> list[int]:
    """The rows whose span touches a quarantined stretch; only those of videos that have one are looked at."""
    held = {at: name for at, name in enumerate(found) if name is not None and listed.of(name)}
    if not held:
        return []
    rows = np.flatnonzero(np.isin(video_of, list(held))).tolist()
    return [row for row in rows if listed.touching(held[int(video_of[row])], *spans_s[row].tolist()) is not None]


def _last(name: str) -> str:
    return without_ending(name).rpartition("/")[2]
