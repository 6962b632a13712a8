"""What a box and its fronts say to each other, and how it is spelled: JSON, a datagram a message.

Both ends are one program on one machine, of one version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from decode_server.service.serve_options import ServeOptions
from decode_server.service.workers.topology import WorkerSlot
from framefeed.server_entry import ServerEntry

MAX_MESSAGE_BYTES = 1 << 17


class FrontSetup(Struct, frozen=True, kw_only=True, tag=True):
    """What a front is to be: its own options, its CPUs, slots of its workers and what starts one. Told first."""

    options: ServeOptions
    cpus: tuple[int, ...]
    worker_slots: tuple[WorkerSlot, ...]
    worker_command: tuple[str, ...]
    box: int = 0  # process id of the box
    manifest: int = -1  # inherited descriptor of the memory that holds the manifest for all fronts of the box


class Listening(Struct, frozen=True, kw_only=True, tag=True):
    """A front is reached there, `urls` in the order of its --bind; it waits for SiblingUrls."""

    urls: tuple[str, ...]
    metrics_port: int


class SiblingUrls(Struct, frozen=True, kw_only=True, tag=True):
    """The URLs of each other front, in the order of --bind."""

    fronts: tuple[tuple[str, ...], ...]


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """A front takes requests, and is announced as this."""

    entry: ServerEntry


class Turned(Struct, frozen=True, kw_only=True, tag=True):
    """When a front's loop last turned, by the monotonic clock, which is one for all processes."""

    at_s: float


class Failed(Struct, frozen=True, kw_only=True, tag=True):
    """Why a front ends; `bad_input` where it is its user's to change."""

    reason: str
    bad_input: bool


ToFront = FrontSetup | SiblingUrls
FromFront = Listening | Ready | Turned | Failed


def pack(message: ToFront | FromFront) -> bytes:
    """The message as one datagram."""
    return msgspec.json.encode(message, enc_hook=_spell_path)


def unpack_to_front(datagram: bytes) -> ToFront:
    """A message of the box. Raises ValueError for anything else."""
    return _TO_FRONT.decode(datagram)


def unpack_from_front(datagram: bytes) -> FromFront:
    """A message of a front. Raises ValueError for anything else."""
    return _FROM_FRONT.decode(datagram)


def _spell_path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"a message with a {type(value).__name__}")


def _read_path(kind: type[Any], value: object) -> object:
    if issubclass(kind, Path) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"a message with a {kind.__name__}")


_TO_FRONT: msgspec.json.Decoder[ToFront] = msgspec.json.Decoder(ToFront, dec_hook=_read_path)
_FROM_FRONT: msgspec.json.Decoder[FromFront] = msgspec.json.Decoder(FromFront)
