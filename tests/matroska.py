"""Matroska as FFmpeg does not write it: header stripping and laced video blocks. RFC 9559, just enough of it."""

from __future__ import annotations

from pathlib import Path

import av


def _element(number: int, payload: bytes) -> bytes:
    head = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return head + (len(payload) | 1 << 56).to_bytes(8, "big") + payload


def _unsigned(number: int, value: int) -> bytes:
    return _element(number, value.to_bytes(8, "big"))


def rewrite(source: Path, target: Path, *, strip: bytes = b"", laced: bool = False) -> Path:
    """Write the H.264 packets of `source` (25 fps, no B-frames) without their first bytes `strip`, or in pairs."""
    with av.open(str(source)) as reader:
        stream = reader.streams.video[0]
        context = stream.codec_context
        private, size = bytes(context.extradata or b""), (context.width, context.height)
        packets = [(bytes(p), bool(p.is_keyframe)) for p in reader.demux(stream) if p.size]
    assert all(data.startswith(strip) for data, _ in packets)
    video = _element(0xE0, _unsigned(0xB0, size[0]) + _unsigned(0xBA, size[1]))
    settings = _unsigned(0x4254, 3) + _element(0x4255, strip)
    encoding = _element(0x6D80, _element(0x6240, _unsigned(0x5033, 0) + _element(0x5034, settings))) if strip else b""
    track = _unsigned(0xD7, 1) + _unsigned(0x73C5, 1) + _unsigned(0x83, 1) + _unsigned(0x9C, int(laced))
    track += _element(0x86, b"V_MPEG4/ISO/AVC") + _element(0x63A2, private) + _unsigned(0x23E383, 40_000_000)
    blocks = b""
    for n in range(0, len(packets), 2 if laced else 1):
        frames = [data[len(strip) :] for data, _ in packets[n : n + 2 if laced else n + 1]]
        flags = 0x80 * packets[n][1] | 0x02 * (len(frames) == 2)  # key frame; Xiph lacing
        lace = b"\x01" + b"\xff" * (len(frames[0]) // 255) + bytes([len(frames[0]) % 255]) if len(frames) == 2 else b""
        blocks += _element(0xA3, b"\x81" + (40 * n).to_bytes(2, "big") + bytes([flags]) + lace + b"".join(frames))
    head = _element(0x1A45DFA3, _element(0x4282, b"matroska") + _unsigned(0x4287, 4) + _unsigned(0x4285, 2))
    body = _element(0x1549A966, _unsigned(0x2AD7B1, 1_000_000))
    body += _element(0x1654AE6B, _element(0xAE, track + video + encoding))
    body += _element(0x1F43B675, _unsigned(0xE7, 0) + blocks)
    target.write_bytes(head + _element(0x18538067, body))
    return target
