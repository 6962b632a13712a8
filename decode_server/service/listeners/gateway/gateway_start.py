"""What every gateway does first, whatever it runs: its log, its signals, the socket to the front and the first words.

It knows not what they say.
"""

from __future__ import annotations

import signal
import socket
import sys

from decode_server.service.listeners.gateway.gateway_messages import (
    MAX_DATAGRAM_BYTES,
    FromFront,
    unpack_from_front,
)
from decode_server.service.private_memory import keep_memory_private
from framefeed.cli.log_lines import log_to_stderr


def begin_gateway() -> socket.socket:
    """The socket to the front, whose inherited descriptor is the process's one argument. Call it first."""
    log_to_stderr(worker=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and a stop of the whole group are the front's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    keep_memory_private()  # before there is a secret in it
    return socket.socket(fileno=int(sys.argv[1]))


def first_words(channel: socket.socket) -> list[FromFront]:
    """A datagram of what the front says before all else. Ends the process if the front ends instead."""
    datagram = channel.recv(MAX_DATAGRAM_BYTES)
    if not datagram:
        raise SystemExit(0)
    return unpack_from_front(memoryview(datagram))
