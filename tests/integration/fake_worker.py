"""A worker whose engine does what the video's name says: the real process, channel and threads, no codecs.

Names: `crash`, `corrupt`, `bug`, `wait:PATH` (until the gate at PATH is opened); any other gives its seed as pixels.
Roots: `refuses` cannot be read, `dies` ends the process at once, `differs` has a
fingerprint of its own in every process.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from decode_server.worker import Kit, main
from decode_server.worker_messages import Setup
from framefeed.clip import ClipInfo, Colour
from framefeed.crops import Box
from framefeed.errors import BadInput, CorruptMedia
from framefeed.request import ClipRequest


class FakeEngine:
    def decode(self, request: ClipRequest, out: memoryview) -> ClipInfo:
        name, _, path = request.video.partition(":")
        if name == "crash":
            signal.raise_signal(signal.SIGSEGV)
        if name == "corrupt":
            raise CorruptMedia("corrupt: nothing decodes at 1.5 s")
        if name == "bug":
            raise RuntimeError("an oversight")
        if name == "wait":
            Path(path).with_suffix(".entered").touch()
            os.close(os.open(path, os.O_RDONLY))
        np.frombuffer(out, np.uint8)[:] = request.seed % 256
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


def fake_kit(setup: Setup) -> Kit:
    name = Path(setup.root).name
    if name == "refuses":
        raise BadInput("root refuses: wanted another")
    if name == "dies":
        os._exit(7)
    fingerprint = f"fake-{os.getpid() if name == 'differs' else 1}"
    return Kit(engine=FakeEngine, codec=lambda video: "fake", fingerprint=fingerprint, videos=3)


if __name__ == "__main__":
    raise SystemExit(main(fake_kit))
