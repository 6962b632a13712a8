"""What ZeroMQ's protocol adds to a frame on the network, and its failures in words. Pure; it imports no ZeroMQ.

Sources: rfc.zeromq.org/spec/37 (ZMTP), rfc.zeromq.org/spec/26 (CURVE), libzmq 4.3.5.
"""

from __future__ import annotations

CURVE_BOX_BYTES = 33
"""What CURVE adds to each frame, and ZMQ_MAXMSGSIZE counts, for it judges the frame as it came: the command's name
(1 + 7 bytes), the short nonce (8), the box's authenticator (16) and the frame's flags (1); spec 26, section MESSAGE."""

MAX_IO_THREADS = 64
"""More than any machine's network needs; each is a thread and descriptors as soon as a context is made."""

_PROTOCOL_ERRORS = {  # zmq.h, ZMQ_PROTOCOL_ERROR_*
    0x10000001: "it sent a command out of turn",
    0x10000002: "its numbering of messages went back",
    0x11000001: "the keys do not fit",
    0x11000002: "the other side speaks another kind of security",
}


def protocol_error(code: int) -> str:
    """What the value of ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL says."""
    return _PROTOCOL_ERRORS.get(code, f"what it sent is malformed (ZeroMQ's code {code:#x})")


def largest_frame_bytes(payload_bytes: int, *, curve: bool) -> int:
    """The ZMQ_MAXMSGSIZE that lets frames of so many bytes through and none that is larger."""
    return payload_bytes + (CURVE_BOX_BYTES if curve else 0)
