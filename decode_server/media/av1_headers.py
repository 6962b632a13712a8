"""What the OBU headers of one AV1 temporal unit say. Pure functions of a packet's bytes.

Source: AV1 Bitstream & Decoding Process Specification §5.3 to §5.9. A frame leaves nothing behind but what it writes
into the slots of refresh_frame_flags, contexts included, so a frame that refreshes none is disposable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decode_server.media.bits import Bits
from decode_server.media.picture_kind import PictureKind

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY_FRAME, _INTRA_ONLY, _SWITCH = 0, 2, 3
_CHOSEN_BY_FRAME = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    """What of a sequence header is needed to walk through a frame header as far as refresh_frame_flags."""

    frame_id_bits: int
    screen_content: int
    integer_mv: int
    order_hint_bits: int


def av1_kind(packet: bytes, sequence_obu: bytes) -> PictureKind:
    """The kind of a temporal unit; `sequence_obu` is the sequence header in force before it, empty if none is known."""
    random_access = reference = shown = False
    parameters: list[bytes] = []
    for kind, payload in _obus(packet):
        if kind == _SEQUENCE:
            sequence_obu = payload
            parameters.append(payload)
        elif kind in (_FRAME, _FRAME_HEADER):
            frame = _frame_kind(payload, _sequence(sequence_obu))
            random_access = random_access or frame.random_access
            reference = reference or frame.reference
            shown = shown or frame.shown
    return PictureKind(
        random_access=random_access, reference=reference or bool(parameters), shown=shown, parameters=tuple(parameters)
    )


def sequence_header(data: bytes) -> bytes:
    """The payload of the first sequence header among OBUs, empty if there is none."""
    return next((payload for kind, payload in _obus(data) if kind == _SEQUENCE), b"")


def _obus(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each OBU; stops where sizes stop fitting."""
    at = 0
    while at < len(data):
        kind, extension, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + extension
        size = len(data) - at
        if sized:
            size = shift = 0
            while at < len(data) and shift < 56:
                byte = data[at]
                at, size, shift = at + 1, size | (byte & 0x7F) << shift, shift + 7
                if byte < 0x80:
                    break
        yield kind, data[at : at + size]
        at += size


def _sequence(payload: bytes) -> _Sequence | None:
    """The sequence header (§5.5.1), None where it is damaged or has what is not followed here (timing, stills)."""
    bits = Bits(payload)
    try:
        bits.read(3)
        still, reduced = bits.flag(), bits.flag()
        if still or reduced or bits.flag():  # timing_info_present_flag
            return None
        return _after_timing(bits, delay_present=bits.flag())
    except EOFError:
        return None


def _after_timing(bits: Bits, *, delay_present: bool) -> _Sequence:
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay_present and bits.flag():
            bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits + height_bits)
    frame_id_bits = 0
    if bits.flag():
        delta = bits.read(4) + 2
        frame_id_bits = bits.read(3) + delta + 1
    bits.read(3)  # 128 superblocks, filter intra, intra edge filter
    bits.read(4)  # interintra, masked, warped, dual filter
    order_hint = bits.flag()
    if order_hint:
        bits.read(2)
    screen_content = _CHOSEN_BY_FRAME if bits.flag() else bits.read(1)
    integer_mv = _CHOSEN_BY_FRAME
    if screen_content and not bits.flag():
        integer_mv = bits.read(1)
    hint_bits = bits.read(3) + 1 if order_hint else 0
    return _Sequence(
        frame_id_bits=frame_id_bits, screen_content=screen_content, integer_mv=integer_mv, order_hint_bits=hint_bits
    )


def _frame_kind(payload: bytes, sequence: _Sequence | None) -> PictureKind:
    """The kind of a frame by the start of its header (§5.9.2)."""
    bits = Bits(payload[:32])
    try:
        if bits.flag():  # show_existing_frame; when that is a key frame it refreshes all slots
            return PictureKind(random_access=False)
        kind, shown = bits.read(2), bits.flag()
        key = kind == _KEY_FRAME and shown
        if sequence is None or key or kind == _SWITCH:
            return PictureKind(random_access=key, shown=shown)
        if not shown:
            bits.read(1)  # showable_frame
        resilient = bits.flag()
        bits.read(1)  # disable_cdf_update
        screen_content = bits.read(1) if sequence.screen_content == _CHOSEN_BY_FRAME else sequence.screen_content
        if screen_content and sequence.integer_mv == _CHOSEN_BY_FRAME:
            bits.read(1)
        bits.read(sequence.frame_id_bits + 1 + sequence.order_hint_bits)  # + frame_size_override_flag
        if kind not in (_KEY_FRAME, _INTRA_ONLY) and not resilient:
            bits.read(3)  # primary_ref_frame
        return PictureKind(random_access=False, reference=bool(bits.read(8)), shown=shown)
    except EOFError:
        return PictureKind(random_access=False)
