"""The sound of one source file by time, for chunks that keep it; knows nothing of pictures.

Sound is decoded once, in order. What is missing or does not decode is silence, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from decode_server.media.container import open_container

SAMPLES_PER_S = 48_000
_LAYOUT = "stereo"
_CHANNELS = 2
_MOST_DAMAGED = 10_000  # packets; more of them are the end of the sound

Samples = npt.NDArray[np.float32]


class SourceAudio:
    """The first sound track of a file as stereo of 48 kHz; `close` frees it. One thread. `origin_s` is the file's own
    time that counts as 0; from `until_s` on, or where times go back, there is silence.
    """

    def __init__(self, path: Path, *, origin_s: Fraction, until_s: float | None = None) -> None:
        self._container = open_container(path)
        self._origin_s = origin_s
        self._until = None if until_s is None else round(until_s * SAMPLES_PER_S)
        self._pieces = self._decoded() if self._container.streams.audio else iter(())
        self._pending: list[tuple[int, Samples]] = []
        self._ended = not self._container.streams.audio
        self.damaged_packets = 0

    @property
    def present(self) -> bool:
        """Whether the file has a sound track at all."""
        return bool(self._container.streams.audio)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._container.close()

    def span(self, start_s: int, samples: int) -> Samples:
        """float32 (channels, samples) from `start_s` on, silent where there is no sound. Spans are asked in order."""
        first = start_s * SAMPLES_PER_S
        out: Samples = np.zeros((_CHANNELS, samples), np.float32)
        while not self._ended and (not self._pending or self._end_of(self._pending[-1]) < first + samples):
            piece = next(self._pieces, None)
            self._ended = piece is None
            if piece is not None:
                self._pending.append(piece)
        for at, piece_samples in self._pending:
            low, high = max(at, first), min(at + piece_samples.shape[1], first + samples)
            if low < high:
                out[:, low - first : high - first] = piece_samples[:, low - at : high - at]
        self._pending = [piece for piece in self._pending if self._end_of(piece) > first + samples]
        return out

    @staticmethod
    def _end_of(piece: tuple[int, Samples]) -> int:
        at, samples = piece
        return at + int(samples.shape[1])

    def _decoded(self) -> Iterator[tuple[int, Samples]]:
        """(first sample's place on the time line, samples) of each decoded stretch."""
        stream = self._container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout=_LAYOUT, rate=SAMPLES_PER_S)
        latest = -SAMPLES_PER_S
        for frame in self._frames(stream):
            if frame.pts is None or frame.time_base is None:
                continue
            at = round((frame.pts * frame.time_base - self._origin_s) * SAMPLES_PER_S)
            if self._until is not None and not latest <= at < self._until:
                return  # times are not the file's any more
            latest = at
            frame.pts = None
            for resampled in resampler.resample(frame):
                samples: Samples = resampled.to_ndarray().astype(np.float32, copy=False)
                yield at, samples
                at += samples.shape[1]

    def _frames(self, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except FFmpegError:
                self.damaged_packets += 1
                if self.damaged_packets > _MOST_DAMAGED:
                    return


def encode_audio(stream: av.AudioStream, samples: Samples) -> Iterator[av.Packet[av.AudioStream]]:
    """The packets of float32 (channels, samples) from time 0 on."""
    step = stream.codec_context.frame_size or 1024
    for at in range(0, samples.shape[1], step):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + step]), "fltp", _LAYOUT)
        frame.sample_rate, frame.pts, frame.time_base = SAMPLES_PER_S, at, Fraction(1, SAMPLES_PER_S)
        yield from stream.encode(frame)
    yield from stream.encode(None)
