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

from decode_server.media.sample_grid import SampleGrid
from framefeed.clip import Colour
from framefeed.errors import CorruptMedia

KEY = 1  # decoding may begin here
DISPOSABLE = 2  # no other packet's frame depends on this one's
HIDDEN = 4  # fed when others depend on it, but its frame is not shown (edit lists)
DAMAGED = 8  # its container or a check says that it is not whole: whatever depends on it is refused

_DIGEST_BYTES = 8
_ARRAYS = {"offset": "<i8", "size": "<u4", "pts": "<i8", "flags": "<u1", "crc32": "<u4"}


@dataclass(frozen=True, kw_only=True)
class PacketIndex:
    """Packets in decode order: arrays (packets,) of byte offset and size in the file, presentation time `pts` in units
    of `time_base_s`, flags (KEY, DISPOSABLE, HIDDEN) and CRC-32 of the bytes. `origin_pts` shows at time 0 of the
    file. The bytes lie in the media file `path`, or in `sidecar` of the index folder where that is not empty. `stream`
    is the number of the stream among the container's. `sar` is width : height of a coded sample; stretched to square
    pixels, the coded frame turned counter-clockwise by `rotation_deg` and then `mirrored` is the displayed one. When
    `checked`, all frames have been decoded, and packets that do not decode to a whole one are DAMAGED.
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
        for name, dtype in _ARRAYS.items():
            body[name] = body[name].astype(dtype).tobytes()
        return body


def unpack_index(record: bytes, *, where: str) -> PacketIndex:
    """The index in a record. Raises CorruptMedia, naming `where` it was read, when it is damaged."""
    try:
        body = msgspec.msgpack.decode(record)
        for name, dtype in _ARRAYS.items():
            body[name] = np.frombuffer(body[name], dtype=dtype)
        body["colour"] = Colour(matrix=body["colour"][0], full_range=body["colour"][1])
        body["time_base_s"], body["sar"] = tuple(body["time_base_s"]), tuple(body["sar"])
        index = PacketIndex(**body)
    except (ValueError, TypeError, KeyError, RecursionError, msgspec.MsgspecError) as error:
        raise CorruptMedia(
            f"packet index at {where} is damaged ({type(error).__name__}); index the root again"
        ) from None
    if len({len(getattr(index, name)) for name in _ARRAYS}) != 1 or not len(index.keys) or not len(index.shown):
        raise CorruptMedia(f"packet index at {where} is damaged (its columns do not agree); index the root again")
    return index
