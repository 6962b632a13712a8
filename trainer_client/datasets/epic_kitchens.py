"""Reads the CSVs of EPIC-Kitchens-100: clips, and the sentences of its retrieval. It knows no videos.

A clip is cut by its time stamps; the frame columns are not used, as their rates are not the videos' (AVION). A video is
PARTICIPANT/VIDEO_ID. Actions are the pairs "verb:noun" of class numbers in the training and the validation CSV, sorted
as texts: 3806 of both (AVION).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.csv_records import read_csv
from trainer_client.datasets.numerals import whole_in
from trainer_client.datasets.parsed import Parsed, Unread, pick_file
from trainer_client.datasets.spec import DataSpec, Split

VERBS, NOUNS = 97, 300
_CLIP_FILES: Mapping[tuple[str, Split], tuple[str, ...]] = {
    ("ek100_cls", "train"): ("EPIC_100_train.csv",),
    ("ek100_cls", "val"): ("EPIC_100_validation.csv",),
    ("ek100_mir", "train"): ("EPIC_100_retrieval_train.csv", "EPIC_100_train.csv"),
    ("ek100_mir", "val"): ("EPIC_100_retrieval_test.csv", "EPIC_100_validation.csv"),  # row-identical
    ("ek100_mir", "test"): ("EPIC_100_retrieval_test.csv", "EPIC_100_validation.csv"),
}
_SENTENCE_FILES: Mapping[Split, str] = {
    "train": "EPIC_100_retrieval_train_sentence.csv",
    "val": "EPIC_100_retrieval_test_sentence.csv",
    "test": "EPIC_100_retrieval_test_sentence.csv",
}
_COLUMNS = (
    "narration_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "narration",
    "verb_class",
    "noun_class",
    "all_noun_classes",
)


_STAMP = re.compile(r"(\d{1,4}):([0-5]?\d):([0-5]?\d(?:\.\d*)?)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpicClip:
    """One row of a clips' CSV, which begins at `line`; `nouns` are all its noun classes."""

    line: int
    narration_id: str
    participant: str
    video_id: str
    start_s: float
    end_s: float
    narration: str
    verb: int
    noun: int
    nouns: frozenset[int]

    @property
    def action(self) -> str:
        """Its action as action classes are sorted."""
        return f"{self.verb}:{self.noun}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """One row of a sentences' CSV."""

    narration_id: str
    narration: str


def clips_file(spec: DataSpec) -> Path:
    """The CSV of the split's clips. Raises BadInput if there is none."""
    names = _CLIP_FILES.get((spec.kind, spec.split))
    if names is None:
        raise BadInput(f"{spec.kind} has no split {spec.split} with labels, wanted train or val")
    return pick_file(spec.path, names, what="EPIC-Kitchens-100")


def sentences_file(spec: DataSpec) -> Path:
    """The CSV of the split's sentences. Raises BadInput if there is none."""
    folder = spec.path if spec.path.is_dir() else spec.path.parent
    return pick_file(folder, (_SENTENCE_FILES[spec.split],), what="EPIC-Kitchens-100")


def action_files(spec: DataSpec) -> tuple[Path, ...]:
    """The CSVs whose clips say which actions there are: those of training and validation that are there."""
    own = clips_file(spec)
    beside = (own.with_name(name) for name in ("EPIC_100_train.csv", "EPIC_100_validation.csv"))
    return (own, *(path for path in beside if path != own and path.is_file()))


def read_epic(spec: DataSpec, unread: Unread | None = None) -> Parsed:
    """The rows of the split: text and labels "verb", "noun" and "action". Raises BadInput, for values that are none
    unless `unread` takes note of them.
    """
    own, *others = action_files(spec)
    clips = read_clips(own, unread)
    known = {clip.action for clip in clips}.union(*({clip.action for clip in read_clips(other)} for other in others))
    actions = tuple(sorted(known))
    numbers = {name: number for number, name in enumerate(actions)}
    classes = {
        "verb": _class_names(own, "EPIC_100_verb_classes.csv", VERBS),
        "noun": _class_names(own, "EPIC_100_noun_classes.csv", NOUNS),
        "action": actions,
    }
    rows = [
        Row(
            video=f"{clip.participant}/{clip.video_id}",
            start_s=clip.start_s,
            end_s=clip.end_s,
            texts=(clip.narration,),
            labels=(clip.verb, clip.noun, numbers[clip.action]),
        )
        for clip in clips
    ]
    return Parsed(
        rows=rows,
        labels=("verb", "noun", "action"),
        classes=classes,
        has_text=True,
        source=own,
        lines=[clip.line for clip in clips],
    )


def read_clips(path: Path, unread: Unread | None = None) -> list[EpicClip]:
    """The rows of a clips' CSV. Raises BadInput, with the line, for another header; for a value that is none unless
    `unread` takes note of it.
    """
    clips = []
    for number, row in _csv(path, _COLUMNS, unread):
        try:
            clips.append(_clip(number, row))
        except (ValueError, TypeError) as error:
            if unread is None:
                raise BadInput(f"{path}, line {number}: {error}") from None
            unread.add(number, error)
    return clips


def read_sentences(path: Path) -> list[Sentence]:
    """The rows of a sentences' CSV. Raises BadInput for another header."""
    rows = _csv(path, ("narration_id", "narration"))
    return [Sentence(narration_id=row["narration_id"], narration=row["narration"]) for _, row in rows]


def read_ids(path: Path, column: str) -> frozenset[str]:
    """The values of a column: of tail classes or unseen participants. Raises BadInput for another header."""
    return frozenset(row[column] for _, row in _csv(path, (column,)))


def _clip(line: int, row: Mapping[str, str]) -> EpicClip:
    nouns = _numbers(row["all_noun_classes"])
    verb, noun = whole_in(row["verb_class"]), whole_in(row["noun_class"])
    for name, values, classes in (("verb", [verb], VERBS), ("noun", [noun, *nouns], NOUNS)):
        wrong = [value for value in values if not 0 <= value < classes]
        if wrong:
            raise ValueError(f"{name} class {show_value(wrong[0])} is unknown, wanted 0 to {classes - 1}")
    return EpicClip(
        line=line,
        narration_id=row["narration_id"],
        participant=row["participant_id"],
        video_id=row["video_id"],
        start_s=_seconds(row["start_timestamp"]),
        end_s=_seconds(row["stop_timestamp"]),
        narration=row["narration"],
        verb=verb,
        noun=noun,
        nouns=frozenset(nouns),
    )


def _seconds(stamp: str) -> float:
    """HH:MM:SS.ss in seconds. Raises ValueError."""
    parts = _STAMP.fullmatch(stamp.strip())
    if parts is None:
        raise ValueError(f"time stamp is {show_value(stamp)}, wanted HH:MM:SS.ss")
    hours, minutes, seconds = parts.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _numbers(text: str) -> list[int]:
    """The class numbers of a list in JSON, at least one: relevancy is a share of them. Raises ValueError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not found or not all(type(value) is int for value in found):
        raise ValueError(f"all_noun_classes is {show_value(text)}, wanted a list of numbers, one or more")
    return found


def _class_names(beside: Path, name: str, classes: int) -> tuple[str, ...]:
    """What a file of classes calls them; their numbers where it is not there. Raises BadInput for another number."""
    path = next((place / name for place in (beside.parent, beside.parent.parent) if (place / name).is_file()), None)
    if path is None:
        return tuple(map(str, range(classes)))
    rows = {row["id"]: row["key"] for _, row in _csv(path, ("id", "key"))}
    if set(rows) != set(map(str, range(classes))):
        raise BadInput(f"{path} names {len(rows)} classes, wanted 0 to {classes - 1}")
    return tuple(rows[str(number)] for number in range(classes))


def _csv(path: Path, columns: tuple[str, ...], unread: Unread | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """Each record with the line at which it begins. Raises BadInput for one that is too short, unless `unread`."""
    read = read_csv(path)
    missing = [name for name in columns if name not in read.names]
    if missing:
        seen = ", ".join((read.names or ("nothing",))[:8])
        raise BadInput(f"{path} has no column {', '.join(missing)} in its header ({show_value(seen)})")
    wanted = max(read.names.index(name) for name in columns)
    for line, fields in read.records:
        if len(fields) > wanted:
            yield line, dict(zip(read.names, fields, strict=False))
        elif unread is None:
            raise BadInput(f"{path}, line {line} has fewer fields than the header")
        else:
            unread.add(line, "it has fewer fields than the header")
