"""Encoding profiles: how chunks are coded, as pure values; knows neither PyAV nor any file.

`framefeed chunk --advise` measures what each costs and buys on the user's own videos; the reasons for the numbers stand
beside them. All profiles write 8-bit 4:2:0 into MP4, one thread an encoder, so that the bytes of a chunk depend on the
source and the settings and not on the number of cores of the machine that made it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from framefeed.errors import BadInput

Options = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingProfile:
    """One way to code a chunk. `gop_frames` is the longest distance of key frames and `b_frames` the fixed number of
    B-frames that nothing refers to between two references (None leaves both kinds to the encoder); `options` are
    FFmpeg's (preset, crf, tune), `params` the encoder's own by its own names.
    """

    name: str
    codec: str
    pix_fmt: str = "yuv420p"
    gop_frames: int
    b_frames: int | None = None
    options: Options = ()
    params: Options = ()

    def __post_init__(self) -> None:
        if self.gop_frames < 1:
            raise BadInput(f"profile {self.name}: gop_frames is {self.gop_frames}, wanted at least 1")
        if self.codec not in _ENCODERS:
            raise BadInput(f"profile {self.name}: encoder {self.codec!r} is none of {', '.join(_ENCODERS)}")

    @property
    def encoder_options(self) -> dict[str, str]:
        """What FFmpeg is told: `options`, and under the encoder's own name its GOP structure and `params`."""
        encoder = _ENCODERS[self.codec]
        own = encoder.structure(self.gop_frames, self.b_frames) | dict(self.params) | encoder.one_thread
        return dict(self.options) | {encoder.params_name: ":".join(f"{name}={value}" for name, value in own.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoder:
    """What differs between encoders. `outer` are the options that FFmpeg takes in its own name."""

    params_name: str
    outer: Mapping[str, str]
    one_thread: dict[str, str]
    structure: Callable[[int, int | None], dict[str, str]]


def _x264_structure(gop_frames: int, b_frames: int | None) -> dict[str, str]:
    if b_frames is None:
        return {"keyint": str(gop_frames)}
    fixed = {"keyint": str(gop_frames), "min-keyint": str(gop_frames), "scenecut": "0", "open-gop": "0"}
    return fixed | {"bframes": str(b_frames), "b-adapt": "0", "b-pyramid": "none"}


def _x265_structure(gop_frames: int, b_frames: int | None) -> dict[str, str]:
    structure = _x264_structure(gop_frames, b_frames)
    return structure | {"b-pyramid": "0"} if "b-pyramid" in structure else structure | {"open-gop": "0"}


def _svt_structure(gop_frames: int, b_frames: int | None) -> dict[str, str]:
    """AV1 packets are not skipped, so its own pyramid of references stays; only key frames keep their distance."""
    structure = {"keyint": str(gop_frames)}
    return structure if b_frames is None else structure | {"scd": "0", "fast-decode": "1"}


_ENCODERS: Mapping[str, _Encoder] = {
    "libx264": _Encoder(
        params_name="x264-params",
        outer={"preset": "medium", "tune": "", "crf": "23", "qp": ""},
        one_thread={"threads": "1"},
        structure=_x264_structure,
    ),
    "libx265": _Encoder(
        params_name="x265-params",
        outer={"preset": "medium", "tune": "", "crf": "28", "qp": ""},
        one_thread={"pools": "none", "frame-threads": "1", "log-level": "error"},
        structure=_x265_structure,
    ),
    "libsvtav1": _Encoder(
        params_name="svtav1-params",
        outer={"preset": "8", "crf": "35", "qp": ""},
        one_thread={"lp": "1"},
        structure=_svt_structure,
    ),
}

# Measured on seven videos (two synthetic of 512x288, five real ones of 180 to 256 lines) against `archive` of the same
# source: bytes / luma and chroma PSNR / CPU ms of a clip of 4 frames of 1 s by the engine, means over the videos.
#   archive                                     1.00 / +0.0 dB / 19.4
#   train: 5 B-frames, GOP 60                   1.33 / -0.1 dB / 4.3     synthetic alone 1.19 / +0.5, real 1.39 / -0.3
#   as train, GOP 30                            1.44 / -0.1 dB / 3.9     as train, 7 B-frames   1.34 / -0.3 dB / 4.4
#   as train, 3 B-frames, crf 23.5              1.24 / -0.2 dB / 4.9     the same, 5, deblocked 1.22 / -0.2 dB / 5.0
#   as train, GOP 30, psy and aq on, faster     1.29 / -1.7 dB / 3.6     as train, no mbtree    1.63 / +0.2 dB / 4.3
#   balanced                                    1.05 / -0.1 dB / 9.0
#   intra                                       7.42 / +0.0 dB / 2.5
# The synthetic videos of that table were full of fine texture; on calm ones train is at 0.94-0.98 / -0.6 dB and
# balanced at 0.73 / -0.4 dB.
# And for 16 frames, 4 apart: archive 32, train 9.4, as train with GOP 30 8.7, balanced 18.6, intra 9.1 ms.
# Random access pays for every packet from the last key frame to the wanted frame, so:
# - a closed GOP at fixed distance: a key frame at a scene cut as well would only add bytes, since the reader starts at
#   the last key frame either way, and a fixed distance bounds and evens out the cost of a clip;
# - 5 B-frames that nothing refers to (no pyramid), always 5 (b-adapt 0): five of six packets need not be fed unless
#   their frame is wanted, so a GOP of 60 feeds hardly more packets than one of 30 (12.6, 10.4). Left to choose, x264
#   codes shaky scenes without B-frames, and twice the packets must be fed;
# - tune fastdecode: no CABAC (10 % of the bytes, but 1.45 times the decoding time), no deblocking (1.15 times), no
#   weighted prediction;
# - psy 0, aq-mode 0: both spend bits on what looks sharp to people; without them 7 % more bytes buy 1.2 dB.
# Fewer partitions, fewer references and slower presets change decoding by less than can be measured (3 %); preset slow
# saves 3 % of the bytes for twice the encoding time.
_PLAIN = (("psy", "0"), ("aq-mode", "0"))
_TRAIN = EncodingProfile(
    name="train",
    codec="libx264",
    gop_frames=60,
    b_frames=5,
    options=(("preset", "medium"), ("crf", "23"), ("tune", "fastdecode")),
    params=_PLAIN,
)

# Half way: nearly as small as archive at its PSNR, with disposable B-frames and a key frame every 60 frames.
_BALANCED = EncodingProfile(
    name="balanced",
    codec="libx264",
    gop_frames=60,
    b_frames=3,
    options=(("preset", "medium"), ("crf", "24")),
    params=_PLAIN,
)

# Every frame by itself, at archive's PSNR: one packet a frame wherever it lies, at seven times the bytes.
_INTRA = EncodingProfile(
    name="intra",
    codec="libx264",
    gop_frames=1,
    options=(("preset", "medium"), ("crf", "17"), ("tune", "fastdecode")),
    params=_PLAIN,
)

# ffmpeg's defaults, as AVION's and LaViLa's chunks have them: the smallest files and the slowest random access.
_ARCHIVE = EncodingProfile(
    name="archive", codec="libx264", gop_frames=250, options=(("preset", "medium"), ("crf", "23"))
)

PROFILES: Mapping[str, EncodingProfile] = MappingProxyType(
    {profile.name: profile for profile in (_ARCHIVE, _BALANCED, _TRAIN, _INTRA)}
)

_RATES = ("crf", "qp", "bitrate")
_GOP_NAMES = ("keyint", "g")
# What would make a chunk's bytes depend on the machine or on a second pass, or contradict the container.
_RESERVED = frozenset(
    {"threads", "lookahead-threads", "sliced-threads", "pools", "frame-threads", "lp", "pin", "pass", "passes", "stats"}
)


def profile_named(name: str, *, encoder: str | None = None, options: str = "") -> EncodingProfile:
    """The profile of that name, with another encoder or other encoder options ("preset=fast:crf=28:ref=1") if given.

    preset, tune, crf, qp and keyint (or g) go to FFmpeg, every other option to the encoder by the encoder's own name;
    `bitrate` is in kb/s. With another encoder the profile keeps its GOP structure and takes that encoder's usual
    preset and crf. Whether the encoder takes the options is `encoder_trial`'s to find out.

    Raises:
        BadInput: an unknown profile or encoder, listing those there are; options that do not parse, contradict each
            other or are not the user's to set.
    """
    if name not in PROFILES:
        raise BadInput(f"unknown profile {name!r}; wanted one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    if encoder and encoder != profile.codec:
        profile = _with_encoder(profile, encoder)
    return _with_options(profile, _parse_options(options)) if options else profile


def _with_encoder(profile: EncodingProfile, encoder: str) -> EncodingProfile:
    if encoder not in _ENCODERS:
        near = difflib.get_close_matches(encoder, _ENCODERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"wanted one of {', '.join(_ENCODERS)}"
        raise BadInput(f"unknown encoder {encoder!r}; {hint}")
    usual = tuple((name, value) for name, value in _ENCODERS[encoder].outer.items() if value)
    tune = tuple(pair for pair in profile.options if pair[0] == "tune" and "tune" in _ENCODERS[encoder].outer)
    return replace(profile, name=f"{profile.name} by {encoder}", codec=encoder, options=usual + tune, params=())


def _parse_options(options: str) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for item in options.split(":"):
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise BadInput(f"encoder options: {item!r} is not name=value; wanted such as preset=fast:crf=28")
        if name in parsed:
            raise BadInput(f"encoder options: {name} is given twice, as {parsed[name]} and as {value}")
        if name in _RESERVED:
            raise BadInput(
                f"encoder options: {name} is set by the chunker, so that every machine writes the same bytes"
            )
        parsed[name] = value
    for names in (_RATES, _GOP_NAMES):
        given = [name for name in names if name in parsed]
        if len(given) > 1:
            raise BadInput(f"encoder options: {' and '.join(given)} contradict each other; wanted one of them")
    return parsed


def _with_options(profile: EncodingProfile, given: dict[str, str]) -> EncodingProfile:
    outer = _ENCODERS[profile.codec].outer
    options, params = dict(profile.options), dict(profile.params)
    gop_frames = profile.gop_frames
    if any(name in given for name in _RATES):
        for name in _RATES:
            options.pop(name, None)
    for name, value in given.items():
        if name in _GOP_NAMES:
            if not value.isdecimal() or int(value) < 1:
                raise BadInput(f"encoder options: {name} is {value!r}, wanted a number of frames from 1 on")
            gop_frames = int(value)
        elif name in outer:
            options[name] = value
        else:
            params[name] = value
    return replace(
        profile,
        name=f"custom {profile.name}",
        gop_frames=gop_frames,
        options=tuple(options.items()),
        params=tuple(params.items()),
    )
