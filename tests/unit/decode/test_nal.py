"""NAL headers of hand-written packets; streams of real encoders are covered by the exactness tests."""

import pytest

from decode_server.media.nal import h264_kind, hevc_kind, nal_length_bytes
from decode_server.media.picture_kind import PictureKind


def _avcc(*units: bytes, length_bytes: int = 4) -> bytes:
    return b"".join(len(unit).to_bytes(length_bytes, "big") + unit for unit in units)


def _annex_b(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


SEI, IDR, P_REF, B_NONREF = b"\x06\x05\x01", b"\x65\x88", b"\x41\x9a", b"\x01\x9e"


@pytest.mark.parametrize("length_bytes", [0, 2, 4])
@pytest.mark.parametrize(
    ("units", "key", "reference", "slices"),
    [
        ((SEI, IDR), True, True, True),
        ((P_REF,), False, True, True),
        ((B_NONREF, B_NONREF), False, False, True),
        ((B_NONREF, P_REF), False, True, True),
        ((SEI,), False, False, False),
    ],
)
def test_h264(units: tuple[bytes, ...], key: bool, reference: bool, slices: bool, length_bytes: int) -> None:
    packet = _avcc(*units, length_bytes=length_bytes) if length_bytes else _annex_b(*units)
    kind = h264_kind(packet, length_bytes)
    assert kind == PictureKind(random_access=key, reference=reference or not slices, shown=slices)


@pytest.mark.parametrize(
    ("nal_type", "sublayer", "key", "reference"),
    [(19, 0, True, True), (21, 0, True, True), (1, 0, False, True), (0, 1, False, False), (8, 2, False, False)],
)
def test_hevc(nal_type: int, sublayer: int, key: bool, reference: bool) -> None:
    unit = bytes([nal_type << 1, sublayer + 1, 0])
    kind = hevc_kind(_avcc(bytes([39 << 1, 1, 5]), unit), 4)
    assert kind == PictureKind(random_access=key, reference=reference, sublayer=sublayer)


def test_length_fields_come_from_the_extradata() -> None:
    assert nal_length_bytes("h264", bytes([1, 66, 0, 30, 0xFF, 0xE1, 0])) == 4
    assert nal_length_bytes("h264", bytes([1, 66, 0, 30, 0xFD, 0xE1, 0])) == 2
    assert nal_length_bytes("hevc", bytes([1] + [0] * 20 + [0x0F, 0])) == 4
    assert nal_length_bytes("h264", b"\0\0\0\1\x67") == 0
    assert nal_length_bytes("h264", b"") == 0


def test_lengths_that_do_not_fit_end_the_walk() -> None:
    kind = h264_kind((10**6).to_bytes(4, "big") + P_REF, 4)
    assert kind.reference
