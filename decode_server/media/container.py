"""Opens media files for FFmpeg, and lets it see those only: regular files, whole formats and known codecs.

A file is what a stranger left on a share. Its name may read like a URL, its bytes may name other files and other hosts
(concat lists, playlists, descriptions of streams), and a link may change between a look and the opening. So the file
is opened here and FFmpeg gets the descriptor, by the protocol `file` and no other, for formats that hold all their
bytes themselves. It knows no streams and no packets.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import av
from av.container import InputContainer

from framefeed.errors import UnsupportedMedia
from framefeed.regular_file import open_regular
from framefeed.show_value import show_value

FORMATS = (
    "asf", "avi", "av1", "dv", "flv", "gxf", "h264", "hevc", "ivf", "live_flv", "m4v", "matroska", "mjpeg", "mov",
    "mp4", "mpeg", "mpegts", "mpegvideo", "mxf", "nsv", "nut", "nuv", "obu", "ogg", "rm", "vc1", "webm", "wtv",
    "yuv4mpegpipe",
)  # fmt: skip
"""Names of FFmpeg's demuxers that read one file and open no other."""

CODECS = frozenset((
    "amv", "av1", "cavs", "cfhd", "cinepak", "dnxhd", "dvvideo", "ffv1", "ffvhuff", "flv", "fraps", "h261", "h263",
    "h263i", "h263p", "h264", "hevc", "huffyuv", "indeo3", "indeo4", "indeo5", "jpeg2000", "jpegls", "lagarith",
    "libdav1d", "libvpx", "libvpx-vp9", "magicyuv", "mjpeg", "mjpegb", "mpeg1video", "mpeg2video", "mpeg4", "mpegvideo",
    "msmpeg4", "msmpeg4v1", "msmpeg4v2", "msrle", "msvideo1", "png", "prores", "qtrle", "rawvideo", "rv10", "rv20",
    "rv30", "rv40", "sheervideo", "snow", "svq1", "svq3", "theora", "camtasia", "tscc2", "utvideo", "v210", "v308",
    "v408", "v410", "vc1", "vc1image", "vp3", "vp4", "vp5", "vp6", "vp6a", "vp6f", "vp7", "vp8", "vp9", "vvc", "wmv1",
    "wmv2", "wmv3", "wmv3image", "y41p", "yuv4", "zlib", "zmbv",
))  # fmt: skip
"""Names of FFmpeg's video decoders that are used: those of cameras, recorders, editors and the web."""

_PICTURES = {b"GIF8": "GIF", b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"(?s)RIFF....WEBP": "WebP"}
"""How files begin that show as pictures in a browser and are no videos here, as regular expressions."""

_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}


def open_container(path: Path, **options: str) -> InputContainer:
    """FFmpeg's demuxer over a media file; `with` closes it. Blocks while the head of the file is read. `options` are
    the demuxer's.

    Raises OSError as open_regular does, av.FFmpegError where FFmpeg cannot read it, UnsupportedMedia, naming the
    format, for one that is not among FORMATS.
    """
    descriptor = open_regular(path)
    try:
        return av.open(f"file:/proc/self/fd/{descriptor}", options={**options, **_OPTIONS}, metadata_errors="replace")
    except (av.InvalidDataError, av.ArgumentError):  # the latter: not on the list of formats
        _name_format(descriptor)
        raise
    finally:
        os.close(descriptor)  # FFmpeg has one of its own


def check_codec(decoder: str) -> None:
    """Raises UnsupportedMedia for the name of a decoder that is not among CODECS."""
    if decoder not in CODECS:
        raise UnsupportedMedia(
            f"its codec is {show_value(decoder)}, which is not one of the {len(CODECS)} that are served"
        )


def _name_format(descriptor: int) -> None:
    """Raises UnsupportedMedia if the beginning of the file is that of a format that opens others, or of a picture."""
    head = os.pread(descriptor, 512, 0)
    picture = next((name for mark, name in _PICTURES.items() if re.match(mark, head)), "")
    if picture:
        raise UnsupportedMedia(f"is a {picture} picture, wanted a video; animated ones can be converted to one")
    for mark, name in (
        (b"ffconcat version", "a concat list"),
        (b"#EXTM3U", "a playlist"),
        (b"<MPD", "a DASH manifest"),
    ):
        if mark in head:
            raise UnsupportedMedia(f"is {name}, which names other files; wanted a file that holds its own frames")
