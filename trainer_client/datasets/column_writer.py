"""Writes annotations as columns, in memory that their number does not change; knows no videos and no published form."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput
from framefeed.show_value import show_value
from trainer_client.datasets.columns import (
    END_COLUMN,
    HEAD_NAME,
    SEPARATOR,
    START_COLUMN,
    TEXT_COLUMN,
    TEXT_NAME,
    VERSION,
    VIDEO_COLUMN,
    VIDEOS_NAME,
    Head,
    label_column,
)

PART_SUFFIX = ".part"
_BLOCK_ROWS = 1 << 16


class Row(NamedTuple):
    """One sample as it is annotated: an `end_s` of infinity is the video's end; `labels` are in the columns' order."""

    video: str
    start_s: float
    end_s: float
    texts: Sequence[str] = ()
    labels: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What columns mean: the names of their labels, the classes these number, and what they were converted from."""

    has_text: bool
    labels: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fingerprint: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Many samples at once: int32 (N,), float64 (N,) twice, int64 (N,) lengths of their joined texts, and these."""

    video_of: npt.NDArray[np.int32]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    text_bytes: npt.NDArray[np.int64]
    text: bytes
    labels: npt.NDArray[np.int32]


class ColumnWriter:
    """Open files of a new folder of columns; `finish` makes it whole."""

    def __init__(self, folder: Path, labels: Sequence[str]) -> None:
        """The folder exists and is empty. Raises OSError."""
        names = (VIDEO_COLUMN, START_COLUMN, END_COLUMN, TEXT_COLUMN, TEXT_NAME, *map(label_column, labels))
        self._folder, self._labels = folder, tuple(labels)
        self._stack = contextlib.ExitStack()
        self._files: dict[str, BinaryIO] = {}
        for name in names:
            self._files[name] = self._stack.enter_context((folder / name).open("wb"))
        self._numbers: dict[str, int] = {}
        self._samples, self._text_bytes = 0, 0

    def add(self, rows: Iterable[Row]) -> None:
        """Add samples. Raises BadInput for a text that cannot be kept, OSError."""
        every = iter(rows)
        while rows := list(islice(every, _BLOCK_ROWS)):
            self.add_block(self._block(rows))

    def number(self, video: str) -> int:
        """The number of a video."""
        return self._numbers.setdefault(video, len(self._numbers))

    def add_block(self, block: Block) -> None:
        """Add samples whose videos have numbers already. Raises OSError."""
        files = self._files
        ends = self._text_bytes + np.cumsum(block.text_bytes)
        begins = np.concatenate(([self._text_bytes], ends[:-1])) if len(ends) else ends
        columns: list[tuple[str, npt.NDArray[np.generic]]] = [
            (VIDEO_COLUMN, block.video_of),
            (START_COLUMN, block.start_s),
            (END_COLUMN, block.end_s),
            (TEXT_COLUMN, begins),
            *((label_column(name), block.labels[:, at]) for at, name in enumerate(self._labels)),
        ]
        for name, values in columns:
            files[name].write(_little(values))
        files[TEXT_NAME].write(block.text)
        self._samples += len(block.video_of)
        self._text_bytes += len(block.text)

    def finish(self, meaning: Meaning) -> None:
        """Write what is left, the head last, and have all of it on storage. Raises OSError."""
        if meaning.has_text:
            self._files[TEXT_COLUMN].write(_little(np.array([self._text_bytes], np.int64)))
        else:
            self._files[TEXT_COLUMN].truncate(0)
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self.close()
        _write(self._folder / VIDEOS_NAME, tuple(self._numbers))
        head = Head(
            framefeed_columns=VERSION,
            samples=self._samples,
            text_bytes=self._text_bytes,
            has_text=meaning.has_text,
            labels=self._labels,
            classes=dict(meaning.classes),
            fingerprint=meaning.fingerprint,
            sources=meaning.sources,
        )
        _write(self._folder / HEAD_NAME, head)

    def close(self) -> None:
        """Let go of the files. Idempotent."""
        self._stack.close()

    def _block(self, rows: Sequence[Row]) -> Block:
        joined = [_joined(row, self._samples + at) for at, row in enumerate(rows)]
        return Block(
            video_of=np.fromiter((self.number(row.video) for row in rows), np.int32, len(rows)),
            start_s=np.fromiter((row.start_s for row in rows), np.float64, len(rows)),
            end_s=np.fromiter((row.end_s for row in rows), np.float64, len(rows)),
            text_bytes=np.fromiter(map(len, joined), np.int64, len(rows)),
            text=b"".join(joined),
            labels=np.array([row.labels for row in rows], np.int32).reshape(len(rows), len(self._labels)),
        )


@contextmanager
def new_columns(folder: Path, labels: Sequence[str] = ()) -> Iterator[ColumnWriter]:
    """A writer of a folder that is there as a whole once the `with` is left without an error, and not before; then a
    folder that took the place meanwhile stays. Raises OSError.
    """
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}{PART_SUFFIX}")
    part.mkdir(parents=True)
    try:
        writer = ColumnWriter(part, labels)
        try:
            yield writer
        finally:
            writer.close()
        try:
            part.rename(folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _joined(row: Row, at: int) -> bytes:
    try:
        joined = SEPARATOR.join(text.encode() for text in row.texts)
    except UnicodeEncodeError:
        raise BadInput(f"row {at} of the annotations has half a character in its text, wanted Unicode") from None
    if joined.count(SEPARATOR) != max(len(row.texts) - 1, 0):
        raise BadInput(f"row {at} of the annotations has a NUL in {show_value(row.texts[0])}, wanted text without")
    return joined


def _little(values: npt.NDArray[np.generic]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def _write(path: Path, value: object) -> None:
    with path.open("wb") as file:
        file.write(msgspec.json.encode(value))
        file.flush()
        os.fsync(file.fileno())
