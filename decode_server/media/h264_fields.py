"""Tells which H.264 packets hold the second field of a frame whose first field the packet before them holds (PAFF).

Reads sequence parameter sets and the first bits of slice headers (ITU-T H.264 §7.3.2.1.1, §7.3.3); nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from decode_server.media.bits import Bits, unescaped

_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_SLICES = frozenset({1, 2, 5})
_SPS = 7


@dataclass(frozen=True, slots=True)
class _Sequence:
    frame_num_bits: int
    separate_planes: bool
    fields_allowed: bool


@dataclass(frozen=True, slots=True)
class _Field:
    frame_num: int
    bottom: bool


class FieldPairs:
    """Follows the packets of one stream in decode order, as NAL units."""

    def __init__(self) -> None:
        self._sequence: _Sequence | None = None
        self._open: _Field | None = None

    def ends_frame(self, units: list[bytes]) -> bool:
        """Whether this packet is the second field of the frame that the packet before it began."""
        for unit in units:
            if unit[0] & 0x1F == _SPS:
                self._sequence = _sequence(unit)
        first_slice = next((unit for unit in units if unit[0] & 0x1F in _SLICES), None)
        if first_slice is None:
            return False
        field, before = self._field(first_slice), self._open
        paired = field is not None and before == _Field(field.frame_num, not field.bottom)
        self._open = None if paired else field
        # Both fields in one packet, as most containers have them, leave nothing open.
        if field is not None and any(self._field(u) != field for u in units if u[0] & 0x1F in _SLICES):
            self._open = None
        return paired

    def _field(self, unit: bytes) -> _Field | None:
        """The field that a slice belongs to, None for a slice of a frame."""
        if self._sequence is None or not self._sequence.fields_allowed:
            return None
        bits = Bits(unescaped(unit[1:24]))
        try:
            for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
                bits.exp_golomb()
            bits.read(2 * self._sequence.separate_planes)
            frame_num = bits.read(self._sequence.frame_num_bits)
            return _Field(frame_num, bits.flag()) if bits.flag() else None
        except EOFError:
            return None


def _sequence(unit: bytes) -> _Sequence | None:
    bits = Bits(unescaped(unit[1:]))
    try:
        profile = bits.read(24) >> 16
        bits.exp_golomb()
        separate = _skip_high_profile(bits) if profile in _HIGH_PROFILES else False
        frame_num_bits = bits.exp_golomb() + 4
        order_type = bits.exp_golomb()
        if order_type == 0:
            bits.exp_golomb()
        elif order_type == 1:
            bits.flag()
            bits.exp_golomb()
            bits.exp_golomb()
            for _ in range(bits.exp_golomb()):
                bits.exp_golomb()
        bits.exp_golomb()  # max_num_ref_frames
        bits.flag()  # gaps_in_frame_num_value_allowed_flag
        bits.exp_golomb()
        bits.exp_golomb()  # width and height in macroblocks
        return _Sequence(frame_num_bits, separate, fields_allowed=not bits.flag())
    except EOFError:
        return None


def _skip_high_profile(bits: Bits) -> bool:
    """Read past what high profiles add; returns separate_colour_plane_flag."""
    chroma = bits.exp_golomb()
    separate = chroma == 3 and bits.flag()
    bits.exp_golomb()
    bits.exp_golomb()
    bits.flag()
    if bits.flag():
        for i in range(12 if chroma == 3 else 8):
            if bits.flag():
                _skip_scaling_list(bits, 16 if i < 6 else 64)
    return separate


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = scale = 8
    for _ in range(size):
        if scale:
            code = bits.exp_golomb()
            scale = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
        last = scale or last
