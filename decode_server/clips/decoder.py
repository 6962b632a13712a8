"""Feeds the packets of a run to a codec and hands over the kept frames; refuses any frame that is not exact.

It owns codec contexts, which are kept open and flushed between runs; it reads no files and scales no frames. Each
packet carries its ordinal as its time stamp, so a frame is known by the packet it came from, not by its time.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, cast

import av
from av.codec.context import CodecContext
from av.video.codeccontext import VideoCodecContext

from decode_server.clips.plan import Run
from decode_server.media.codec_headers import tells_size
from decode_server.media.container import check_codec
from decode_server.media.packet_index import DAMAGED, HIDDEN, PacketIndex
from decode_server.media.soundness import LENIENT
from framefeed.errors import Cancelled, CorruptMedia, ResourceExhausted, UnsupportedMedia

_CODECS = 8
_PADDING = bytes(64)  # AV_INPUT_BUFFER_PADDING_SIZE

Payload = Callable[[int], memoryview]
_Key = tuple[str | bytes | int, ...]


def wanted() -> bool:
    """Never cancelled."""
    return False


class Decoder:
    """Codec contexts of recently decoded streams, one decoding thread each. One Decoder per thread."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[_Key, VideoCodecContext] = OrderedDict()

    def frames(
        self, index: PacketIndex, run: Run, payload: Payload, *, cancelled: Callable[[], bool] = wanted
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (packet ordinal, frame) for each kept packet of the run, in output order.

        `payload(ordinal)` gives the bytes of a packet, checked; what it raises passes through. Raises CorruptMedia,
        naming file and second, when a packet does not decode, or yields no frame or one that the codec had to conceal.
        Raises Cancelled once `cancelled`, asked before each packet, is true.
        """
        context = self._context(index)
        owed = set(run.feed[(index.flags[run.feed] & HIDDEN) == 0].tolist())
        clean = False
        try:
            for packet in _packets(index, run, payload):
                if cancelled():
                    raise Cancelled("the clip is not wanted any more")
                for frame in context.decode(packet):
                    got = -1 if frame.pts is None else frame.pts
                    owed.discard(got)
                    if frame.is_corrupt or got < 0:
                        raise CorruptMedia(f"{index.where(got)}: the frame is damaged")
                    if got in run.keep:
                        yield got, frame
            clean = True
        except av.FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise ResourceExhausted(f"{index.where(min(owed))}: no memory to decode it") from None
            raise CorruptMedia(f"{index.where(min(owed))}: does not decode ({error.strerror})") from None
        finally:
            self._reset(context, index, clean=clean)
        if owed:
            raise CorruptMedia(f"{index.where(min(owed))}: the codec gave no frame for it")

    def close(self) -> None:
        """Drop the codec contexts; idempotent."""
        self._contexts.clear()

    def _context(self, index: PacketIndex) -> VideoCodecContext:
        key = _key(index)
        context = self._contexts.get(key)
        if context is None:
            context = open_decoder(index)
            self._contexts[key] = context
            if len(self._contexts) > _CODECS:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(key)
        return context

    def _reset(self, context: VideoCodecContext, index: PacketIndex, *, clean: bool) -> None:
        """Make the context ready for a run that has nothing to do with the last one; after a failure, forget it."""
        if clean:
            context.flush_buffers()
        else:
            self._contexts.pop(_key(index), None)


def open_decoder(index: PacketIndex) -> VideoCodecContext:
    """A codec context of one thread that outputs every frame, opened as the container says.

    Raises UnsupportedMedia if there is no such decoder.
    """
    check_codec(index.decoder)
    try:
        context = CodecContext.create(index.decoder, "r")
    except av.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise ResourceExhausted(f"decoder {index.decoder!r}: no memory to open it") from None
        raise UnsupportedMedia(f"decoder {index.decoder!r} cannot be opened ({error})") from None
    if not isinstance(context, VideoCodecContext):
        raise UnsupportedMedia(f"decoder {index.decoder!r} is not a video decoder")
    context.extradata = index.extradata or None
    if index.codec_tag.strip("\0"):
        context.codec_tag = index.codec_tag
    if not tells_size(index.decoder):
        context.width, context.height, context.pix_fmt = index.width_px, index.height_px, index.pixel_format
        if index.sample_bits:
            context.bits_per_coded_sample = index.sample_bits
    context.thread_count = 1
    context.options = LENIENT
    return context


def _key(index: PacketIndex) -> _Key:
    if tells_size(index.decoder):
        return index.decoder, index.codec_tag, index.extradata
    return index.decoder, index.codec_tag, index.extradata, index.width_px, index.height_px, index.pixel_format


def _packets(index: PacketIndex, run: Run, payload: Payload) -> Iterator[av.Packet[Any] | None]:
    """The run's packets, each checked before it is given, and then None, which asks the codec for what it holds."""
    for ordinal, flags in zip(run.feed.tolist(), index.flags[run.feed].tolist(), strict=True):
        if flags & DAMAGED:
            raise CorruptMedia(f"{index.where(ordinal)}: it is damaged in its file")
        data = payload(ordinal)
        # Decoders read past the end of damaged packets: what they find there must be zeros and not the next packet.
        padded = memoryview(b"".join((data, _PADDING)))[: len(data)]
        packet: av.Packet[Any] = av.Packet(cast(bytes, padded))  # references the bytes, does not copy them
        packet.pts = ordinal
        yield packet
    yield None
