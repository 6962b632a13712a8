"""Headers of hand-written packets; streams of real encoders are covered by the exactness tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decode_server.media.bits import Bits, unescaped
from decode_server.media.codec_headers import kind_reader, parameters_outside
from decode_server.media.mpeg_headers import mpeg2_kind, mpeg4_kind
from decode_server.media.nal import h264_kind
from decode_server.media.vpx_headers import vp8_kind, vp9_kind

CODECS = ["h264", "hevc", "vp8", "vp9", "libdav1d", "mpeg2video", "mpeg4", "mjpeg"]
INTRA_SLICE, P_SLICE = b"\x61\x88\x84", b"\x61\x9a\x24"  # first_mb 0; slice types 7 (I) and 5 (P)


@pytest.mark.parametrize("codec", CODECS)
@given(extradata=st.binary(max_size=60), packet=st.binary(max_size=200))
def test_no_bytes_make_a_reader_fail(codec: str, extradata: bytes, packet: bytes) -> None:
    reader = kind_reader(codec, extradata)
    assert reader is not None
    reader(packet)
    reader(b"\0\0\1" + packet)
    parameters_outside(codec, extradata)


@pytest.mark.parametrize(
    ("payload", "slice_unit", "key"),
    [
        (b"\xc4", INTRA_SLICE, True),  # recovery_frame_cnt 0, exact match
        (b"\x84", INTRA_SLICE, False),  # 0, no exact match promised
        (b"\x62", INTRA_SLICE, False),  # 2 frames on: intra refresh
        (b"\xc4", P_SLICE, False),
    ],
)
def test_a_recovery_point_is_a_start_only_when_all_from_it_on_is_exact(
    payload: bytes, slice_unit: bytes, key: bool
) -> None:
    sei = b"\x06" + b"\x05\x02ab" + b"\x06" + bytes([len(payload)]) + payload + b"\x80"
    packet = b"".join(b"\0\0\1" + unit for unit in (sei, slice_unit))
    assert h264_kind(packet, 0).random_access == key


@pytest.mark.parametrize(("coding_type", "key", "reference"), [(1, True, True), (2, False, True), (3, False, False)])
def test_mpeg2(coding_type: int, key: bool, reference: bool) -> None:
    picture = b"\0\0\1\0" + bytes([0, coding_type << 3, 0, 0])
    kind = mpeg2_kind(picture)
    assert (kind.random_access, kind.reference) == (key, reference)
    assert mpeg2_kind(picture + b"\0\0\1\0" + bytes([0, 2 << 3, 0, 0])).reference, "a field that is referred to"
    headed = mpeg2_kind(b"\0\0\1\xb3sequence\0\0\1\xb8" + picture)
    assert headed.parameters == (b"sequence",)


def test_mpeg4() -> None:
    assert mpeg4_kind(b"\0\0\1\xb6\x10").random_access
    assert not mpeg4_kind(b"\0\0\1\xb6\x90").reference
    packed = mpeg4_kind(b"\0\0\1\xb6\x50..\0\0\1\xb6\x90..")
    assert packed.packed
    assert packed.reference


def test_vp8() -> None:
    assert vp8_kind(b"\x10\x00\x00").random_access
    assert not vp8_kind(b"\x01\x00\x00").shown


def test_vp9() -> None:
    inter_resilient_unused = bytes([0b10000111, 0b00000000, 0b00000000])
    inter_resilient = bytes([0b10000111, 0b00000001, 0b00000000])
    inter = bytes([0b10000110, 0, 0])
    assert not vp9_kind(inter_resilient_unused).reference
    assert vp9_kind(inter_resilient).reference
    assert vp9_kind(inter).inherits
    hidden = bytes([0b10000100, 0, 0])
    marker = 0b11000001
    superframe = hidden + inter_resilient_unused + bytes([marker, 3, 3, marker])
    kind = vp9_kind(superframe)
    assert kind.shown
    assert kind.reference


@given(st.integers(0, 2**20))
def test_exp_golomb_reads_what_its_definition_writes(value: int) -> None:
    code = bin(value + 1)[2:]
    bits = "0" * (len(code) - 1) + code
    padded = bits.ljust((len(bits) + 7) // 8 * 8, "0")
    assert Bits(int(padded, 2).to_bytes(len(padded) // 8, "big")).exp_golomb() == value


def test_emulation_prevention_is_taken_out_and_the_end_is_an_error() -> None:
    assert unescaped(b"\0\0\3\1\0\0\3\0\0\3") == b"\0\0\1\0\0\0\0"
    with pytest.raises(EOFError, match="9 bits wanted, 8 left"):
        Bits(b"a").read(9)
