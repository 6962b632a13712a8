"""One chunk file being written: pictures at exact times, and sound where it is kept; knows no sources."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags
from av.video.frame import PictureType

from decode_server.chunking.audio import SAMPLES_PER_S, Samples, encode_audio
from decode_server.chunking.fair_threads import fair_threads
from decode_server.chunking.profiles import EncodingProfile
from decode_server.chunking.steady_encoder import steady_options


class ChunkEncoder:
    """One chunk file being written; `rate` is for rate control only, `sound` makes room for a sound track."""

    def __init__(
        self, path: Path, start_s: int, *, profile: EncodingProfile, ticks_per_s: int, rate: Fraction, sound: bool
    ) -> None:
        """Raises OSError when the file cannot be written."""
        self.start_s = start_s
        self._profile, self._ticks_per_s, self._rate = profile, ticks_per_s, rate
        self._path = path
        # The edit list that holds a chunk's first time counts in the movie's time scale, 1 ms unless told.
        self._container = av.open(str(path), "w", format="mp4", container_options={"movie_timescale": str(ticks_per_s)})
        self._stream: av.VideoStream | None = None
        self._sound: av.AudioStream | None = None
        self._with_sound = sound
        self._last: av.Packet[av.VideoStream] | None = None
        self._first_dts = self._first_ticks = self._end_ticks = 0

    def add(self, frame: av.VideoFrame, ticks: int, *, end_ticks: int) -> None:
        """Encode `frame`, on show from `ticks` to `end_ticks` from the chunk's start."""
        if self._stream is None:
            self._stream = self._open_stream(frame)
            if self._with_sound:
                self._sound = self._open_sound()
        frame.pts = ticks
        frame.time_base = Fraction(1, self._ticks_per_s)
        frame.duration = end_ticks - ticks
        frame.pict_type = PictureType.NONE  # the source's I-frames must not force keyframes here
        self._end_ticks = end_ticks
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[av.Packet[av.VideoStream]]) -> None:
        """Write packets, each once the next is there: the last one's duration makes up the length of the chunk."""
        for packet in packets:
            if self._last is not None:
                self._container.mux(self._last)
            else:
                self._first_dts = packet.dts or 0
                self._first_ticks = packet.pts or 0
            self._last = packet

    def add_sound(self, samples: Samples) -> None:
        """Encode the whole chunk's sound."""
        assert self._sound is not None
        for packet in encode_audio(self._sound, samples):
            self._container.mux(packet)

    def _open_stream(self, frame: av.VideoFrame) -> av.VideoStream:
        stream = self._container.add_stream(self._profile.codec, rate=self._rate, options=steady_options(self._profile))
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, self._profile.pix_fmt
        context.time_base = stream.time_base = Fraction(1, self._ticks_per_s)
        context.gop_size = self._profile.gop_frames
        context.flags |= Flags.closed_gop
        context.color_range, context.colorspace = frame.color_range, frame.colorspace
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        with fair_threads():
            context.open()
        return stream

    def _open_sound(self) -> av.AudioStream:
        stream = self._container.add_stream("aac", rate=SAMPLES_PER_S, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        return stream

    def close(self) -> int:
        """Flush and close the file. Returns its size in bytes."""
        if self._stream is not None:
            self._mux(self._stream.encode(None))
        if self._last is not None:
            decoded = (self._last.dts or 0) - self._first_dts
            self._last.duration = max(self._end_ticks - self._first_ticks - decoded, 1)
            self._container.mux(self._last)
        self._container.close()
        return self._path.stat().st_size

    def abandon(self) -> None:
        """Close without flushing, after a failure."""
        with contextlib.suppress(av.error.FFmpegError, OSError):
            self._container.close()
