"""What a peer writes to a port, frame by frame, from a seed: ZMTP, HTTP/2 and HTTP. It knows no server and no socket.

Sources: rfc.zeromq.org/spec/37; RFC 9113 (HTTP/2), section 6, and RFC 7541 (HPACK), section 6.2.3; RFC 9112 (HTTP/1.1).
"""

from __future__ import annotations

import random

from framefeed.proto_wire import proto_of_call
from framefeed.wire import DescribeCall, pack_call, seal
from tests.chaos.zmtp import greeting, part, ready
from tests.fuzz.inputs import odd_bytes
from tests.integration.mangle import bent, noise, odd_header

FRAMES = 64  # of a connection
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_CALL = proto_of_call(pack_call(DescribeCall(attempt=1)))
MESSAGE = b"\0" + len(_CALL).to_bytes(4) + _CALL
"""A call as gRPC frames it."""
_SIZES = (0, 1, 4, 5, 6, 8, 9, 16, 100, 16383, 16384, 16385)
_HTTP = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"


def h2_frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """A frame of HTTP/2."""
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


def h2_headers(path: bytes = b"/framefeed.v1.DecodeService/Decode", *more: tuple[bytes, bytes]) -> bytes:
    """The header block of a gRPC call: literal fields that are never indexed."""
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more,
    ]  # fmt: skip
    return b"".join(b"\x10" + hpack_text(name) + hpack_text(value) for name, value in fields)


def hpack_text(text: bytes) -> bytes:
    """A string of HPACK, without Huffman's code."""
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, more = len(text) - 127, b""
    while rest >= 128:
        more += bytes((rest & 127 | 128,))
        rest >>= 7
    return b"\x7f" + more + bytes((rest,)) + text


def http2_stream(rng: random.Random) -> bytes:
    """A connection of FRAMES frames: a good beginning, then frames of any kind, order and size."""
    start = PREFACE + h2_frame(SETTINGS, 0, 0, b"")
    return (bent(rng, start) if rng.random() < 0.05 else start) + b"".join(_h2_frame(rng) for _ in range(FRAMES))


def _h2_frame(rng: random.Random) -> bytes:  # noqa: PLR0911 - one a kind
    stream = rng.choice((0, 1, 1, 3, 5, 2 * rng.randrange(64) + 1, 2, (1 << 31) - 1, (1 << 32) - 1))
    match rng.randrange(12):
        case 0:
            return h2_frame(HEADERS, END_HEADERS | rng.choice((0, 1)), stream, h2_headers())
        case 1:
            return h2_frame(HEADERS, END_HEADERS, stream, h2_headers()) + h2_frame(
                RST_STREAM, 0, stream, rng.randrange(16).to_bytes(4)
            )
        case 2:
            return h2_frame(HEADERS, rng.choice((0, END_HEADERS)), stream, bent(rng, h2_headers()))
        case 3:
            return h2_frame(CONTINUATION, rng.choice((0, END_HEADERS)), stream, bent(rng, h2_headers(noise(rng, 90))))
        case 4:
            message = odd_bytes(rng, [MESSAGE, b"\1" + MESSAGE[1:], b"\0\xff\xff\xff\xff", MESSAGE * 3])
            return h2_frame(DATA, rng.choice((0, END_STREAM, 8)), stream, message)
        case 5:
            setting = rng.randrange(8).to_bytes(2) + rng.choice((0, 1, 16384, 1 << 31, (1 << 32) - 1)).to_bytes(4)
            return h2_frame(SETTINGS, rng.choice((0, 0, ACK)), rng.choice((0, stream)), setting * rng.randrange(20))
        case 6:
            return h2_frame(PING, rng.choice((0, ACK)), 0, rng.randbytes(rng.choice((8, 8, 8, 7))))
        case 7:
            return h2_frame(WINDOW_UPDATE, 0, stream, rng.choice((0, 1, (1 << 31) - 1, 1 << 31)).to_bytes(4))
        case 8:
            return h2_frame(rng.choice((PRIORITY, PUSH_PROMISE, GOAWAY)), rng.randrange(256), stream, noise(rng, 40))
        case 9:
            return bent(rng, h2_frame(HEADERS, END_HEADERS, stream, h2_headers()))
    return h2_frame(rng.randrange(256), rng.randrange(256), stream, rng.randbytes(rng.choice(_SIZES)))


def zmtp_stream(rng: random.Random) -> bytes:
    """A connection of FRAMES frames: a good handshake, then parts and commands of any flags and lengths."""
    start = greeting() + ready(rng.choice((b"", b"", b"", b"\0" + rng.randbytes(4), noise(rng, 260))))
    return (bent(rng, start) if rng.random() < 0.1 else start) + b"".join(_zmtp_frame(rng) for _ in range(FRAMES))


def _zmtp_frame(rng: random.Random) -> bytes:  # noqa: PLR0911 - one a kind
    match rng.randrange(40):
        case 0:
            return bytes((rng.randrange(256),)) + noise(rng, 40)
        case 1:
            return b"\2" + rng.choice((1 << 63, 1 << 31, 1 << 17, (1 << 64) - 1)).to_bytes(8) + noise(rng)
        case 2:
            command = rng.choice(
                (b"\4PING\0\1ctx", b"\5READY", b"\5ERROR\3why", b"\6CANCEL", b"\11SUBSCRIBE", b"\xffX")
            )
            return b"\4" + bytes((len(command),)) + command
        case 3 | 4:
            return part(noise(rng), more=True) * rng.randrange(6) + part(b"", more=False)
        case 5:
            return bent(rng, part(odd_header(rng), more=False))
        case 6:
            return part(pack_call(DescribeCall(attempt=1)), more=False)
        case 7:
            return part(seal(noise(rng)), more=False)
    return part(odd_header(rng), more=False)


def http_request(rng: random.Random) -> bytes:
    """What a client of the metrics port may say."""
    method = rng.choice((b"GET", b"GET", b"HEAD", b"POST", b"get", b"", noise(rng, 20)))
    path = rng.choice((b"/metrics", b"/healthz", b"/readyz", b"/", b"//", b"/" + noise(rng), b"/\xff?\0", b"x" * 9000))
    version = rng.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.", b"HTTP/2", noise(rng, 20)))
    fields = [b"%s: %s\r\n" % (noise(rng, 20), noise(rng, 60)) for _ in range(rng.choice((0, 1, 3, 300)))]
    end = rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"", b"\r\n" + noise(rng)))
    whole = b" ".join((method, path, version)) + b"\r\n" + b"".join(fields) + end
    return bent(rng, rng.choice((_HTTP, whole))) if rng.random() < 0.3 else whole
