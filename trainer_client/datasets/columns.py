"""Annotations as columns in a folder: memory-mapped, so opening reads no sample. It knows no published form.

28 bytes a sample beside the text, and 4 a label: which video (int32), start and end in seconds (float64; an end of
infinity is the video's), where its texts begin (int64). The texts of a sample lie one behind the other in UTF-8, a NUL
between two. columns.json says how many there are; what does not fit it is refused, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from framefeed.errors import BadInput
from framefeed.regular_file import read_regular
from framefeed.show_value import one_line

HEAD_NAME, VIDEOS_NAME, TEXT_NAME = "columns.json", "videos.json", "text.bin"
VERSION = 2
VIDEO_COLUMN, START_COLUMN, END_COLUMN, TEXT_COLUMN = "video.i32", "start_s.f64", "end_s.f64", "text.i64"
SEPARATOR = b"\0"
_HEAD_BYTES, _VIDEOS_BYTES = 1 << 26, 1 << 32
_ScalarT = TypeVar("_ScalarT", bound=np.generic)


def label_column(name: str) -> str:
    """The file of a label."""
    return f"label_{name}.i32"


class Head(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """columns.json: how much there is, the classes that labels number, and the digest of what it was converted from."""

    framefeed_columns: int
    samples: int
    text_bytes: int
    has_text: bool
    labels: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]
    fingerprint: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Row i of every column is sample i. `videos` are names as the annotations write them, `video_of` numbers them."""

    head: Head
    videos: tuple[str, ...]
    video_of: npt.NDArray[np.int32]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    text_at: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]
    labels: Mapping[str, npt.NDArray[np.int32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.head.samples

    def texts(self, row: int) -> tuple[str, ...]:
        """The texts of a sample; none where there are none. Raises BadInput for columns that are damaged."""
        if not self.head.has_text:
            return ()
        begin, end = int(self.text_at[row]), int(self.text_at[row + 1])
        if not 0 <= begin <= end <= len(self.text):
            raise BadInput(f"columns: the texts of row {row} lie at [{begin}, {end}) of {len(self.text)} bytes")
        if begin == end:
            return ()
        return tuple(part.decode(errors="replace") for part in self.text[begin:end].tobytes().split(SEPARATOR))


def open_columns(folder: Path) -> Columns:
    """Map the columns in a folder; reads the head and the videos' names alone.

    Raises BadInput for what they cannot be.
    """
    head = _decoded(folder / HEAD_NAME, Head, limit_bytes=_HEAD_BYTES)
    if head.framefeed_columns != VERSION:
        raise BadInput(f"columns {folder} have version {head.framefeed_columns}, wanted {VERSION}; remove the folder")
    videos = _decoded(folder / VIDEOS_NAME, tuple[str, ...], limit_bytes=_VIDEOS_BYTES)
    samples = head.samples
    return Columns(
        head=head,
        videos=videos,
        video_of=_mapped(folder / VIDEO_COLUMN, np.int32, samples),
        start_s=_mapped(folder / START_COLUMN, np.float64, samples),
        end_s=_mapped(folder / END_COLUMN, np.float64, samples),
        text_at=_mapped(folder / TEXT_COLUMN, np.int64, samples + 1 if head.has_text else 0),
        text=_mapped(folder / TEXT_NAME, np.uint8, head.text_bytes),
        labels={name: _mapped(folder / label_column(name), np.int32, samples) for name in head.labels},
    )


_ValueT = TypeVar("_ValueT")


def _decoded(path: Path, kind: type[_ValueT], *, limit_bytes: int) -> _ValueT:
    try:
        return msgspec.json.decode(read_regular(path, limit_bytes=limit_bytes), type=kind)
    except OSError as error:
        raise BadInput(f"columns {path} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput(f"columns {path} are damaged ({one_line(str(error))}); remove the folder") from None


def _mapped(path: Path, kind: type[_ScalarT], count: int) -> npt.NDArray[_ScalarT]:
    """Raises BadInput unless the file holds so many."""
    wanted_bytes = count * np.dtype(kind).itemsize
    try:
        seen_bytes = path.stat().st_size
        if seen_bytes != wanted_bytes:
            raise BadInput(f"columns {path} have {seen_bytes} bytes, wanted {wanted_bytes}; remove the folder")
        if not count:
            return np.empty(0, kind)
        return np.memmap(path, np.dtype(kind).newbyteorder("<"), mode="r")
    except OSError as error:
        raise BadInput(f"columns {path} cannot be read: {error.strerror}") from None
