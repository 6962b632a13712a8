"""What the client needs of a transport, and what one tells it. Knows no transport, no clips and no retries."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framefeed.errors import BadInput, ResourceExhausted
from framefeed.show_value import show_value
from trainer_client.transports.credentials import Secrets

RETRY_S, RETRY_MAX_S = 0.05, 1.0  # between two tries to connect, doubling
HEARTBEAT_MS = 1000  # where a host may die without a word
HEARTBEAT_LOST_MS = 5000  # longer than a server may be kept from the CPU by a busy box
IO_THREADS = 4  # of ZeroMQ: its connections are spread over them


class Kind(Enum):
    """What a signal says."""

    MESSAGES = "messages"  # some lie ready
    CONNECTED = "connected"
    LOST = "lost"  # the connection is gone, with all that was asked over it


@dataclass(frozen=True, slots=True)
class Signal:
    """Something happened at a server's connection."""

    url: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """What a transport accepts from a server: no pixels of more than `clip_bytes`, whatever a message says.

    And what it shows to one, and wants of it: what `secrets()` says when a connection is made. `io_threads` is how many
    threads ZeroMQ receives and deciphers in.
    """

    clip_bytes: int
    secrets: Callable[[], Secrets] = Secrets
    io_threads: int = IO_THREADS


def cannot_connect(url: str, number: int | None, why: str) -> BadInput | ResourceExhausted:
    """What to raise for a connection that was not to be had: this machine's want passes, a wrong address does not."""
    if number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN):
        return ResourceExhausted(f"server {url} cannot be connected to now: {why}")
    return BadInput(f"server address {show_value(url)} cannot be used: {why}")


class Transport(Protocol):
    """The connections of some URL schemes. Every method belongs to the one thread that made it, and none blocks.

    A connection that cannot be made, or is lost, is made again for as long as its URL is connected, and nothing is
    queued for a server that is not there.
    """

    def connect(self, url: str) -> None:
        """Begin to connect to a server that is not connected.

        Raises BadInput for an address that cannot be used, ResourceExhausted or OSError when this machine has no
        descriptors or memory for it now; then it is not connected.
        """

    def disconnect(self, url: str) -> None:
        """Let go of a connected server: no signal names it after this, and what it still sends is dropped."""

    def fileno(self) -> int:
        """A descriptor that is readable, at the latest, when `signals` has something again after it had nothing."""

    def signals(self) -> list[Signal]:
        """What happened since the last call, messages first; MESSAGES comes again and again while some lie ready."""

    def send(self, url: str, header: bytes) -> bool:
        """Hand a message over to the connection; False if there is none or it is full."""

    def header(self, url: str) -> bytes | None:
        """The header of the next message; None if none lies ready."""

    def pixels(self, url: str, into: npt.NDArray[np.uint8] | None) -> int:
        """The rest of the message whose header was just read: at most one copy puts its pixels into the array.

        Returns their bytes, 0 if there are none; without an array, or one of another length, they are dropped, and
        what lies in the array is undefined.
        """

    def trouble(self, url: str) -> str:
        """Why there is no connection, as far as the last try showed, for people; "" if nothing did, or there is one."""

    def close(self) -> None:
        """Close every connection; what was not sent is dropped. Idempotent."""
