"""The one choice of a video stream among a file's, made alike by every verb, and the file opened at it.

A film goes before attached pictures, thumbnails and stills; then the one that the container calls its default, then
the largest, then the first. It demuxes only where there are several to tell a still by its one packet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av.error import FFmpegError
from av.stream import Disposition

from decode_server.media.container import check_codec, open_container
from framefeed.errors import UnsupportedMedia

_PICTURES = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVideo:
    """A demuxer at a file's beginning, and the stream of it that is used; `note` says so where there was a choice."""

    container: Any
    stream: Any
    note: str = ""

    def again(self, path: Path, **options: str) -> Any:
        """The same stream of the file opened once more, as a context manager like `open_video`; `options` are the
        demuxer's own.
        """
        return _opened(path, self.stream.index, **options)


def open_video(path: Path) -> Any:
    """Open a file at the video stream to use; `with` closes it. Blocks while the head is read, and with several video
    streams while the whole file is.

    Raises what open_container raises, and UnsupportedMedia without a video stream that a decoder here reads.
    """
    return _opened(path, None)


@contextmanager
def _opened(path: Path, known: int | None, **options: str) -> Iterator[OpenVideo]:
    with open_container(path, **options) as container:
        chosen, note = known, ""
        if known is None:
            films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            if not films:
                raise UnsupportedMedia("has no video stream")
            chosen = films[0].index
            if len(films) > 1:
                chosen, note = _best(path, films)
        stream = next(s for s in container.streams.video if s.index == chosen)
        if not _decodable(stream):
            raise UnsupportedMedia("has a video stream that no decoder here reads")
        check_codec(stream.codec_context.name)
        yield OpenVideo(container=container, stream=stream, note=note)


def _best(path: Path, films: list[Any]) -> tuple[int, str]:
    packets = dict.fromkeys((s.index for s in films), 0)
    with open_container(path) as counted:
        try:
            for packet in counted.demux([s for s in counted.streams.video if s.index in packets]):
                packets[packet.stream_index] += bool(packet.size)
        except FFmpegError:
            pass  # what comes before the damage tells enough

    def rank(stream: Any) -> tuple[bool, bool, bool, int, int]:
        film = packets[stream.index] > 1 and not stream.disposition & _PICTURES
        default = bool(stream.disposition & Disposition.default)
        width_px, height_px = _size_px(stream)
        return _decodable(stream), film, default, width_px * height_px, -stream.index

    best = max(films, key=rank)
    others = ", ".join(f"{s.index} ({_what(s, packets[s.index])})" for s in films if s is not best)
    return best.index, f"its video stream {best.index} ({_what(best, packets[best.index])}) is used, and not {others}"


def _what(stream: Any, packets: int) -> str:
    codec = stream.codec_context.name if _decodable(stream) else "no decoder"
    width_px, height_px = _size_px(stream)
    return f"{codec} {width_px}x{height_px}, {packets} packets"


def _size_px(stream: Any) -> tuple[int, int]:
    """Width and height, 0 of a stream that no decoder reads."""
    return (stream.width, stream.height) if _decodable(stream) else (0, 0)


def _decodable(stream: Any) -> bool:
    try:
        return bool(stream.codec_context.codec.name) and bool(stream.time_base)
    except (FFmpegError, AttributeError, RuntimeError):
        return False
