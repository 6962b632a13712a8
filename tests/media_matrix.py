"""The codecs, GOP structures and containers that exactness and damage are tested on: encoded once, then remuxed.

It makes files; it tests nothing. Everything is encoded by the libraries inside PyAV, so no other program is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from tests.videos import make_numbered_video

_X264 = {"preset": "veryfast"}
_X265 = {"preset": "ultrafast"}
_VPX = {"deadline": "good", "cpu-used": "5", "b": "200k"}
_VP9_LAYERS = {
    "ts-parameters": "ts_number_layers=3:ts_target_bitrate=50,100,200:ts_rate_decimator=4,2,1:ts_periodicity=4"
    ":ts_layer_id=0,2,1,2:ts_layering_mode=3"
}
_SVT = {"preset": "10", "crf": "40"}


def _x264(params: str, **options: str) -> Mapping[str, Any]:
    return {"options": {**_X264, **options, "x264-params": params}}


def _x265(params: str) -> Mapping[str, Any]:
    return {"codec": "libx265", "options": {**_X265, "x265-params": f"log-level=none:{params}"}}


# Name of the structure: how to encode it, and the containers to put it in, the first of which it is encoded into.
MATRIX: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "x264_default": ({}, ("mp4", "mov", "mkv", "avi", "ts", "m2ts", "flv")),
    "x264_no_pyramid": (_x264("keyint=30:bframes=3:b-pyramid=none"), ("mp4", "mkv", "ts")),
    "x264_pyramid": (_x264("keyint=250:bframes=6:b-adapt=0:b-pyramid=normal:ref=4"), ("mp4", "avi", "ts")),
    "x264_open_gop": (_x264("keyint=24:min-keyint=24:open-gop=1:bframes=4:b-pyramid=none:ref=4"), ("mp4", "mkv", "ts")),
    "x264_open_pyramid": (_x264("keyint=24:open-gop=1:bframes=5:b-adapt=0:ref=5"), ("mp4", "m2ts")),
    "x264_intra_refresh": (_x264("keyint=30:intra-refresh=1"), ("mkv", "ts")),
    "x264_tff": (_x264("keyint=40:tff=1:bframes=2"), ("mp4", "m2ts")),
    "x264_repeat_headers": (_x264("keyint=30:repeat-headers=1"), ("mp4", "mkv")),
    "x264_slices": (_x264("keyint=30:slices=4:bframes=2", tune="zerolatency"), ("mov", "ts")),
    "x264_ten_bit": ({"options": _X264, "pix_fmt": "yuv420p10le"}, ("mp4", "ts")),
    "x264_odd_444": ({"options": _X264, "pix_fmt": "yuv444p", "width_px": 175, "height_px": 143}, ("mp4",)),
    "x265_open": (_x265("keyint=24:bframes=4:open-gop=1"), ("mp4", "mkv", "ts")),
    "x265_closed": (_x265("keyint=24:bframes=4:open-gop=0"), ("mov", "ts")),
    "x265_layers": (_x265("keyint=30:bframes=3:temporal-layers=3:b-adapt=0"), ("mp4", "mkv")),
    "svt_av1": ({"codec": "libsvtav1", "options": {**_SVT, "g": "60"}}, ("mp4", "mkv", "webm")),
    "svt_av1_low_delay": ({"codec": "libsvtav1", "options": {**_SVT, "svtav1-params": "pred-struct=1"}}, ("mkv",)),
    "vp9": (
        {"codec": "libvpx-vp9", "options": {**_VPX, "lag-in-frames": "16", "g": "50"}},
        ("webm", "mp4", "mkv"),
    ),
    "vp9_layers": (
        {"codec": "libvpx-vp9", "options": {**_VPX, "deadline": "realtime", "error-resilient": "1", **_VP9_LAYERS}},
        ("webm", "mp4"),
    ),
    "vp8": (
        {"codec": "libvpx", "options": {**_VPX, "lag-in-frames": "16", "g": "50"}},
        ("webm", "mkv"),
    ),
    "mpeg4": ({"codec": "mpeg4", "options": {"g": "12"}}, ("avi", "mp4", "mkv")),
    "mpeg4_b": ({"codec": "mpeg4", "options": {"g": "24", "bf": "2"}}, ("avi", "mp4", "mkv", "ts")),
    "mpeg2": ({"codec": "mpeg2video", "options": {"g": "15", "bf": "2"}}, ("ts", "mkv", "mp4", "avi", "mpg")),
    "mjpeg": ({"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {"q": "5"}}, ("avi", "mov", "mkv")),
}  # fmt: skip
SAMPLE = ("x264_default.mp4", "x264_pyramid.ts", "x265_open.mkv", "svt_av1.mp4", "vp9.webm", "vp8.webm",
          "mpeg4_b.avi", "mpeg2.ts", "mjpeg.mov")  # fmt: skip


def all_files() -> list[str]:
    """Every file of the matrix, STRUCTURE.CONTAINER."""
    return [f"{name}.{suffix}" for name, (_, suffixes) in MATRIX.items() for suffix in suffixes]


def make_file(folder: Path, name: str, *, frames: int) -> Path:
    """Make one file of the matrix, encoding its structure unless an earlier call has; returns its path."""
    structure, suffix = name.split(".")
    fields, suffixes = MATRIX[structure]
    encoded = folder / "encoded" / f"{structure}.{suffixes[0]}"
    if not encoded.exists():
        make_numbered_video(encoded, **{"frames": frames, "width_px": 176, "height_px": 144, **fields})
    target = folder / "media" / name
    target.parent.mkdir(exist_ok=True)
    if suffix == suffixes[0]:
        target.write_bytes(encoded.read_bytes())
    elif fields.get("codec") == "libsvtav1":  # PyAV has no template of a stream whose encoder is not its decoder
        make_numbered_video(target, **{"frames": frames, "width_px": 176, "height_px": 144, **fields})
    else:
        remux(encoded, target)
    return target


def remux(source: Path, target: Path) -> None:
    """Copy the video packets of one file into another container."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        template = reader.streams.video[0]
        stream = writer.add_stream_from_template(template)
        annex_b = None
        if template.codec_context.name == "h264" and target.suffix == ".avi":
            annex_b = av.BitStreamFilterContext("h264_mp4toannexb", template, stream)
        for packet in reader.demux(template):
            for copy in annex_b.filter(packet) if annex_b else [packet]:
                if copy.size:
                    copy.stream = stream
                    writer.mux(copy)
