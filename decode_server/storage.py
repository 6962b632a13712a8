"""Reads byte ranges of media files under one root; tells failing storage from files that are not as indexed.

The one place that opens media. It knows no packets; it never reads outside its root, links resolved.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

from framefeed.errors import CorruptMedia, StorageFault

PADDING_BYTES = 64  # FFmpeg's decoders may read this far past a packet (AV_INPUT_BUFFER_PADDING_SIZE)
_OPEN_FILES = 256


class Storage:
    """Open files under `root`, the most recently used ones. Thread-safe; `close` closes them."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._lock = threading.Lock()
        self._files: OrderedDict[str, int] = OrderedDict()
        self._lent: dict[int, int] = {}
        self._closed = False

    def read(self, path: str, start: int, end: int) -> bytearray:
        """Bytes [start, end) of a file and PADDING_BYTES zeros behind them; blocks for as long as the storage does.

        Raises CorruptMedia when the file is gone, outside the root or ends before `end`; StorageFault when the storage
        fails.
        """
        size = end - start
        buffer = bytearray(size + PADDING_BYTES)
        descriptor = self._borrow(path)
        try:
            done = 0
            while done < size:
                got = os.preadv(descriptor, [memoryview(buffer)[done:size]], start + done)
                if got == 0:
                    raise CorruptMedia(f"{path} ends at byte {start + done}, the index needs {end}")
                done += got
        except OSError as error:
            raise StorageFault(f"{path}: read failed ({error.strerror})") from None
        finally:
            self._give_back(descriptor)
        return buffer

    def close(self) -> None:
        """Close all files; idempotent. A file that a read still uses is closed when that read ends."""
        with self._lock:
            self._closed = True
            while self._files:
                self._evict()

    def _borrow(self, path: str) -> int:
        with self._lock:
            if path in self._files:
                return self._lend(path)
        descriptor = self._open(path)  # outside the lock: a hung storage holds up its own reader only
        with self._lock:
            if path in self._files:
                os.close(descriptor)
            else:
                self._files[path] = descriptor
                if len(self._files) > _OPEN_FILES:
                    self._evict()
            return self._lend(path)

    def _lend(self, path: str) -> int:
        self._files.move_to_end(path)
        descriptor = self._files[path]
        self._lent[descriptor] = self._lent.get(descriptor, 0) + 1
        return descriptor

    def _give_back(self, descriptor: int) -> None:
        with self._lock:
            self._lent[descriptor] -= 1
            if self._lent[descriptor] == 0:
                del self._lent[descriptor]
                if self._closed or descriptor not in self._files.values():
                    os.close(descriptor)

    def _evict(self) -> None:
        descriptor = self._files.popitem(last=False)[1]
        if descriptor not in self._lent:
            os.close(descriptor)

    def _open(self, path: str) -> int:
        try:
            resolved = (self._root / path).resolve()
            if not resolved.is_relative_to(self._root):
                raise CorruptMedia(f"{path} leads out of the root")
            return os.open(resolved, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise CorruptMedia(f"{path} is gone; index the root again") from None
        except OSError as error:
            raise StorageFault(f"{path}: cannot be opened ({error.strerror})") from None
