"""Messages that no client would send, from a seed: random, cut, bent, of wrong types, too large or too deep."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from framefeed.errors import FramefeedError
from framefeed.proto_wire import header_of_call, proto_of_call
from framefeed.wire import Call, CancelCall, DecodeCall, DescribeCall, pack_call, seal, unpack_call
from tests.integration.serving import request
from tests.unit.contract.test_wire import CROPS, SAMPLINGS

CALLS: list[Call] = [
    DecodeCall(attempt=attempt, deadline_s=20.0, request=replace(request(), sampling=sampling, crop=crop))
    for attempt, (sampling, crop) in enumerate((s, c) for s in SAMPLINGS for c in CROPS)
]
HEADERS = [pack_call(call) for call in (*CALLS, DescribeCall(attempt=1))]
PROTOS = [proto_of_call(header) for header in HEADERS]
CANCEL = pack_call(CancelCall(attempt=1))  # it has no reply, so it is sent beside those that are counted
_CRC_BYTES = 4


def noise(rng: random.Random, longest: int = 300) -> bytes:
    """Random bytes."""
    return rng.randbytes(rng.randrange(longest))


def bent(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, inserted, doubled, left out, or all after some place cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                changed[at:at] = noise(rng, 20)
            case 2:
                changed[at : at + rng.randrange(20)] = b""
            case 3:
                changed[at:at] = changed[at : at + rng.randrange(40)]
            case 4:
                del changed[at:]
    return bytes(changed)


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    """A value of any type and size that msgpack can say."""
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.choice([0, -1, 1, 2**31, 2**63, 2**64 - 1, -(2**63), rng.randrange(10**6)]),
        lambda: rng.choice([float("nan"), float("inf"), -float("inf"), 1e308, -0.0, rng.random()]),
        lambda: rng.choice(["", "x" * rng.randrange(2000), "../" * 20, "\0", "é" * 300, "nan"]),
        lambda: noise(rng),
        lambda: [rng.randrange(9)] * rng.randrange(2000),
        lambda: msgspec.msgpack.Ext(rng.randrange(128), noise(rng, 40)),
    ]
    if depth < 4:
        kinds.append(lambda: [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))])
        kinds.append(lambda: {str(i): odd_value(rng, depth + 1) for i in range(rng.randrange(4))})
    return rng.choice(kinds)()


def retyped(rng: random.Random, header: bytes) -> bytes:
    """One field, at any depth, given another value, another name, or left out."""
    whole: list[Any] = msgspec.msgpack.decode(header[:-_CRC_BYTES])
    if rng.random() < 0.1:
        whole[rng.randrange(len(whole))] = odd_value(rng)
        return seal(msgspec.msgpack.encode(whole))
    holder: dict[str, Any] = whole[1]
    while True:
        name = rng.choice(list(holder))
        if not isinstance(holder[name], dict) or not holder[name] or rng.random() < 0.2:
            break
        holder = holder[name]
    match rng.randrange(4):
        case 0:
            del holder[name]
        case 1:
            holder[str(odd_value(rng, 9))] = holder.pop(name)
        case _:
            holder[name] = odd_value(rng)
    return seal(msgspec.msgpack.encode(whole))


def monstrous(rng: random.Random) -> bytes:
    """What announces more than there is, or is nested deeper than anybody reads."""
    many = struct.pack(">I", rng.choice([2**32 - 1, 2**31, 2**24, 100_000]))
    heads = [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"]  # array, map, bytes, text and extension of 32-bit lengths
    if rng.random() < 0.5:
        return seal(rng.choice(heads) + many + noise(rng))
    deep = rng.choice([b"\x91", b"\x81\xa1k", b"\x81"]) * rng.randrange(20_000)
    return seal(rng.choice([b"", b"\x92\x02", b"\x92\x02\x81\xa4kind"]) + deep)


def odd_header(rng: random.Random) -> bytes:
    """A header that is wrong somewhere; by chance it may still be one."""
    good = rng.choice(HEADERS)
    match rng.randrange(6):
        case 0:
            return noise(rng)
        case 1:
            return bent(rng, good)
        case 2:
            return seal(bent(rng, good[:-_CRC_BYTES]))
        case 3:
            return seal(noise(rng))
        case 4:
            return retyped(rng, good) if rng.random() < 0.9 else monstrous(rng)
    return retyped(rng, good)


def odd_parts(rng: random.Random) -> list[bytes]:
    """A message of one such header, and often of parts that belong to none."""
    if rng.random() < 0.7:
        return [odd_header(rng)]
    parts = [rng.choice([b"", noise(rng), odd_header(rng), rng.choice(HEADERS)]) for _ in range(rng.randint(1, 6))]
    return parts if len(parts) > 1 else [odd_header(rng)]


def odd_proto(rng: random.Random) -> bytes:
    """Bytes that are nearly a Call; none that by chance is a cancel, which has no reply to count."""
    while _is_cancel(data := _odd_proto(rng)):
        pass
    return data


def _is_cancel(data: bytes) -> bool:
    try:
        return isinstance(unpack_call(header_of_call(data)), CancelCall)
    except FramefeedError:
        return False


def _odd_proto(rng: random.Random) -> bytes:
    good = rng.choice(PROTOS)
    match rng.randrange(5):
        case 0:
            return noise(rng)
        case 1:
            key = rng.randrange(1 << 12)
            return good + bytes((key & 0x7F | 0x80, key >> 7 & 0x7F)) + noise(rng, 30)
        case 2:
            return good + rng.choice(PROTOS)  # protobuf merges the two
        case 3:
            return b"\x1a" + b"\xff\xff\xff\xff\x0f" + good
    return bent(rng, good)


def odd_stream(rng: random.Random, greeting: bytes) -> bytes:
    """What a peer may write to a port: noise, a greeting that breaks off, or one with noise after it."""
    match rng.randrange(3):
        case 0:
            return rng.randbytes(rng.randrange(5000))
        case 1:
            return bent(rng, greeting)
    return greeting + rng.randbytes(rng.randrange(5000))
