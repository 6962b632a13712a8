"""A worker that takes longer than it must at one stage; all else is the product's. Sleeping stands for the work.

Its arguments: the stage, `read` or `decode`, and how many seconds each read of storage or each decode lasts longer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from decode_server.clips.clip_reader import ReadClips
from decode_server.clips.engine import Buffer, Engine
from decode_server.clips.library import Library
from decode_server.clips.media_files import DescriptorFile
from decode_server.clips.storage import Seams
from decode_server.service.workers.worker import DecodeBackend, library_backend, main
from decode_server.service.workers.worker_messages import Setup
from framefeed.clip import ClipInfo
from framefeed.request import ClipRequest


class SlowFile(DescriptorFile):
    """A file on slow storage."""

    longer_s = 0.0

    def read_into(self, buffer: memoryview, offset: int) -> int:
        time.sleep(self.longer_s)
        return super().read_into(buffer, offset)


class SlowEngine:
    """An engine whose decodes last longer, and that says so."""

    def __init__(self, engine: Engine, longer_s: float) -> None:
        self._engine, self._longer_s = engine, longer_s

    def decode_together(
        self,
        requests: Sequence[ClipRequest],
        outs: Sequence[Buffer],
        *,
        cancelled: Callable[[], bool],
        ahead: ReadClips | None,
    ) -> list[ClipInfo]:
        infos = self._engine.decode_together(requests, outs, cancelled=cancelled, ahead=ahead)
        time.sleep(self._longer_s)
        for info in infos:
            info.stage_s["decode"] += self._longer_s
        return infos

    def close(self) -> None:
        self._engine.close()


def slow_backend(setup: Setup, stage: str, longer_s: float) -> DecodeBackend:
    if stage == "read":
        SlowFile.longer_s = longer_s
        return library_backend(setup, seams=Seams(open_file=SlowFile))
    library = Library(Path(setup.root))
    backend = library_backend(setup)
    return replace(backend, engine=lambda: SlowEngine(Engine(library), longer_s))


if __name__ == "__main__":
    stage, longer_s = sys.argv.pop(1), float(sys.argv.pop(1))
    raise SystemExit(main(lambda setup: slow_backend(setup, stage, longer_s)))
