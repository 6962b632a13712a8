"""Encoding profiles: how chunks are coded, as pure values; knows neither PyAV nor any file.

What a profile costs and buys is measured on the user's own video by `framefeed bench`; the reasons for `train` stand
beside its options. All profiles write 8-bit 4:2:0 into MP4, one thread an encoder, so that the bytes of a chunk depend
on the source and the settings and not on the number of cores of the machine that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from framefeed.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingProfile:
    """One way to code a chunk: `options` are the encoder's own, `gop_frames` the longest distance of keyframes."""

    name: str
    codec: str
    pix_fmt: str
    gop_frames: int
    options: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if self.gop_frames < 1:
            raise BadInput(f"profile {self.name}: gop_frames is {self.gop_frames}, wanted at least 1")


# Random access pays for every packet from the last keyframe to the wanted frame, so:
# - a closed GOP of 30 frames, at fixed distance: a keyframe at a scene cut as well would only add bytes, since the
#   reader starts at the last keyframe either way, and a fixed distance bounds and evens out the cost of a clip;
# - 5 B-frames that nothing refers to (no pyramid), always 5 (b-adapt 0): five of six packets need not be fed unless
#   their frame is wanted. Left to choose, x264 codes shaky scenes without B-frames: 1.3 times the bytes and 1.4 times
#   the decoding time of a fixed pattern on such video, nothing gained on calm video;
# - tune fastdecode (no CABAC, no deblocking, no weighted prediction): 1.2 times the bytes, half the decoding time;
# - preset faster: on four real videos 1.3 to 1.5 times as fast as medium for sizes and PSNR within 8 % and 0.7 dB of it
#   (most often within 4 % and 0.2 dB); veryfast would lose 0.5 to 2.5 dB.
_TRAIN = EncodingProfile(
    name="train",
    codec="libx264",
    pix_fmt="yuv420p",
    gop_frames=30,
    options=(
        ("preset", "faster"),
        ("crf", "23"),
        ("tune", "fastdecode"),
        ("x264-params", "keyint=30:min-keyint=30:scenecut=0:open-gop=0:bframes=5:b-adapt=0:b-pyramid=none:threads=1"),
    ),
)

# ffmpeg's defaults, as AVION's and LaViLa's chunks have them: the smallest files and the slowest random access.
_ARCHIVE = EncodingProfile(
    name="archive",
    codec="libx264",
    pix_fmt="yuv420p",
    gop_frames=250,
    options=(("preset", "medium"), ("crf", "23"), ("x264-params", "keyint=250:threads=1")),
)

PROFILES: Mapping[str, EncodingProfile] = MappingProxyType({"train": _TRAIN, "archive": _ARCHIVE})


def profile_named(name: str) -> EncodingProfile:
    """The profile of that name. Raises BadInput, listing the names there are."""
    if name not in PROFILES:
        raise BadInput(f"unknown profile {name!r}; wanted one of {', '.join(PROFILES)}")
    return PROFILES[name]
