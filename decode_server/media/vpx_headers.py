"""What the frame headers of one VP8 or VP9 packet say. Pure functions of a packet's bytes.

Sources: RFC 6386 §9.1 (VP8 frame tag), VP9 Bitstream & Decoding Process Specification §6.2 (uncompressed header) and
Annex B (superframes). VP9 carries probabilities, motion vectors and segmentation from frame to frame besides its
reference pictures; only frames in error-resilient mode start without them (§7.2, setup_past_independence).
"""

from __future__ import annotations

from decode_server.media.bits import Bits
from decode_server.media.picture_kind import PictureKind


def vp8_kind(packet: bytes) -> PictureKind:
    """The kind of a VP8 frame. What its frames refresh is arithmetic-coded, so all count as references."""
    if not packet:
        return PictureKind(random_access=False, shown=False)
    key = not packet[0] & 1
    parameters = (packet[6:10],) if key else ()  # width and height, with how a player scales them
    return PictureKind(random_access=key, shown=bool(packet[0] & 0x10), parameters=parameters)


def vp9_kind(packet: bytes) -> PictureKind:
    """The kind of a VP9 packet: one frame, or a superframe of hidden ones and a shown one."""
    kinds = [_frame_kind(frame) for frame in _frames(packet)]
    return PictureKind(
        random_access=kinds[0].random_access,
        reference=any(kind.reference for kind in kinds),
        inherits=any(kind.inherits for kind in kinds),
        shown=any(kind.shown for kind in kinds),
        parameters=kinds[0].parameters,
    )


def _frames(packet: bytes) -> list[bytes]:
    """The frames of a superframe, or the packet itself."""
    marker = packet[-1] if packet else 0
    if marker & 0xE0 != 0xC0:
        return [packet]
    frames, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = packet[-(2 + frames * size_bytes) :]
    if len(index) != 2 + frames * size_bytes or index[0] != marker:
        return [packet]
    sizes = [int.from_bytes(index[1 + i * size_bytes : 1 + (i + 1) * size_bytes], "little") for i in range(frames)]
    starts = [sum(sizes[:i]) for i in range(frames)]
    return [packet[start : start + size] for start, size in zip(starts, sizes, strict=True) if size] or [packet]


def _frame_kind(frame: bytes) -> PictureKind:
    unknown = PictureKind(random_access=False, inherits=True)
    bits = Bits(frame[:24])
    try:
        if bits.read(2) != 2:
            return unknown
        profile = bits.read(1) | bits.read(1) << 1
        if profile == 3:
            bits.read(1)
        if bits.flag():  # show_existing_frame
            return PictureKind(random_access=False, reference=False)
        inter, shown, resilient = bits.flag(), bits.flag(), bits.flag()
        if not inter:
            return PictureKind(random_access=True, shown=shown, parameters=_key_parameters(bits, profile))
        intra_only = False if shown else bits.flag()
        if not resilient:
            return PictureKind(random_access=False, inherits=True, shown=shown)
        refreshed = 0xFF if intra_only else bits.read(8)
    except EOFError:
        return unknown
    return PictureKind(random_access=False, reference=bool(refreshed), shown=shown)


def _key_parameters(bits: Bits, profile: int) -> tuple[bytes, ...]:
    """Colour and size of a key frame (§6.2.2 and §6.2.3), as bytes that are equal when they are."""
    try:
        bits.read(24)  # frame_sync_code
        depth = bits.read(1) if profile >= 2 else 0
        space = bits.read(3)
        colour = bits.read(4 if profile in (1, 3) else 1) if space != 7 else bits.read(2 if profile in (1, 3) else 0)
        return (bytes((profile, depth, space, colour)) + bits.read(32).to_bytes(4, "big"),)
    except EOFError:
        return ()
