"""Reads the pickles of Ego4D narrations as LaViLa and AVION publish them. It knows no videos.

There are human ones, rephrased ones and narrators'.
Each is a list of tuples (video uid, start second, end second, narration), the narration a text or a list of texts that
say the same; narrators' have the texts' likelihoods behind it, which nobody uses (AVION, LaViLa). AVION's recipe with
language models is the rephraser's file with the narrators' behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.option_types import shown
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.numerals import seconds_in
from trainer_client.datasets.parsed import Parsed, whole_text
from trainer_client.datasets.plain_pickle import PlainArray, load_plain

_LEAST_FIELDS, _MOST_FIELDS = 4, 5


def read_ego4d(files: Sequence[Path]) -> Parsed:
    """The rows of the files, one behind the other; a file is in memory at a time. Raises BadInput."""
    return Parsed(rows=(row for path in files for row in _rows(path)), has_text=True)


def _rows(path: Path) -> Iterator[Row]:
    whole = load_plain(path)
    if not isinstance(whole, list | tuple) or not whole:
        raise BadInput(f"pickle {path} holds {shown(whole)}, wanted a list of (uid, start, end, narration)")
    for at, item in enumerate(whole):
        try:
            row = _row(item)
        except ValueError as error:
            raise BadInput(f"pickle {path}: item {at}: {error}") from None
        if row is None:
            raise BadInput(f"pickle {path}: item {at} is {shown(item)}, wanted (uid, start, end, narration)")
        yield row


def _row(item: object) -> Row | None:
    """None for an item of another form. Raises ValueError for one with values that are none."""
    if not isinstance(item, list | tuple) or not _LEAST_FIELDS <= len(item) <= _MOST_FIELDS:
        return None
    video, start_s, end_s, said = item[:4]
    texts = _texts(said)
    if not isinstance(video, str) or texts is None:
        return None
    if not (isinstance(start_s, int | float) and isinstance(end_s, int | float)):
        return None
    return Row(
        video=whole_text(video, "uid"), start_s=_seconds(start_s, "start"), end_s=_seconds(end_s, "end"), texts=texts
    )


def _seconds(value: float, name: str) -> float:
    """A NaN stays one: it is no span, and counted as such. Infinity would be the end of the video."""
    return value if isinstance(value, float) and math.isnan(value) else seconds_in(value, name)


def _texts(said: object) -> tuple[str, ...] | None:
    if isinstance(said, str):
        return (_text(said),)
    if isinstance(said, PlainArray):
        said = list(said.value)
    if isinstance(said, Iterable) and not isinstance(said, bytes | dict):
        texts = tuple(said)
        if all(isinstance(text, str) for text in texts):
            return tuple(_text(text) for text in texts if text)
    return None


def _text(said: str) -> str:
    return whole_text(said.replace("\0", " "), "narration")
