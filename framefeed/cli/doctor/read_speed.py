"""Measures how fast the files of a folder are read, past this machine's page cache. It judges nothing.

As servers read: a few hundred kB at places all over the files, by several threads, and no file as a whole.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from pathlib import Path

from framefeed.cli.doctor.host_facts import ReadSpeed
from framefeed.manifest import MANIFEST_NAME, PACKETS_NAME

THREADS = 8
READ_BYTES = 160_000
_MOST_FILES, _MOST_PLACES = 512, 1 << 16
_OUR_FILES = (MANIFEST_NAME, PACKETS_NAME)


def measure_reading(root: Path, *, for_s: float) -> ReadSpeed:
    """Read for so long, or until every place was read once. A read that hangs ends it after as long again."""
    try:
        files = _some_files(root)
    except OSError as error:
        return ReadSpeed(read_bytes=0, took_s=0.0, threads=0, trouble=str(error))
    if not files:
        return ReadSpeed(read_bytes=0, took_s=0.0, threads=0, trouble="it holds no file with bytes in it")
    reader = _Reader(files, until_s=time.monotonic() + for_s)
    began_s = time.monotonic()
    threads = [threading.Thread(target=reader.run, name="read-speed", daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(began_s + 2 * for_s - time.monotonic(), 0.0))
    took_s = time.monotonic() - began_s
    hung = sum(thread.is_alive() for thread in threads)
    trouble = f"{hung} of {THREADS} reads hang" if hung else reader.trouble
    return ReadSpeed(read_bytes=reader.read_bytes, took_s=took_s, threads=THREADS, trouble=trouble)


def _some_files(root: Path) -> list[Path]:
    """Up to 512 files, the index aside."""
    found = (path for path in root.rglob("*") if path.name not in _OUR_FILES and path.is_file())
    return list(itertools.islice((path for path in found if path.stat().st_size), _MOST_FILES))


class _Reader:
    """What the threads share: the places that are left, in a fixed random order, and what was read."""

    def __init__(self, files: list[Path], *, until_s: float) -> None:
        all_places = ((path, at) for path in files for at in range(0, path.stat().st_size, READ_BYTES))
        places = list(itertools.islice(all_places, _MOST_PLACES))
        random.Random(0).shuffle(places)  # noqa: S311  # places, and no secret
        self._places = iter(places)
        self._until_s = until_s
        self._lock = threading.Lock()
        self.read_bytes = 0
        self.trouble = ""

    def run(self) -> None:
        """Read until all is read or the time is over."""
        while time.monotonic() < self._until_s:
            with self._lock:
                place = next(self._places, None)
            if place is None:
                return
            try:
                got = _read(*place)
            except OSError as error:
                with self._lock:
                    self.trouble = str(error)
                return
            with self._lock:
                self.read_bytes += got


def _read(path: Path, at: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(descriptor, at, READ_BYTES, os.POSIX_FADV_DONTNEED)
        return len(os.pread(descriptor, READ_BYTES, at))
    finally:
        os.close(descriptor)
