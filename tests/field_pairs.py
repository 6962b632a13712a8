"""An H.264 stream coded as field pairs (PAFF), which no encoder at hand makes: 32x32, I_PCM, every field of one value.

Written bit by bit after ITU-T H.264 §7.3. Frame n has luma 20 + n in its even rows and 120 + n in its odd ones.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av

KEYS_EVERY = 6


class _Writer:
    def __init__(self) -> None:
        self._bits = ""

    def flag_bits(self, bits: str) -> None:
        self._bits += bits

    def exp_golomb(self, *values: int) -> None:
        for value in values:
            code = bin(value + 1)[2:]
            self._bits += "0" * (len(code) - 1) + code

    def samples(self, data: bytes) -> None:
        self._bits = self._bits.ljust((len(self._bits) + 7) // 8 * 8, "0") + "".join(f"{byte:08b}" for byte in data)

    def unit(self, header: int) -> bytes:
        bits = self._bits + "1"
        bits = bits.ljust((len(bits) + 7) // 8 * 8, "0")
        return b"\0\0\0\1" + bytes([header]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _parameter_sets() -> bytes:
    sequence = _Writer()
    sequence.flag_bits(f"{77:08b}{0:08b}{30:08b}")
    sequence.exp_golomb(0, 0, 2, 1)  # id, 4 bits of frame number, order of decoding, one reference
    sequence.flag_bits("0")
    sequence.exp_golomb(1, 0)  # 2 macroblocks wide, one pair high
    sequence.flag_bits("00100")  # fields, not adaptive, direct 8x8, no cropping, no VUI
    picture = _Writer()
    picture.exp_golomb(0, 0)
    picture.flag_bits("00")
    picture.exp_golomb(0, 0, 0)
    picture.flag_bits("000")
    picture.exp_golomb(0, 0, 0)
    picture.flag_bits("100")
    return sequence.unit(0x67) + picture.unit(0x68)


def _field(number: int, *, bottom: bool) -> bytes:
    key = number % KEYS_EVERY == 0 and not bottom
    slice_ = _Writer()
    slice_.exp_golomb(0, 7, 0)
    slice_.flag_bits(f"{number % KEYS_EVERY:04b}1{int(bottom)}")
    if key:
        slice_.exp_golomb(number // KEYS_EVERY % 2)
    slice_.flag_bits("00" if key else "0")
    slice_.exp_golomb(0, 1)  # no change of QP, no deblocking
    value = (120 if bottom else 20) + number
    for _ in range(2):
        slice_.exp_golomb(25)
        slice_.samples(bytes([value]) * 256 + bytes([128]) * 128)
    head = b"\0\0\0\1\x09\x10" + (_parameter_sets() if key else b"")
    return head + slice_.unit(0x65 if key else 0x61)


def make_field_pairs(path: Path, *, frames: int) -> Path:
    """Write the stream to `path`, 25 frames a second, each field a packet with a time of its own."""
    raw = path.with_suffix(".h264")
    fields = [_field(n // 2, bottom=bool(n % 2)) for n in range(2 * frames)]
    raw.write_bytes(b"".join(fields))
    with av.open(str(raw)) as reader, av.open(str(path), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for n, data in enumerate(fields):
            packet = av.Packet(data)
            packet.pts = packet.dts = n
            packet.time_base, packet.stream = Fraction(1, 50), stream
            packet.is_keyframe = n % (2 * KEYS_EVERY) == 0
            writer.mux(packet)
    return path
