"""A worker whose clips are ready: it fills each place of its part once and decodes nothing. All else is the product's.

The bytes repeat every page, and clips begin on a page, so every place of the buffer pool holds the same clip.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from decode_server.clips.clip_reader import ReadClips
from decode_server.clips.decoder import wanted
from decode_server.clips.read_watch import ReadWatch
from decode_server.service.range_allocator import ALIGN_BYTES
from decode_server.service.workers.worker import DecodeBackend, main
from decode_server.service.workers.worker_messages import Setup
from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from framefeed.request import ClipRequest

_LOOK_BYTES = 64  # at a clip's end, which say whether it lies there
WORKER = (sys.executable, "-m", "framefeed_bench.ready_worker")


@functools.cache
def ready_bytes(clip_bytes: int) -> npt.NDArray[np.uint8]:
    """The flat pixels of every clip."""
    page = np.random.default_rng(1).integers(0, 256, ALIGN_BYTES, np.uint8)
    return np.resize(page, clip_bytes)


class ReadyEngine:
    """Says of each clip what the real engine says, at once."""

    def decode_together(
        self,
        requests: Sequence[ClipRequest],
        outs: Sequence[memoryview],
        *,
        cancelled: Callable[[], bool] = wanted,  # noqa: ARG002
        ahead: ReadClips | None = None,  # noqa: ARG002
    ) -> list[ClipInfo]:
        """The clips lie there already, but for those at a place that is used for the first time."""
        for out in outs:
            clip = ready_bytes(len(out))
            if bytes(out[-_LOOK_BYTES:]) != clip[-_LOOK_BYTES:].tobytes():
                out[:] = clip.tobytes()
        return [
            ClipInfo(
                pts_s=tuple(request.start_s + 0.25 * i for i in range(request.sampling.frames)),
                box=Box(x_px=10, y_px=20, width_px=request.width_px, height_px=request.height_px),
                flipped=False,
                colour=Colour(),
                read_bytes=100_000,
                fed_packets=20,
                stage_s={"read": 0.001, "decode": 0.002, "scale": 0.003},
            )
            for request in requests
        ]

    def close(self) -> None:
        """Nothing is open."""


def ready_backend(_: Setup) -> DecodeBackend:
    """What has nothing to decode."""
    return DecodeBackend(engine=ReadyEngine, codec=lambda _: "ready", watch=ReadWatch(), fingerprint="ready", videos=1)


if __name__ == "__main__":
    raise SystemExit(main(ready_backend))
