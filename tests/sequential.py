"""The truth about a file: its frames by a plain sequential decode with PyAV alone, known by the packet they came from.

Nothing of framefeed's decides what is demuxed, fed or kept here. One thread, since with several the decoder reports
damage late or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def pixel_hash(frame: av.VideoFrame) -> str:
    """A hash of every byte of the picture, without the padding of its rows."""
    sample_bytes = 2 if frame.format.name.endswith("le") else 1
    digest = hashlib.blake2b(f"{frame.width}x{frame.height}{frame.format.name}".encode(), digest_size=12)
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        digest.update(np.ascontiguousarray(rows[:, : plane.width * sample_bytes]))
    return digest.hexdigest()


def sequential_frames(path: Path, stream: int) -> dict[int, str]:
    """Hashes of the frames that decode without damage, by the ordinal of their packet; what fails is passed over."""
    return {ordinal: pixel_hash(frame) for ordinal, frame in _frames(path, stream) if not frame.is_corrupt}


def sequential_times(path: Path, stream: int) -> list[Fraction]:
    """Times in seconds, rising, of the frames that a player shows: those whose packets no edit list leaves out."""
    with av.open(str(path)) as container:
        base = Fraction(container.streams[stream].time_base or 1)
        packets = [p for p in container.demux(container.streams[stream]) if p.size and not p.is_discard]
        return sorted(p.pts * base for p in packets if p.pts is not None)


def _frames(path: Path, number: int) -> Iterator[tuple[int, av.VideoFrame]]:
    with av.open(str(path), metadata_errors="replace") as container:
        stream: Any = container.streams[number]
        stream.thread_type = "NONE"
        context = stream.codec_context
        # Where the stream does not say how far frames are reordered, the decoder guesses, and drops those that it
        # then thinks come too late. A player would not show them; that does not make them wrong.
        context.options = {"strict": "1"}
        packets: list[Any] = [p for p in container.demux(stream) if p.size]
        for ordinal, packet in enumerate([*packets, None]):
            if packet is not None:
                packet.pts = ordinal
            with contextlib.suppress(av.FFmpegError):
                yield from ((f.pts, f) for f in context.decode(packet) if f.pts is not None)
