"""The packet index of one media file: where each packet lies, when its frame shows, and what depends on it.

A value and its spelling on disk (one msgpack map); it opens no media and knows no requests.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from decode_server.media.sample_grid import SampleGrid
from framefeed.clip import Colour, Transfer
from framefeed.errors import CorruptMedia
from framefeed.manifest import MAX_RECORD_BYTES
from framefeed.ranges import MAX_BYTES, MAX_NAME, MAX_SECONDS, check_range, check_text

KEY = 1  # decoding may begin here
DISPOSABLE = 2  # no other packet's frame depends on this one's
HIDDEN = 4  # fed when others depend on it, but its frame is not shown (edit lists)
DAMAGED = 8  # its container or a check says that it is not whole: whatever depends on it is refused

_DIGEST_BYTES = 8
_FLAGS = KEY | DISPOSABLE | HIDDEN | DAMAGED
_MAX_PACKETS = 1 << 24
_MAX_PACKET_BYTES = 1 << 28  # an uncompressed picture of 8192 x 8192
_MAX_SIDE_PX = 1 << 16
_MAX_EXTRADATA_BYTES = 1 << 24
_MAX_TICKS = 1 << 62
_MAX_SAR = 256  # width : height of a sample or the other way round; what `index` takes is within 8
_ARRAYS = {"offset": "<i8", "size": "<u4", "pts": "<i8", "flags": "<u1", "crc32": "<u4"}


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """Packets in decode order: arrays (packets,) of byte offset and size in the file, presentation time `pts` in units
    of `time_base_s`, flags (KEY, DISPOSABLE, HIDDEN) and CRC-32 of the bytes. `origin_pts` shows at time 0 of the
    file. The bytes lie in the media file `path`, or in `sidecar` of the index folder where that is not empty. `stream`
    is the number of the stream among the container's. `sar` is width : height of a coded sample; stretched to square
    pixels, the coded frame turned counter-clockwise by `rotation_deg` and then `mirrored` is the displayed one. When
    `checked`, all frames have been decoded, and packets that do not decode to a whole one are DAMAGED. `colour` is that
    of most frames; where it changes on the way `colours` are the packets from which on it is which. `sample_bits` of a
    coded sample are what some codecs are opened with, 0 where the container says nothing. `transfer` names that of HDR.
    """

    path: str
    sidecar: str
    stream: int
    media_bytes: int
    mtime_ns: int
    decoder: str
    codec_tag: str
    extradata: bytes
    width_px: int
    height_px: int
    pixel_format: str
    sar: tuple[int, int]
    rotation_deg: int
    mirrored: bool
    checked: bool
    colour: Colour
    time_base_s: tuple[int, int]
    origin_pts: int
    duration_s: float
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.uint32]
    pts: npt.NDArray[np.int64]
    flags: npt.NDArray[np.uint8]
    crc32: npt.NDArray[np.uint32]
    colours: tuple[tuple[int, Colour], ...] = ()
    sample_bits: int = 0
    transfer: Transfer = ""

    def colour_of(self, ordinal: int) -> Colour:
        """How the frame of a packet spells colour."""
        return next((colour for first, colour in reversed(self.colours) if first <= ordinal), self.colour)

    @cached_property
    def clip_colour(self) -> Colour:
        """What a clip's colour is: that of most frames, and the file's transfer."""
        return replace(self.colour, transfer=self.transfer)

    @cached_property
    def shown(self) -> npt.NDArray[np.int64]:
        """Packet ordinals, int64 (frames,), in the order their frames show."""
        visible = np.flatnonzero((self.flags & HIDDEN) == 0)
        return visible[np.argsort(self.pts[visible], kind="stable")]

    @cached_property
    def times_s(self) -> npt.NDArray[np.float64]:
        """When each frame of `shown` shows, float64 (frames,), seconds from the file's time 0."""
        numerator, denominator = self.time_base_s
        return (self.pts[self.shown] - self.origin_pts) * numerator / denominator

    @cached_property
    def keys(self) -> npt.NDArray[np.int64]:
        """Packet ordinals, int64, where decoding may begin."""
        return np.flatnonzero(self.flags & KEY)

    @cached_property
    def grid(self) -> SampleGrid:
        """How displayed boxes lie among coded samples."""
        return SampleGrid(
            width_px=self.width_px,
            height_px=self.height_px,
            sar=Fraction(*self.sar),
            rotation_deg=self.rotation_deg,
            mirrored=self.mirrored,
        )

    @property
    def display_px(self) -> tuple[int, int]:
        """Width and height of the displayed frame."""
        return self.grid.display_px

    def where(self, ordinal: int) -> str:
        """A packet for people: its file and the second at which its frame shows; below 0 it is not known."""
        if ordinal < 0:
            return f"{self.path}, packet unknown"
        numerator, denominator = self.time_base_s
        seconds = (int(self.pts[ordinal]) - self.origin_pts) * numerator / denominator
        return f"{self.path} at {seconds:.3f} s (packet {ordinal})"

    def pack(self) -> bytes:
        """The record as bytes."""
        return msgspec.msgpack.encode(self._body())

    @cached_property
    def digest(self) -> str:
        """A hash of what the record says, 16 characters: equal for one file indexed twice or at two places.

        It leaves out when the file was changed, the name of its sidecar, and whether it was `checked`.
        """
        body = self._body() | {"mtime_ns": 0, "sidecar": bool(self.sidecar), "checked": False}
        return hashlib.blake2b(msgspec.msgpack.encode(body), digest_size=_DIGEST_BYTES).hexdigest()

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        body["colour"] = [self.colour.matrix, self.colour.full_range]
        body["colours"] = [[first, colour.matrix, colour.full_range] for first, colour in self.colours]
        for name in ("colours", "sample_bits", "transfer"):  # records of files without are those of older versions
            if not body[name]:
                del body[name]
        for name, dtype in _ARRAYS.items():
            body[name] = body[name].astype(dtype).tobytes()
        return body


class _Record(Struct, forbid_unknown_fields=True):
    """A record as it is spelled, each value of its type: nothing is made that the record does not hold."""

    path: str
    sidecar: str
    stream: int
    media_bytes: int
    mtime_ns: int
    decoder: str
    codec_tag: str
    extradata: bytes
    width_px: int
    height_px: int
    pixel_format: str
    sar: tuple[int, int]
    rotation_deg: int
    mirrored: bool
    checked: bool
    colour: tuple[str, bool]
    time_base_s: tuple[int, int]
    origin_pts: int
    duration_s: float
    offset: bytes
    size: bytes
    pts: bytes
    flags: bytes
    crc32: bytes
    colours: tuple[tuple[int, str, bool], ...] = ()
    sample_bits: int = 0
    transfer: Transfer = ""

    def __post_init__(self) -> None:
        for name, most in (("path", MAX_NAME), ("sidecar", MAX_NAME), ("decoder", 64), ("pixel_format", 64)):
            check_text(name, getattr(self, name), most=most)
        if len(self.codec_tag) > 64:  # four bytes of the container's, which may be any
            raise ValueError(f"codec_tag has {len(self.codec_tag)} characters, wanted at most 64")
        check_range("the length of extradata", len(self.extradata), 0, _MAX_EXTRADATA_BYTES)
        for name, low, high in (
            ("stream", 0, 1 << 16),
            ("media_bytes", 0, MAX_BYTES),
            ("mtime_ns", -_MAX_TICKS, _MAX_TICKS),
            ("width_px", 1, _MAX_SIDE_PX),
            ("height_px", 1, _MAX_SIDE_PX),
            ("origin_pts", -_MAX_TICKS, _MAX_TICKS),
            ("duration_s", 0, MAX_SECONDS),
            ("sample_bits", 0, 1 << 10),
        ):
            check_range(name, getattr(self, name), low, high)
        if self.rotation_deg not in (0, 90, 180, 270):
            raise ValueError(f"rotation_deg is {self.rotation_deg}, wanted 0, 90, 180 or 270")
        for name in ("sar", "time_base_s"):
            for part in getattr(self, name):
                check_range(name, part, 1, 1 << 31)
        wide, high = self.sar
        check_range("sar", max(wide, high) / min(wide, high), 1, _MAX_SAR)


_RECORD = msgspec.msgpack.Decoder(_Record)


def unpack_index(record: bytes, *, where: str) -> PacketIndex:
    """The index in a record. Raises CorruptMedia, naming `where` it was read, when it is damaged or says what cannot
    be of a media file.
    """
    try:
        check_range("its length", len(record), 1, MAX_RECORD_BYTES)
        spelled = _RECORD.decode(record)
        body: dict[str, Any] = {f.name: getattr(spelled, f.name) for f in fields(PacketIndex)}
        for name, dtype in _ARRAYS.items():
            body[name] = np.frombuffer(body[name], dtype=dtype)
        body["colour"] = Colour(matrix=spelled.colour[0], full_range=spelled.colour[1])  # type: ignore[arg-type]
        body["colours"] = tuple(
            (first, Colour(matrix=matrix, full_range=full_range))  # type: ignore[arg-type]
            for first, matrix, full_range in spelled.colours
        )
        index = PacketIndex(**body)
        _check_packets(index)
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        why = str(error).partition("\n")[0][:160]
        raise CorruptMedia(f"packet index at {where} is damaged ({why}); index the root again") from None
    return index


def _check_packets(index: PacketIndex) -> None:
    """Raises ValueError unless its columns are of one length, and what they say can be of packets in a file."""
    if len({len(getattr(index, name)) for name in _ARRAYS}) != 1:
        raise ValueError("its columns do not agree")
    check_range("its number of packets", len(index.pts), 1, _MAX_PACKETS)
    check_range("the greatest of size", int(index.size.max()), 0, _MAX_PACKET_BYTES)
    check_range("the least of offset", int(index.offset.min()), 0, MAX_BYTES)
    check_range("the greatest of offset", int(index.offset.max()), 0, MAX_BYTES)
    check_range("the greatest of flags", int(index.flags.max()), 0, _FLAGS)
    numerator, denominator = index.time_base_s
    for ticks in (int(index.pts.min()), int(index.pts.max())):
        check_range("pts", ticks, -_MAX_TICKS, _MAX_TICKS)
        check_range("pts after origin_pts", (ticks - index.origin_pts) * numerator, -_MAX_TICKS, _MAX_TICKS)
        check_range("a time", (ticks - index.origin_pts) * numerator / denominator, -MAX_SECONDS, MAX_SECONDS)
    if not len(index.keys) or not len(index.shown):
        raise ValueError("its columns do not agree: no packet begins, or none is shown")
