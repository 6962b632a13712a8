"""A data set over columns and a manifest: which rows are used, and each as a Sample. It knows no published form.

Every row is used or counted, by why it is not: its video is not in the manifest; it has neither text nor label where
the others have one; its span is none, or lies past the end of its video. An end that is past that by no more than a
frame and what the annotations are rounded to is moved there (`latest_ends_s`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.manifest import Manifest
from framefeed.show_value import show_value
from trainer_client.datasets.annotation import Annotation
from trainer_client.datasets.columns import Columns
from trainer_client.datasets.spec import Absent
from trainer_client.datasets.video_names import VideoNames
from trainer_client.samples import Sample, Spans

ABSENT, NO_SPAN, PAST_END, NO_TEXT = "not in the manifest", "no span", "past the end", "no text"
_SLICE_ROWS = 1 << 20

TextsOf = Callable[[int], Sequence[str]]
Indices = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]
_SHOWN_CLASSES = 5
_SLOWEST_FPS = 1.0  # a video of fewer frames a second is one of them long at its end
_DIGITS_S = (1.0, 0.1)  # what ends may all be multiples of; otherwise they count as rounded to 0.01 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How errors and reports speak of a data set: what its annotations are called, and what becomes of absent rows, by
    which option.
    """

    what: str
    absent: Absent = "refuse"
    option: str = "--data.absent"
    place: Callable[[int], str] = "row {}".format
    """Where the annotations have a row of theirs, which counts from 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Used:
    """Which rows are used, None for all of them; why others are not, by reason; and the first of these."""

    rows: Indices | None
    left_out: Mapping[str, int] = field(default_factory=dict)
    first: tuple[int, str] | None = None


class AnnotatedDataset:
    """A Dataset of the rows that are used, in the order of the annotations; each Sample's target is an Annotation."""

    def __init__(
        self, columns: Columns, manifest: Manifest, naming: Naming, *, texts_of: TextsOf | None = None
    ) -> None:
        """`texts_of` gives the texts of a row where the columns do not. Looks at every row's span once, 1 s for 35 M.

        Raises BadInput if no row is left, and for the first that is left out where `naming` refuses that.
        """
        self._columns, self._naming = columns, naming
        self._texts_of: TextsOf = columns.texts if texts_of is None else texts_of
        self.identity = manifest.identity
        """Which data set the videos are of; "" where the manifest does not say."""
        if not len(columns):
            raise BadInput(f"{naming.what} has no row, wanted at least one: an empty split")
        self._videos = VideoNames(manifest.videos.keys()).find_all(columns.videos, what=naming.what)
        self._durations_s = np.array(
            [np.nan if video is None else manifest.videos[video].duration_s for video in self._videos], np.float64
        )
        frames_s = frames_of(manifest, self._videos)
        used = _used_rows(columns, self._durations_s, latest_ends_s(self._durations_s, frames_s, columns.end_s))
        self._check(used)
        self._rows = used.rows
        self._classes: Mapping[str, tuple[str, ...]] = columns.head.classes
        self._number_of: dict[str, npt.NDArray[np.int32]] = {}  # a class's number by that in the columns
        self.left_out: Mapping[str, int] = used.left_out
        """How many rows are not used, by why."""

    def __len__(self) -> int:
        return len(self._columns) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int, /) -> Sample:
        """The sample at an index from 0. Raises IndexError past the end, BadInput for columns that are damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"index is {index}, wanted 0 to {len(self) - 1}")
        row = self.row(index)
        at = int(self._columns.video_of[row])
        video = self._videos[at]
        assert video is not None, "rows of absent videos are left out"
        labels = {
            name: self._numbered(name, values[row : row + 1]).item() for name, values in self._columns.labels.items()
        }
        return Sample(
            video=video,
            start_s=float(self._columns.start_s[row]),
            end_s=min(float(self._columns.end_s[row]), float(self._durations_s[at])),
            target=Annotation(row=row, texts=self._texts_of(row), labels=labels),
        )

    def spans(self) -> Spans:
        """The videos and seconds of all samples; 1 s for 35 million, 12 bytes each."""
        rows = slice(None) if self._rows is None else self._rows
        video_of = np.asarray(self._columns.video_of[rows])
        ends_s = np.minimum(self._columns.end_s[rows], self._durations_s[video_of])
        return Spans(videos=self._videos, video_of=video_of, seconds=ends_s - self._columns.start_s[rows])

    def row(self, index: int) -> int:
        """The row of the annotations that a sample is made of."""
        return index if self._rows is None else int(self._rows[index])

    @property
    def rows(self) -> Indices:
        """The row of each sample, int64 (samples,)."""
        return np.arange(len(self._columns)) if self._rows is None else self._rows

    @property
    def annotated(self) -> int:
        """How many rows the annotations have, those that are left out too."""
        return len(self._columns)

    @property
    def has_text(self) -> bool:
        """Whether samples have texts."""
        return self._columns.head.has_text

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the classes by what they classify, in the order of their numbers."""
        return self._classes

    def number_as(self, classes: Mapping[str, tuple[str, ...]]) -> None:
        """Give classes the numbers that a model knows them by; what it says nothing of keeps its own.

        Raises BadInput for a class of a sample that the model does not know.
        """
        for name in sorted(classes.keys() & self._classes.keys()):
            known = {one: number for number, one in enumerate(classes[name])}
            numbers = np.array([known.get(one, -1) for one in self._columns.head.classes[name]], np.int32)
            used = np.unique(self.label_array(name))
            if (numbers[used] < 0).any():
                strange = self._columns.head.classes[name][used[numbers[used] < 0][0]]
                some = ", ".join(show_value(one) for one in classes[name][:_SHOWN_CLASSES])
                more = f" and {len(known) - _SHOWN_CLASSES} more" if len(known) > _SHOWN_CLASSES else ""
                raise BadInput(
                    f"{self.name}: the model was trained on no {name} {show_value(strange)}; wanted {some}{more}"
                )
            self._number_of[name] = numbers
        self._classes = {**self._classes, **{name: classes[name] for name in self._number_of}}

    @property
    def fingerprint(self) -> str:
        """A digest of the annotations' files."""
        return self._columns.head.fingerprint

    @property
    def name(self) -> str:
        """What the annotations are called in lines for people."""
        return self._naming.what

    def label_array(self, name: str) -> npt.NDArray[np.int32]:
        """The class number of each sample, int32 (samples,). Raises BadInput for a label that there is none of."""
        labels = self._columns.labels.get(name)
        if labels is None:
            raise BadInput(
                f"{self.name} has no label {show_value(name)}, wanted one of {', '.join(self._columns.labels)}"
            )
        return self._numbered(name, np.asarray(labels) if self._rows is None else labels[self._rows])

    def _numbered(self, name: str, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        numbers = self._number_of.get(name)
        return labels if numbers is None else numbers[labels]

    def _check(self, used: _Used) -> None:
        if used.first is None:
            return
        row, why = used.first
        columns, absent = self._columns, sum(used.left_out.values())
        at = int(columns.video_of[row])
        duration_s = self._durations_s[at]
        counts = ", ".join(f"{number} {reason}" for reason, number in used.left_out.items())
        told = (
            f"{self._naming.place(row)} of {self.name}: {show_value(columns.videos[at])} [{columns.start_s[row]:g}, "
            f"{columns.end_s[row]:g}) s, {why}{'' if np.isnan(duration_s) else f' (it has {duration_s:g} s)'}"
        )
        if absent == len(columns):
            raise BadInput(f"no row of {self.name} can be used ({counts}): are they of another data set? {told}")
        if self._naming.absent == "refuse":
            raise BadInput(
                f"{told}; {absent} of {len(columns)} rows cannot be used ({counts}); "
                f"wanted their videos, or {self._naming.option} leave_out"
            )


def _used_rows(columns: Columns, durations_s: Seconds, latest_s: Seconds) -> _Used:
    """Raises BadInput for a row of a video that has no name."""
    unusable = np.zeros(len(columns), np.bool_)
    left_out: dict[str, int] = {}
    first: tuple[int, str] | None = None
    for begin in range(0, len(columns), _SLICE_ROWS):
        rows = slice(begin, min(begin + _SLICE_ROWS, len(columns)))
        reasons = _reasons(columns, durations_s, latest_s, rows)
        for why, found in reasons.items():
            new = int((found & ~unusable[rows]).sum())
            if new:
                left_out[why] = left_out.get(why, 0) + new
            unusable[rows] |= found
        if first is None and unusable[rows].any():
            at = int(unusable[rows].argmax())
            first = begin + at, next(why for why, found in reasons.items() if found[at])
    return _Used(rows=None if first is None else np.flatnonzero(~unusable), left_out=left_out, first=first)


def frames_of(manifest: Manifest, videos: Sequence[str | None]) -> Seconds:
    """How long a frame of each video is, in seconds; 0 where there is none."""
    shown = (None if video is None else manifest.videos[video].fps for video in videos)
    return np.array([0.0 if fps is None else 1.0 / max(fps, _SLOWEST_FPS) for fps in shown], np.float64)


def latest_ends_s(durations_s: Seconds, frames_s: Seconds, ends_s: Seconds) -> Seconds:
    """The latest end of a span in each video that is still its end: a frame past it, and half the last digit that all
    `ends_s` of the annotations are written with, 0.5 s where they are whole seconds and 0.005 s at least.

    EPIC-Kitchens-100 has 0.01 s, and 1 of the 9668 ends of its validation is past its video's, by 0.013 s.
    """
    return durations_s + frames_s + next((unit / 2 for unit in _DIGITS_S if _are_multiples(ends_s, unit)), 0.005)


def _are_multiples(values: Seconds, unit: float) -> bool:
    for begin in range(0, len(values), _SLICE_ROWS):
        units = values[begin : begin + _SLICE_ROWS] / unit
        finite = units[np.isfinite(units)]
        if (np.abs(finite - np.rint(finite)) > 1e-6 * np.maximum(np.abs(finite), 1.0)).any():
            return False
    return True


def span_faults(
    of_row_s: Seconds, latest_s: Seconds, start_s: Seconds, end_s: Seconds
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which spans cannot be used, by why, in the order in which one is told; `of_row_s` is how long the video of each
    row is, NaN where there is none, and `latest_s` the latest end in it.
    """
    past = (start_s >= of_row_s) | (np.isfinite(end_s) & (end_s > latest_s))
    return {ABSENT: np.isnan(of_row_s), NO_SPAN: ~((start_s >= 0) & (end_s > start_s)), PAST_END: past}


def _reasons(
    columns: Columns, durations_s: Seconds, latest_s: Seconds, rows: slice
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which of these rows cannot be used, by why, in the order in which one is told."""
    video_of, start_s, end_s = columns.video_of[rows], columns.start_s[rows], columns.end_s[rows]
    if video_of.min() < 0 or video_of.max() >= len(durations_s):
        raise BadInput(f"columns: a row is of video {video_of.max()}, wanted 0 to {len(durations_s) - 1}")
    reasons = span_faults(durations_s[video_of], latest_s[video_of], start_s, end_s)
    if columns.head.has_text and not columns.labels:
        ends = columns.text_at[rows.start + 1 : rows.stop + 1]
        reasons[NO_TEXT] = ends <= columns.text_at[rows]
    return reasons
