"""What the front and a gateway say to one another over their socket pair, and how it is spelled.

Both ends are this program on this machine, so there is no version; it knows neither processes nor
transports. A datagram
holds several messages, so that one system call carries what a whole turn has to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from decode_server.service.workers.sandbox import Sandbox

MAX_DATAGRAM_BYTES = 1 << 18  # less than what a socket takes at once by default
_BATCH_BYTES, _BATCH_MESSAGES = 1 << 16, 256


class ZmqSetup(Struct, frozen=True, array_like=True, tag=0):
    """Front to ZeroMQ's gateway, first. `listening` and `buffer_pool` are inherited descriptors, `parent` the front's
    process. `curve_secret` is "" for an address without encryption, else Z85.
    """

    parent: int
    listening: int
    buffer_pool: int
    curve_secret: str
    io_threads: int
    connections: int
    memory_bytes: int


class GrpcSetup(Struct, frozen=True, array_like=True, tag=13):
    """Front to gRPC's gateway, first. `address` is that of a socket which the front has bound, and which others of its
    user may share; `secure` with TLS; `secrets` whether there will be secrets in its memory.
    """

    parent: int
    buffer_pool: int
    address: str
    secure: bool
    secrets: bool
    ready: bool
    streams: int
    connections: int
    memory_bytes: int


class SecretsPart(Struct, frozen=True, array_like=True, tag=14):
    """Front to gRPC's gateway, behind the setup and at each change: see grpc_secrets.py. The last one has no `more`."""

    part: bytes
    more: bool


class Serving(Struct, frozen=True, array_like=True, tag=15):
    """Front to gRPC's gateway, at each change: whether the server is ready."""

    ready: bool


class Reply(Struct, frozen=True, array_like=True, tag=1):
    """Front to gateway: send it, with `length_bytes` bytes of the buffer pool behind the header if that is not 0.

    `number` is the front's, and comes back in Delivered.
    """

    number: int
    client: bytes
    header: bytes
    offset: int
    length_bytes: int


class KeyVerdict(Struct, frozen=True, array_like=True, tag=2):
    """Front to gateway: the answer to an AskKey."""

    number: int
    allowed: bool


class Cut(Struct, frozen=True, array_like=True, tag=3):
    """Front to gateway: end a client's connection."""

    client: bytes


class Stop(Struct, frozen=True, array_like=True, tag=4):
    """Front to gateway, last: end once everything is sent, within `linger_s`."""

    linger_s: float


class Up(Struct, frozen=True, array_like=True, tag=5):
    """Gateway to front, first: it serves, in which sandbox."""

    sandbox: Sandbox


class Arrived(Struct, frozen=True, array_like=True, tag=6):
    """Gateway to front, before a client's first call: who it is, see Listener.principal."""

    client: bytes
    principal: str


class ClientCall(Struct, frozen=True, array_like=True, tag=7):
    """Gateway to front: a message of a client, as Listener.receive gives it; frames behind the first are left empty."""

    client: bytes
    frames: list[bytes]


class Left(Struct, frozen=True, array_like=True, tag=8):
    """Gateway to front: a client's connection ended."""

    client: bytes


class Delivered(Struct, frozen=True, array_like=True, tag=9):
    """Gateway to front: replies that were sent, or whose client is gone: their pixels are not read any more."""

    numbers: list[int]


class AskKey(Struct, frozen=True, array_like=True, tag=10):
    """Gateway to front: may a client with this public key connect?"""

    number: int
    key: str


class Refused(Struct, frozen=True, array_like=True, tag=11):
    """Gateway to front: so many were refused for one reason; of one of them who it was, and why."""

    reason: str
    times: int
    who: str
    why: str


class Connections(Struct, frozen=True, array_like=True, tag=12):
    """Gateway to front: connections, or with gRPC streams, that stand now."""

    count: int


FromFront = ZmqSetup | GrpcSetup | SecretsPart | Serving | Reply | KeyVerdict | Cut | Stop
FromGateway = Up | Arrived | ClientCall | Left | Delivered | AskKey | Refused | Connections

_ENCODER = msgspec.msgpack.Encoder()
_FROM_FRONT = msgspec.msgpack.Decoder(list[FromFront])
_FROM_GATEWAY = msgspec.msgpack.Decoder(list[FromGateway])


def pack_datagrams(messages: Sequence[FromFront] | Sequence[FromGateway]) -> Iterator[bytes]:
    """The messages in order, as many a datagram as are not too large together."""
    if not messages:
        return
    packed = _ENCODER.encode(messages)
    if len(messages) == 1 or (len(packed) <= _BATCH_BYTES and len(messages) <= _BATCH_MESSAGES):
        yield packed
        return
    half = len(messages) // 2
    yield from pack_datagrams(messages[:half])
    yield from pack_datagrams(messages[half:])


def unpack_from_front(datagram: memoryview) -> list[FromFront]:
    """Raises ValueError if it is nothing that a front says."""
    return _FROM_FRONT.decode(datagram)


def unpack_from_gateway(datagram: memoryview) -> list[FromGateway]:
    """Raises ValueError if it is nothing that a gateway says."""
    return _FROM_GATEWAY.decode(datagram)
