"""Encoding profiles: how chunks are coded, as pure values; knows neither PyAV nor any file.

`framefeed chunk --advise` measures what each costs and buys on the user's own videos; the reasons for the numbers stand
beside them. All profiles write 8-bit 4:2:0 into MP4, one thread an encoder, so that the bytes of a chunk depend on the
source and the settings and not on the number of cores of the machine that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from framefeed.errors import BadInput
from framefeed.nearest_name import nearest_name
from framefeed.show_value import show_value

Options = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingProfile:
    """One way to code a chunk. `gop_frames` is the longest distance of key frames and `b_frames` the fixed number of
    B-frames that nothing refers to between two references (None leaves both kinds to the encoder); `options` are
    FFmpeg's (preset, crf, tune), `params` the encoder's own by its own names. With `match_archive`, crf is where the
    search begins for the one that gives each source the PSNR it has as `archive`.
    """

    name: str
    codec: str
    pix_fmt: str = "yuv420p"
    gop_frames: int
    b_frames: int | None = None
    options: Options = ()
    params: Options = ()
    match_archive: bool = False

    def __post_init__(self) -> None:
        if self.gop_frames < 1:
            raise BadInput(f"profile {self.name}: gop_frames is {self.gop_frames}, wanted at least 1")
        if self.codec not in _ENCODERS:
            raise BadInput(f"profile {self.name}: encoder {show_value(self.codec)} is none of {', '.join(_ENCODERS)}")

    @property
    def crf(self) -> float:
        """The constant rate factor among the options. Raises KeyError where the rate is set in another way."""
        return float(dict(self.options)["crf"])

    def at_crf(self, crf: float) -> EncodingProfile:
        """The same profile at another constant rate factor."""
        return replace(self, options=tuple((dict(self.options) | {"crf": f"{crf:g}"}).items()))

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


_X265_B_FRAMES = 8


def _x265_structure(gop_frames: int, b_frames: int | None) -> dict[str, str]:
    """As x264's, with no more B-frames than its fastest presets look ahead."""
    structure = _x264_structure(gop_frames, b_frames and min(b_frames, _X265_B_FRAMES))
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

# Measured on four videos of 10 to 30 s (one synthetic of 512x288, three real ones of 240 and 256 lines), each coded to
# the PSNR that `archive` gives it: bytes over archive's, synthetic and mean of the real ones / CPU ms of a YUV clip of
# 4 frames of 1 s, and of 16 frames 4 apart, by the engine.
#   archive                                      1.00  1.00 / 25.9 / 39.7
#   5 B-frames, GOP 60, preset medium            1.30  1.38 /  4.8 / 10.9
#   7 B-frames, GOP 33, preset medium            1.48  1.59 /  4.2 / 10.1
#   train: 7 B-frames, GOP 41, preset slow       1.33  1.58 /  4.2 / 10.1
#   as train, deblocked                          1.17  1.39 /  4.8 / 11.2
#   as train, 15 B-frames, GOP 49                1.79  (synthetic only)
# The real ones are so short that archive has a single key frame in each; that alone is a fifth of the bytes.
# Random access pays for every packet from the last key frame to the wanted frame, so:
# - a closed GOP at fixed distance: a key frame at a scene cut as well would only add bytes, since the reader starts at
#   the last key frame either way, and a fixed distance bounds and evens out the cost of a clip. Its length is a whole
#   number of B-frame groups and one more, so that no group is cut short;
# - 7 B-frames that nothing refers to (no pyramid), always 7 (b-adapt 0): seven of eight packets need not be fed unless
#   their frame is wanted. Left to choose, x264 codes shaky scenes without B-frames, and twice the packets must be fed;
# - tune fastdecode: no CABAC (10 % of the bytes, but 1.45 times the decoding time), no deblocking (1.15 times), no
#   weighted prediction;
# - psy 0, aq-mode 0: both spend bits on what looks sharp to people; without them 7 % more bytes buy 1.2 dB;
# - bits are half of the decoding time (5 ns each beside 0.11 ms a frame of 512x288), so preset slow, which saves 5 % of
#   them for 1.6 times the encoding time, once. Fewer references and other rate control change less than 3 %.
_PLAIN = (("psy", "0"), ("aq-mode", "0"))
_TRAIN = EncodingProfile(
    name="train",
    codec="libx264",
    gop_frames=41,
    b_frames=7,
    options=(("preset", "slow"), ("crf", "22"), ("tune", "fastdecode")),
    params=_PLAIN,
    match_archive=True,
)

# Half way: as small as archive at its PSNR, with disposable B-frames and a key frame every 61 frames.
_BALANCED = EncodingProfile(
    name="balanced",
    codec="libx264",
    gop_frames=61,
    b_frames=3,
    options=(("preset", "medium"), ("crf", "23.5")),
    params=_PLAIN,
    match_archive=True,
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
        raise BadInput(f"--profile is {show_value(name)}, wanted one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    if encoder and encoder != profile.codec:
        profile = _with_encoder(profile, encoder)
    return _with_options(profile, _parse_options(options)) if options else profile


def _with_encoder(profile: EncodingProfile, encoder: str) -> EncodingProfile:
    if encoder not in _ENCODERS:
        near = nearest_name(encoder, _ENCODERS)
        hint = f"did you mean {near}?" if near else f"wanted one of {', '.join(_ENCODERS)}"
        raise BadInput(f"--encoder is {show_value(encoder)}, which is unknown; {hint}")
    usual = tuple((name, value) for name, value in _ENCODERS[encoder].outer.items() if value)
    tune = tuple(pair for pair in profile.options if pair[0] == "tune" and "tune" in _ENCODERS[encoder].outer)
    name = f"{profile.name} by {encoder}"
    return replace(profile, name=name, codec=encoder, options=usual + tune, params=(), match_archive=False)


def _parse_options(options: str) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for item in options.split(":"):
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise BadInput(
                f"--encoder-options: {show_value(item)} is not name=value; wanted such as preset=fast:crf=28"
            )
        if name in parsed:
            raise BadInput(f"--encoder-options: {name} is given twice, as {parsed[name]} and as {value}")
        if name in _RESERVED:
            raise BadInput(
                f"--encoder-options: {name} is set by the chunker, so that every machine writes the same bytes"
            )
        parsed[name] = value
    for names in (_RATES, _GOP_NAMES):
        given = [name for name in names if name in parsed]
        if len(given) > 1:
            raise BadInput(f"--encoder-options: {' and '.join(given)} contradict each other; wanted one of them")
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
                raise BadInput(f"--encoder-options: {name} is {show_value(value)}, wanted a number of frames from 1 on")
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
        match_archive=profile.match_archive and not any(name in given for name in _RATES),
    )
