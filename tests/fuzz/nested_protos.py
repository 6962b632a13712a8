"""Protobuf messages with groups nested to every depth within each of their parts. It knows no parser of them.

Source of the format: protobuf.dev/programming-guides/encoding; a group of an unknown field nests without a type.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from google.protobuf.message import Message

from tests.fuzz.inputs import DEPTHS, odd_bytes

Path = tuple[str, ...]
_START, _END, _BYTES = 3, 4, 2  # wire types
_UNKNOWN = 15


def parts_of(message: Message, at: Path = ()) -> Iterator[Path]:
    """The path of each message within a message, its own, which is empty, among them."""
    yield at
    for field, value in message.ListFields():
        if field.message_type is not None and not field.is_repeated:
            yield from parts_of(value, (*at, field.name))


def with_tail(message: Message, path: Path, tail: bytes) -> bytes:
    """The message, spelled, with more bytes at the end of one of its parts."""
    if not path:
        return message.SerializeToString() + tail
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField(path[0])
    inner = with_tail(getattr(message, path[0]), path[1:], tail)
    key = message.DESCRIPTOR.fields_by_name[path[0]].number << 3 | _BYTES
    return rest.SerializeToString() + varint(key) + varint(len(inner)) + inner


def varint(value: int) -> bytes:
    """A number as protobuf spells it."""
    low, rest = value & 0x7F, value >> 7
    return bytes((low | 0x80,)) + varint(rest) if rest else bytes((low,))


class StrangeProtos:
    """As Strange, of protobuf messages."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        self._good = [message.SerializeToString() for message in messages]
        seen: dict[Path, tuple[int, Path]] = {}
        for number, message in enumerate(self._messages):
            for path in parts_of(message):
                seen.setdefault(path, (number, path))
        self._parts = list(seen.values())

    def bytes_at(self, number: int, rng: random.Random) -> bytes:
        """Input `number`."""
        if number % 2:
            depth, part = divmod(number // 2, len(self._parts))
            message, path = self._parts[part]
            return with_tail(self._messages[message], path, _groups(depth % DEPTHS, ends=depth // DEPTHS % 2 == 0))
        match rng.randrange(4):
            case 0:
                key = rng.randrange(1, 1 << 12)
                return rng.choice(self._good) + varint(key) + odd_bytes(rng, self._good)
            case 1:
                number = rng.randrange(len(self._messages))
                message = self._messages[number]
                return with_tail(message, rng.choice(list(parts_of(message))), odd_bytes(rng, self._good))
        return odd_bytes(rng, self._good)


def _groups(depth: int, *, ends: bool) -> bytes:
    start, end = bytes((_UNKNOWN << 3 | _START,)), bytes((_UNKNOWN << 3 | _END,))
    return start * depth + (end * depth if ends else b"")
