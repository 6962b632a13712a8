"""Records by name in one buffer that never changes: written once in name order, found by binary search, read on demand.

Many processes share the memory of such a buffer. It knows nothing of what a record says. A buffer that is not what was
written raises ValueError and nothing else, wherever that is seen: when it is opened, or at one of its records.

Layout: a page with the head, the records (each the name's length in 4 bytes, the name, the body), and where each record
begins and the last one ends, in 8 bytes each, from the first record on. Integers are little-endian; names are in the
order of their UTF-8 bytes.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

HEAD_BYTES = 4096
_MAGIC = b"FFRECS01"
_HEAD = struct.Struct("<8sQQ16sI")  # magic, records, bytes of all records, digest, bytes of the note
_LENGTH, _PLACES = struct.Struct("<I"), struct.Struct("<QQ")
_PLACE_BYTES = 8
_COPY_BYTES = 1 << 20
MAX_NOTE_BYTES = HEAD_BYTES - _HEAD.size

Record = tuple[str, bytes]


class RecordWriter:
    """Writes a map into a new file, whose first page is left free until `finish`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.blake2b(digest_size=16)
        self._places = array("Q", [0])
        self._last = b""
        file.seek(HEAD_BYTES)

    def write(self, records: Iterable[Record]) -> None:
        """Raises ValueError for a record that is out of order, or whose name was there; those before it are written."""
        for name, body in records:
            key = name.encode()
            if key <= self._last and len(self._places) > 1:
                raise ValueError(f"record map: {name!r} comes after {self._last.decode()!r}")
            self._last = key
            self._put(b"".join((_LENGTH.pack(len(key)), key, body)))
            self._places.append(self._places[-1] + _LENGTH.size + len(key) + len(body))

    def places(self) -> str:
        """Write where the records are; returns the digest of all that was written, 32 characters."""
        self._bytes = self._places[-1]
        if sys.byteorder == "big":
            self._places.byteswap()
        self._put(self._places.tobytes())
        return self._digest.hexdigest()

    def head(self, note: bytes) -> None:
        """Write the first page, at last: with it the map is whole."""
        self._file.seek(0)
        self._file.write(_page(len(self._places) - 1, self._bytes, self._digest.digest(), note))
        self._file.flush()

    def _put(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def read_note(page: bytes) -> bytes:
    """The note on a map's first page. Raises ValueError."""
    return page[_HEAD.size : _HEAD.size + _head_of(page)[3]]


def write_note(file: BinaryIO, note: bytes) -> None:
    """Put another note on a map that was written or copied, which leaves its records as they are. Raises ValueError."""
    file.seek(0)
    records, records_bytes, digest, _ = _head_of(file.read(HEAD_BYTES))
    file.seek(0)
    file.write(_page(records, records_bytes, digest, note))
    file.flush()


def copy_whole(source: BinaryIO, target: BinaryIO) -> None:
    """Copy a map from its first byte on. Raises ValueError if it is not whole, or any byte is another than was written;
    then something was copied. Raises OSError.
    """
    page = source.read(HEAD_BYTES)
    records, records_bytes, digest, _ = _head_of(page)
    target.write(page)
    left_bytes = records_bytes + (records + 1) * _PLACE_BYTES
    found = hashlib.blake2b(digest_size=16)
    while left_bytes:
        data = source.read(min(left_bytes, _COPY_BYTES))
        if not data:
            raise ValueError(f"it ends {left_bytes} bytes too soon")
        left_bytes -= len(data)
        found.update(data)
        target.write(data)
    if source.read(1):
        raise ValueError("it has bytes behind its end")
    if found.digest() != digest:
        raise ValueError(f"its bytes have the digest {found.hexdigest()}, its head says {digest.hex()}")
    target.flush()


class RecordMap(Mapping[str, bytes]):
    """The bodies by name, in name order."""

    def __init__(self, buffer: memoryview) -> None:
        """Over the bytes of a whole map, which must stay as they are. Raises ValueError if they cannot be one."""
        page = bytes(buffer[:HEAD_BYTES])
        self._count, records_bytes, _, note_bytes = _head_of(page)
        end = HEAD_BYTES + records_bytes
        if end + (self._count + 1) * _PLACE_BYTES != len(buffer):
            raise ValueError(f"record map: {len(buffer)} bytes hold no {self._count} records of {records_bytes} bytes")
        self.note = page[_HEAD.size : _HEAD.size + note_bytes]
        self._records, self._places = buffer[HEAD_BYTES:end], buffer[end:]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> bytes:
        """Raises KeyError, or ValueError for a map that is not what was written."""
        try:
            key = name.encode()
        except UnicodeEncodeError:
            raise KeyError(name) from None
        number = bisect_left(range(self._count), key, key=self._name)
        if number == self._count or self._name(number) != key:
            raise KeyError(name)
        _, start, end = self._bounds(number)
        return bytes(self._records[start:end])

    def __iter__(self) -> Iterator[str]:
        return (self._name(number).decode() for number in range(self._count))

    def _name(self, number: int) -> bytes:
        start, end, _ = self._bounds(number)
        return bytes(self._records[start:end])

    def _bounds(self, number: int) -> tuple[int, int, int]:
        """Where a record's name begins, where it ends and the body begins, and where that ends."""
        start, end = _PLACES.unpack_from(self._places, number * _PLACE_BYTES)
        if not start + _LENGTH.size <= end <= len(self._records):
            raise ValueError(f"record map: record {number} lies at [{start}, {end}) of {len(self._records)} bytes")
        body = start + _LENGTH.size + _LENGTH.unpack_from(self._records, start)[0]
        if body > end:
            raise ValueError(f"record map: the name of record {number} ends at byte {body}, and the record at {end}")
        return start + _LENGTH.size, body, end


def _page(records: int, records_bytes: int, digest: bytes, note: bytes) -> bytes:
    """The first page. Raises ValueError."""
    if len(note) > MAX_NOTE_BYTES:
        raise ValueError(f"its note has {len(note)} bytes, wanted at most {MAX_NOTE_BYTES}")
    return (_HEAD.pack(_MAGIC, records, records_bytes, digest, len(note)) + note).ljust(HEAD_BYTES, b"\0")


def _head_of(page: bytes) -> tuple[int, int, bytes, int]:
    """Records, bytes of all, their digest, and bytes of the note. Raises ValueError."""
    if len(page) < HEAD_BYTES:
        raise ValueError(f"it has {len(page)} bytes, a map at least {HEAD_BYTES}")
    magic, records, records_bytes, digest, note_bytes = _HEAD.unpack_from(page)
    if magic != _MAGIC:
        raise ValueError(f"it begins with {magic!r}, wanted {_MAGIC!r}")
    if note_bytes > MAX_NOTE_BYTES:
        raise ValueError(f"its note has {note_bytes} bytes, wanted at most {MAX_NOTE_BYTES}")
    return records, records_bytes, digest, note_bytes
