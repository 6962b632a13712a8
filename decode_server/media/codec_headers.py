"""Which file reads the headers of which codec; and the parameter sets that a stream keeps outside its packets.

It knows decoders by FFmpeg's names for them, and parses nothing but the boxes that hold parameter sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from decode_server.media.av1_headers import av1_kind, sequence_header
from decode_server.media.h264_fields import FieldPairs
from decode_server.media.jpeg_headers import jpeg_kind
from decode_server.media.mpeg_headers import mpeg2_kind, mpeg4_kind
from decode_server.media.nal import h264_kind, hevc_kind, nal_length_bytes, nal_units
from decode_server.media.picture_kind import PictureKind
from decode_server.media.vpx_headers import vp8_kind, vp9_kind

KindReader = Callable[[bytes], PictureKind]

_PLAIN: dict[str, KindReader] = {
    "mpeg1video": mpeg2_kind,
    "mpeg2video": mpeg2_kind,
    "mpeg4": mpeg4_kind,
    "vp8": vp8_kind,
    "libvpx": vp8_kind,
    "vp9": vp9_kind,
    "libvpx-vp9": vp9_kind,
    "mjpeg": jpeg_kind,
}
_NAL = frozenset({"h264", "hevc"})
_AV1 = frozenset({"libdav1d", "av1", "libaom-av1"})


def kind_reader(decoder: str, extradata: bytes) -> KindReader | None:
    """A function that tells the kind of each packet, to be called in decode order; None for codecs not known here."""
    if decoder == "h264":
        return _h264_reader(extradata)
    if decoder == "hevc":
        return partial(hevc_kind, length_bytes=nal_length_bytes(decoder, extradata))
    return _av1_reader(extradata) if decoder in _AV1 else _PLAIN.get(decoder)


def tells_size(decoder: str) -> bool:
    """Whether the stream itself says how large its pictures are; of other codecs the container has to."""
    return decoder in _PLAIN or decoder in _NAL or decoder in _AV1


def parameters_outside(decoder: str, extradata: bytes) -> frozenset[bytes]:
    """The parameter sets in the stream's extradata, as they would stand in PictureKind.parameters."""
    if decoder in _NAL and nal_length_bytes(decoder, extradata):
        return frozenset(unit.rstrip(b"\0") for unit in _boxed_units(decoder, extradata))
    if decoder in _AV1:
        return frozenset({sequence_header(_av1_obus(extradata))})
    reader = kind_reader(decoder, extradata)
    return frozenset(reader(extradata).parameters) if reader and extradata else frozenset()


def _h264_reader(extradata: bytes) -> KindReader:
    length_bytes = nal_length_bytes("h264", extradata)
    pairs = FieldPairs()
    pairs.ends_frame(list(_boxed_units("h264", extradata) if length_bytes else nal_units(extradata, 0)))

    def read(packet: bytes) -> PictureKind:
        second = pairs.ends_frame(list(nal_units(packet, length_bytes)))
        kind = h264_kind(packet, length_bytes)
        return replace(kind, second_field=True) if second else kind

    return read


def _av1_obus(extradata: bytes) -> bytes:
    """The OBUs behind the four bytes of av1C; Annex B style extradata is OBUs itself."""
    return extradata[4:] if extradata[:1] == b"\x81" else extradata


def _av1_reader(extradata: bytes) -> KindReader:
    in_force = sequence_header(_av1_obus(extradata))

    def read(packet: bytes) -> PictureKind:
        nonlocal in_force
        kind = av1_kind(packet, in_force)
        in_force = kind.parameters[-1] if kind.parameters else in_force
        return kind

    return read


def _boxed_units(codec: str, box: bytes) -> Iterator[bytes]:
    """The NAL units in avcC (ISO/IEC 14496-15 §5.3.3) or hvcC (§8.3.3); stops where lengths stop fitting."""
    at = 5 if codec == "h264" else 23
    arrays = 2 if codec == "h264" else int.from_bytes(box[22:23], "big")
    for _ in range(arrays):
        if codec == "h264":
            count, at = int.from_bytes(box[at : at + 1], "big") & 0x1F, at + 1
        else:
            count, at = int.from_bytes(box[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            size, at = int.from_bytes(box[at : at + 2], "big"), at + 2
            if size and at < len(box):
                yield box[at : at + size]
            at += size
