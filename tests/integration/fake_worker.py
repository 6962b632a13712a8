"""A worker whose engine does what the video's name says: the real process, channel and threads, no codecs.

Names: `crash` (if its seed is even), `corrupt`, `odd` (corrupt if its seed is odd), `bug`, `fault` (of storage),
`memory` and `descriptors` (none is left), `endless` (until it is cancelled), `wait:PATH` (until the gate at PATH is
opened), `read:PATH` (the same, as a read of storage), `stale` (after a fault that passed), `pattern` (pixels that no
two places share by chance); any other gives its seed as pixels.
Roots: `refuses` cannot be read, `dies` ends the process at once, `differs` has a fingerprint of its own in every
process.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from decode_server.clips.clip_reader import ReadClips
from decode_server.clips.read_watch import RETRY, ReadWatch
from decode_server.service.workers.worker import DecodeBackend, main
from decode_server.service.workers.worker_messages import Setup
from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from framefeed.errors import BadInput, Cancelled, CorruptMedia, StorageFault
from framefeed.request import ClipRequest


def pattern_of(request: ClipRequest) -> npt.NDArray[np.uint8]:
    """The flat pixels of the video `pattern`: a few hashed bytes, again and again, one more of them each time."""
    digest = np.frombuffer(hashlib.sha512(str(request.seed).encode()).digest(), np.uint8)
    rows = np.arange(-(-request.clip_bytes // digest.size), dtype=np.uint8)
    pattern: npt.NDArray[np.uint8] = (digest + rows[:, None]).reshape(-1)[: request.clip_bytes]
    return pattern


class FakeEngine:
    def __init__(self, watch: ReadWatch) -> None:
        self._watch = watch

    def decode_together(
        self,
        requests: Sequence[ClipRequest],
        outs: Sequence[memoryview],
        *,
        cancelled: Callable[[], bool],
        ahead: ReadClips | None,
    ) -> list[ClipInfo]:
        infos = []
        for request, out in zip(requests, outs, strict=True):
            while request.video == "endless" and not cancelled():
                time.sleep(0.001)  # a packet
            if cancelled():
                raise Cancelled("the clip is not wanted any more")
            infos.append(self._decode(request, out))
        return infos

    def _decode(self, request: ClipRequest, out: memoryview) -> ClipInfo:
        name, _, path = request.video.partition(":")
        if name == "crash" and request.seed % 2 == 0:
            ctypes.string_at(0)
        if name == "corrupt" or (name == "odd" and request.seed % 2):
            raise CorruptMedia("corrupt: nothing decodes at 1.5 s")
        if name == "bug":
            raise RuntimeError("an oversight")
        if name == "memory":
            raise MemoryError("an allocation failed")
        if name == "descriptors":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if name == "fault":
            self._watch.count("io")
            raise StorageFault("fault: the read failed")
        if name == "wait":
            Path(path).with_suffix(".entered").touch()
            os.close(os.open(path, os.O_RDONLY))
        if name == "read":
            with self._watch.reading("nfs/clip.mp4"):
                Path(path).with_suffix(".entered").touch()
                os.close(os.open(path, os.O_RDONLY))
        if name == "stale":
            self._watch.count("stale")
            self._watch.count(RETRY)
        np.frombuffer(out, np.uint8)[:] = pattern_of(request) if name == "pattern" else request.seed % 256
        return ClipInfo(
            pts_s=(0.0,) * request.sampling.frames,
            box=Box(x_px=0, y_px=0, width_px=2, height_px=2),
            flipped=False,
            colour=Colour(),
            read_bytes=1000,
            fed_packets=1,
            stage_s={"read": 0.001, "decode": 0.002, "scale": 0.003},
        )

    def close(self) -> None:
        pass


def fake_backend(setup: Setup) -> DecodeBackend:
    name = Path(setup.root).name
    if name == "refuses":
        raise BadInput("root refuses: wanted another")
    if name == "dies":
        os._exit(7)
    fingerprint = f"fake-{os.getpid() if name == 'differs' else 1}"
    watch = ReadWatch()
    return DecodeBackend(
        engine=lambda: FakeEngine(watch),
        codec=lambda video: "fake",
        watch=watch,
        fingerprint=fingerprint,
        videos=3,
        dataset=f"v1-{os.getpid()}" if name == "other-data" else "v1-fake",
    )


if __name__ == "__main__":
    raise SystemExit(main(fake_backend))
