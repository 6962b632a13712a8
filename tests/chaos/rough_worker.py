"""A real worker on storage that is slow and fails now and then, by the storage's opener; all else is the product's.

What goes wrong is drawn by the chaos seed: reads take 2 to 12 ms, one in thirty fails, ends early or gives wrong bytes.
"""

from __future__ import annotations

import errno
import functools
import random
import threading
import time
from pathlib import Path

from decode_server.clips.media_files import DescriptorFile
from decode_server.clips.storage import Seams
from decode_server.service.workers.worker import library_backend, main
from tests.chaos.schedule import chaos_seed
from tests.faulty_storage import ending, failing, flipped, halved

_TROUBLES = (failing(errno.EIO), failing(errno.ESTALE), ending, halved, flipped)
_SHARE = 1 / 30
_SLOW_S = (0.002, 0.012)


class RoughFile(DescriptorFile):
    """A file whose reads are slow, and of which some go wrong."""

    _lock = threading.Lock()
    _rng = random.Random(chaos_seed())

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def read_into(self, buffer: memoryview, offset: int) -> int:
        with self._lock:
            rest_s = self._rng.uniform(*_SLOW_S)
            trouble = self._rng.choice(_TROUBLES) if self._rng.random() < _SHARE else None
        time.sleep(rest_s)
        if trouble is None:
            return super().read_into(buffer, offset)
        plain = DescriptorFile(self.path)
        try:
            return trouble(plain, buffer, offset)
        finally:
            plain.close()


if __name__ == "__main__":
    raise SystemExit(main(functools.partial(library_backend, seams=Seams(open_file=RoughFile))))
