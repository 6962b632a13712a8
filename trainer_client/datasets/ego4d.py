"""Reads the pickles of Ego4D narrations as LaViLa and AVION publish them. It knows no videos.

There are human ones, rephrased ones and narrators'.
Each is a list of tuples (video uid, start second, end second, narration), the narration a text or a list of texts that
say the same; narrators' have the texts' likelihoods behind it, which nobody uses (AVION, LaViLa). AVION's recipe with
language models is the rephraser's file with the narrators' behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.option_types import shown
from trainer_client.datasets.column_writer import Row
from trainer_client.datasets.parsed import Parsed
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
        row = _row(item)
        if row is None:
            raise BadInput(f"pickle {path}: item {at} is {shown(item)}, wanted (uid, start, end, narration)")
        yield row


def _row(item: object) -> Row | None:
    if not isinstance(item, list | tuple) or not _LEAST_FIELDS <= len(item) <= _MOST_FIELDS:
        return None
    video, start_s, end_s, said = item[:4]
    texts = _texts(said)
    if not isinstance(video, str) or texts is None:
        return None
    if not (isinstance(start_s, int | float) and isinstance(end_s, int | float)):
        return None
    return Row(video=video, start_s=float(start_s), end_s=float(end_s), texts=texts)


def _texts(said: object) -> tuple[str, ...] | None:
    if isinstance(said, str):
        return (said.replace("\0", " "),)
    if isinstance(said, PlainArray):
        said = list(said.value)
    if isinstance(said, Iterable) and not isinstance(said, bytes | dict):
        texts = tuple(said)
        if all(isinstance(text, str) for text in texts):
            return tuple(text.replace("\0", " ") for text in texts if text)
    return None
