"""A reader of the bit fields that video headers are made of; it knows no codec."""

from __future__ import annotations


class Bits:
    """Reads `data` from its first bit on, most significant bit first. Raises EOFError past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """The next `count` bits as an unsigned number."""
        if count > self._left:
            raise EOFError(f"{count} bits wanted, {self._left} left")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def flag(self) -> bool:
        """The next bit."""
        return bool(self.read(1))

    def exp_golomb(self) -> int:
        """An unsigned Exp-Golomb code, ue(v) of ITU-T H.264 §9.1."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def unescaped(payload: bytes) -> bytes:
    """The payload of a NAL unit without its emulation prevention bytes (00 00 03 -> 00 00)."""
    return payload.replace(b"\0\0\3", b"\0\0")
