"""The crf at which a profile is as true to a source as `archive` is, found by coding parts of it; writes no files.

The same crf buys one source more PSNR than ffmpeg's defaults do and the other less, by a decibel either way, since it
depends on texture and motion what B-frames, deblocking and adaptive quantisation are worth. So it is measured: a few
short parts, spread over the source, are coded as `archive` and twice as the profile, and the crf is read off the line
between. Deterministic, like everything about a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import dropwhile, islice
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from decode_server.chunking.profiles import PROFILES, EncodingProfile
from decode_server.chunking.steady_encoder import steady_options
from decode_server.media.picture import PictureFilter, describe_picture
from decode_server.media.stream_choice import open_video
from framefeed.errors import UnsupportedMedia

_PARTS = 3
_PART_S = Fraction(5, 2)  # nearly two GOPs of `train` at 30 frames a second
_LEAST_PART_S = Fraction(5, 4)  # nearly one
_SHARE = 4  # of a longer source, all parts together are at most this fraction
_DB_PER_CRF = 0.55
_REACH_CRF = 6.0
_STEP_CRF = 0.25

Part = list[av.VideoFrame]


def matched(
    profile: EncodingProfile, source: Path, *, short_side_px: int, fps: Fraction | None = None
) -> EncodingProfile:
    """The profile at the crf that gives this source the PSNR (luma and chroma) of `archive`, to some 0.1 dB.

    The profile itself if it does not match quality, or if no part of the source decodes. Blocks for decoding and coding
    of at most 3 parts of 2.5 s, or 1.25 s of a short video.
    """
    if not profile.match_archive:
        return profile
    parts = _sample(source, short_side_px=short_side_px, pix_fmt=profile.pix_fmt, fps=fps)
    if not parts:
        return profile
    wanted_db = _psnr_db(PROFILES["archive"], parts)
    first, first_db = profile.crf, _psnr_db(profile, parts)
    second = _near(first + (first_db - wanted_db) / _DB_PER_CRF, first)
    if second == first:
        return profile
    second_db = _psnr_db(profile.at_crf(second), parts)
    slope = (second_db - first_db) / (second - first)
    crf = second if slope >= 0 else _near(second + (wanted_db - second_db) / slope, first)
    return profile.at_crf(crf)


def _near(crf: float, first: float) -> float:
    """A crf on the grid, rounded towards quality, not far from the profile's own."""
    on_grid = float(np.floor(crf / _STEP_CRF) * _STEP_CRF)
    return min(max(on_grid, first - _REACH_CRF), first + _REACH_CRF)


def _sample(source: Path, *, short_side_px: int, pix_fmt: str, fps: Fraction | None) -> list[Part]:
    """Parts of the source as the chunker's pictures; without those that cannot be sought or decoded."""
    parts: list[Part] = []
    try:
        with open_video(source) as video:
            container, stream = video.container, video.stream
            rate = stream.average_rate or Fraction(30)
            step = max(round(rate / fps), 1) if fps else 1
            duration_s = Fraction(container.duration or 0, av.time_base)
            part_s = max(min(_PART_S, duration_s / _SHARE / _PARTS), _LEAST_PART_S)
            for number in range(_PARTS):
                at_s = duration_s * (2 * number + 1) / (2 * _PARTS)
                begin_s = at_s + Fraction(stream.start_time or 0) * (stream.time_base or 0)
                container.seek(int(begin_s * av.time_base))
                frames = islice(_from(begin_s, container.decode(stream)), 0, int(part_s * rate), step)
                sar = stream.sample_aspect_ratio
                parts.append(list(_pictures(frames, sar=sar, short_side_px=short_side_px, pix_fmt=pix_fmt)))
    except (FFmpegError, OSError, UnsupportedMedia):
        pass  # the chunker names what is wrong with it
    return [part for part in parts if len(part) > 1]


def _from(begin_s: Fraction, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    return dropwhile(lambda frame: (frame.time or 0) < begin_s, frames)


def _pictures(
    frames: Iterator[av.VideoFrame], *, sar: Fraction | None, short_side_px: int, pix_fmt: str
) -> Iterator[av.VideoFrame]:
    """The frames as the chunker would code them, as long as they are of one kind."""
    filter_: PictureFilter | None = None
    for frame in frames:
        picture = describe_picture(frame, sar=sar)
        if filter_ is None:
            filter_ = PictureFilter(picture, time_base=Fraction(1, 30), short_side_px=short_side_px, pix_fmt=pix_fmt)
        if picture != filter_.picture:
            return
        yield filter_.apply(frame)


def _psnr_db(profile: EncodingProfile, parts: Sequence[Part]) -> float:
    """PSNR of luma and chroma samples together, over all frames of all parts, each coded by itself."""
    errors = [error for part in parts for error in _squared_errors(profile, part)]
    return float(10 * np.log10(255**2 / max(float(np.mean(errors)), 1e-9)))


def _squared_errors(profile: EncodingProfile, part: Part) -> list[float]:
    first = part[0]
    encoder = av.CodecContext.create(profile.codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = first.width, first.height, profile.pix_fmt
    encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
    encoder.gop_size = profile.gop_frames
    encoder.options = steady_options(profile)
    packets = []
    for number, frame in enumerate(part):
        frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, 30), 0
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create(encoder.codec.canonical_name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    pairs = zip(decoded, part, strict=True)
    return [float(np.mean((seen.to_ndarray().astype(np.float32) - true.to_ndarray()) ** 2)) for seen, true in pairs]
