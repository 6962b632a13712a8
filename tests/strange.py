"""Strange files, drawn by Hypothesis: containers, codecs, clocks, edits, joins, pauses, sizes and colours that change.

Each says which numbers a reader has to see, in order, and from when on by a player's clock, less what is named as lost.
It knows how such files come about, and nothing of how they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.barred import Stretch, write_video

# Codec: encoder, the options of one drawn structure each, and the containers that hold it.
_X264 = {"preset": "ultrafast", "x264-params": "bframes=0:keyint=10"}
_CODECS: dict[str, tuple[tuple[dict[str, str], ...], tuple[str, ...]]] = {
    "libx264": (
        (_X264, {"preset": "veryfast", "x264-params": "bframes=3:keyint=12:b-pyramid=normal:b-adapt=0"}),
        ("mp4", "mov", "mkv", "ts", "flv", "avi"),
    ),
    "libx265": (({"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=2"},), ("mp4", "mkv", "ts")),
    "mpeg2video": (({"g": "9", "bf": "0", "qscale": "2"}, {"g": "9", "bf": "2"}), ("ts", "mpg", "mkv", "avi")),
    "mpeg4": (({"g": "12"}, {"g": "12", "bf": "2"}), ("avi", "mp4", "mkv", "ts")),
    "libvpx": (({"deadline": "realtime", "cpu-used": "8", "g": "10", "b": "400k"},), ("webm", "mkv")),
    "mjpeg": (({"q": "3"},), ("avi", "mov", "mkv")),
    "msmpeg4": (({"g": "12"},), ("avi", "wmv")),
    "wmv2": (({"g": "12"},), ("wmv", "avi")),
    "ffv1": (({},), ("mkv", "avi")),
    "huffyuv": (({},), ("avi",)),
}  # fmt: skip
_JOINABLE = ("ts", "mpg")
_SAY_MATRIX = ("libx264", "libx265", "mpeg2video")
_MEMORY_TIMED = ("mkv", "mp4", "mov", "flv", "ts", "webm")


@dataclass(frozen=True, kw_only=True)
class Strange:
    """A file to make: stretches joined end to end (one where the container cannot be joined), stamps of packets that
    are moved, as {packet: seconds}, and which pictures the edit list shows, as (first, behind the last), if not all.
    """

    suffix: str
    stretches: tuple[Stretch, ...]
    moved_s: dict[int, float]
    edit: tuple[int, int] | None = None

    @property
    def numbers(self) -> list[int]:
        """The numbers in the pictures that are shown, in order."""
        numbers = [stretch.first + n for stretch in self.stretches for n in range(stretch.frames)]
        return numbers[slice(*self.edit)] if self.edit else numbers

    @property
    def times_s(self) -> list[float]:
        """When each shows, if the file is read as a player would."""
        times: list[float] = []
        for stretch in self.stretches:
            start_s = times[-1] + 1 / self.stretches[0].rate if times else 0.0
            own = stretch.times_s or [n / stretch.rate for n in range(stretch.frames)]
            times += [start_s + at_s - own[0] for at_s in own]
        return times[slice(*self.edit)] if self.edit else times

    @property
    def lasts_s(self) -> float | None:
        """For how long it shows pictures, where an edit ends before the last of them."""
        if self.edit is None or self.edit[1] == self.stretches[0].frames:
            return None
        first, end = self.edit
        (film,) = self.stretches
        times_s = film.times_s or [n / film.rate for n in range(film.frames)]
        return times_s[end] - times_s[first]


@st.composite
def strange_files(draw: st.DrawFn) -> Strange:
    """One file of 8 to 60 frames."""
    codec = draw(st.sampled_from(sorted(_CODECS)))
    structures, suffixes = _CODECS[codec]
    suffix = draw(st.sampled_from(suffixes))
    parts = draw(st.integers(1, 3)) if suffix in _JOINABLE else 1
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv422p" if codec == "huffyuv" else "yuv420p"
    base = Stretch(codec=codec, options=draw(st.sampled_from(structures)), pix_fmt=pix_fmt, full_range=codec == "mjpeg")
    stretches: list[Stretch] = []
    for part in range(parts):
        frames = draw(st.integers(8, 30))
        stretch = replace(base, first=64 * part, frames=frames)
        if part and draw(st.booleans()):
            changes: list[dict[str, Any]] = [{"size_px": (192, 144)}]
            changes += [{"matrix": 1}] if codec in _SAY_MATRIX else []
            change = draw(st.sampled_from(changes))
            stretch = replace(stretch, **change)
        if suffix in _MEMORY_TIMED and codec != "mpeg2video" and draw(st.booleans()):
            stretch = replace(stretch, times_s=_times(draw, frames), time_base=Fraction(1, 1000))
        stretches.append(stretch)
    moved: dict[int, float] = {}
    if suffix == "flv" and stretches[0].times_s is None and draw(st.booleans()):
        at = draw(st.integers(1, stretches[0].frames - 2))
        moved[at] = draw(st.sampled_from([5.0, 3600.0, 37_600.0]))
    edit = None
    if suffix in ("mp4", "mov") and draw(st.booleans()):
        first = draw(st.integers(0, stretches[0].frames - 1))
        edit = (first, draw(st.integers(first + 1, stretches[0].frames)))
    return Strange(suffix=suffix, stretches=tuple(stretches), moved_s=moved, edit=edit)


def _times(draw: st.DrawFn, frames: int) -> Sequence[float]:
    steps = draw(st.lists(st.sampled_from([40, 40, 40, 20, 120, 900, 20_000]), min_size=frames, max_size=frames))
    at, times = 0, []
    for step in steps:
        times.append(at / 1000)
        at += step
    return times


def make_strange(folder: Path, strange: Strange) -> Path:
    """Write the file."""
    parts = [write_video(folder / f"part{n}.{strange.suffix}", stretch) for n, stretch in enumerate(strange.stretches)]
    target = folder / f"v.{strange.suffix}"
    if strange.moved_s:
        _moved(parts[0], target, strange.moved_s)
    else:
        target.write_bytes(b"".join(part.read_bytes() for part in parts))
    if strange.edit:
        _edited(target, strange.stretches[0], *strange.edit)
    return target


def _edited(path: Path, stretch: Stretch, first: int, end: int) -> None:
    """Make the one edit of an MP4 or MOV file show some of its pictures."""
    mp4 = bytearray(path.read_bytes())
    times_s = [*(stretch.times_s or [n / stretch.rate for n in range(stretch.frames)])]
    elst, mdhd, mvhd = (mp4.index(name) for name in (b"elst", b"mdhd", b"mvhd"))
    media_hz, movie_hz = (int.from_bytes(mp4[at + 16 : at + 20], "big") for at in (mdhd, mvhd))
    begins, lasts = (int.from_bytes(mp4[elst + at : elst + at + 4], "big") for at in (16, 12))
    begins += round(times_s[first] * media_hz)
    if end < stretch.frames:
        lasts = round((times_s[end] - times_s[first]) * movie_hz)
    else:
        lasts -= round(times_s[first] * movie_hz)
    mp4[elst + 12 : elst + 20] = lasts.to_bytes(4, "big") + begins.to_bytes(4, "big")
    path.write_bytes(mp4)


def _moved(source: Path, target: Path, moved_s: dict[int, float]) -> None:
    """A copy of an FLV file of which the stamps of some pictures are later than they are."""
    flv = bytearray(source.read_bytes())
    at, number = 13, 0
    while at + 11 <= len(flv):
        size = int.from_bytes(flv[at + 1 : at + 4], "big")
        if flv[at] == 9 and flv[at + 12] == 1:  # a tag of video that holds a picture, not a header
            stamp = int.from_bytes(bytes([flv[at + 7], *flv[at + 4 : at + 7]]), "big")
            later = (stamp + round(1000 * moved_s.get(number, 0))).to_bytes(4, "big")
            flv[at + 4 : at + 8] = later[1:] + later[:1]
            number += 1
        at += 11 + size + 4
    target.write_bytes(flv)
