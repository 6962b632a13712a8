"""Where the engine's time goes, by stage: for a while its calls are timed from outside, in this process alone.

The engine itself has no such timers, so it pays for none. This knows no clips and no figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import av
from av.video.codeccontext import VideoCodecContext

from decode_server.clips import decoder
from decode_server.clips.decoder import Decoder
from decode_server.clips.packet_bytes import PacketBytes
from decode_server.clips.swscale import Cut, Scaler

STAGES = ("read", "feed", "decode", "scale", "convert")

Clock = Callable[[], float]

# No call of one stage is made within one of another but a read within the feed, of which it is no part.
_CALLS = (
    (PacketBytes, "_read", "read"),
    (Scaler, "cut", "scale"),  # libswscale prepares its filters
    (Cut, "write", "scale"),
    (Scaler, "interleave", "convert"),
)


@contextmanager
def timed_stages(clock: Clock = time.process_time) -> Iterator[dict[str, float]]:
    """Give a dict to which all engines of this process add their seconds in each of STAGES, until it is left.

    `read` is reading a range of a chunk, `feed` taking a packet's bytes, checking, padding and wrapping them, `decode`
    the codec, `scale` libswscale from the decoded frame to planes of the clip's size, `convert` from planes to RGB
    pixels. What is in none of them is Python: planning, loops, turning and mirroring by NumPy.

    For one decoding thread at a time. A timed call costs 1 µs, two readings of the clock, half of it within its stage.
    The bench's clips make some 35 and 90 of them, 1 % of their time; rounds with timers take 1 to 3 % longer.
    """
    spent_s = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **options: Any) -> Any:
            began, read_s = clock(), spent_s["read"]
            try:
                return call(*args, **options)
            finally:
                within_s = spent_s["read"] - read_s if stage == "feed" else 0.0
                spent_s[stage] += clock() - began - within_s

        return timed_call

    plain_packets, plain_context = decoder._packets, Decoder._context

    def packets(*args: Any) -> Iterator[av.Packet[Any] | None]:
        return _each(timed("feed", iter(plain_packets(*args)).__next__))

    def context(owner: Decoder, *args: Any) -> _TimedCodec:
        return _TimedCodec(plain_context(owner, *args), timed)

    with ExitStack() as stack:
        for owner, name, stage in _CALLS:
            stack.enter_context(patch.object(owner, name, timed(stage, getattr(owner, name))))
        stack.enter_context(patch.object(decoder, "_packets", packets))
        stack.enter_context(patch.object(Decoder, "_context", context))
        yield spent_s


class _TimedCodec:
    """Of a codec context, which takes no attributes, what the decoder calls."""

    def __init__(
        self, context: VideoCodecContext, timed: Callable[[str, Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        self.decode: Callable[[av.Packet[Any] | None], Iterable[av.VideoFrame]] = timed("decode", context.decode)
        self.flush_buffers: Callable[[], None] = timed("decode", context.flush_buffers)


def _each(following: Callable[[], Any]) -> Iterator[Any]:
    while True:
        try:
            item = following()
        except StopIteration:
            return
        yield item
