"""Whether an encoder takes a profile's options, found out on a few black pictures; knows no sources and no chunks.

FFmpeg only warns about an option that an encoder does not know, and codes on without it; here that is an error.
"""

from __future__ import annotations

import io
import os

import av
from av.error import FFmpegError

from decode_server.chunking.fair_threads import fair_threads
from decode_server.chunking.profiles import EncodingProfile
from decode_server.chunking.steady_encoder import steady_options
from framefeed.errors import BadInput

_SIZE_PX = (128, 96)
_FRAMES = 3
_COMPLAINTS = ("Error parsing option", "Unknown option", "Invalid value")


def try_encoder(profile: EncodingProfile) -> None:
    """Encode a few pictures. Raises BadInput, in the encoder's own words, when it does not take the options."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only; SVT-AV1 knows no other way, and chunk workers inherit it
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)  # a complaint counts however often it was heard before
    try:
        with av.logging.Capture(local=False) as logs:
            unused = _encode(profile)
    except (FFmpegError, ValueError) as error:
        said = [text for _, _, text in logs if text.strip()]
        reason = said[0] if said else str(error)
        raise BadInput(f"profile {profile.name}: {profile.codec} refuses its options: {reason.strip()}") from None
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])
    ignored = [text.strip() for _, _, text in logs if text.startswith(_COMPLAINTS)]
    ignored += [f"Unknown option: {name}." for name in unused]
    if ignored:
        raise BadInput(f"--encoder-options: {profile.codec} does not take one: {ignored[0]}")


def _encode(profile: EncodingProfile) -> list[str]:
    """Names of the options that nothing took."""
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        stream = container.add_stream(profile.codec, rate=30, options=steady_options(profile))
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = *_SIZE_PX, profile.pix_fmt
        context.gop_size = profile.gop_frames
        with fair_threads():
            context.open()
        for number in range(_FRAMES):
            frame = av.VideoFrame(*_SIZE_PX, profile.pix_fmt)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        return list(context.options)
