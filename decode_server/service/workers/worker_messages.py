"""What the front and a worker say to one another over their socket pair, and how it is spelled.

Both ends are this program on this machine, so there is no version; it knows neither processes nor clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import msgpack

MAX_MESSAGE_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class Setup:
    """Front to worker, first: what to serve, in how many threads, pinned to which CPUs.

    A read that lasts longer than `read_s` is to be reported as Stuck.
    `buffer_pool` and `cancel_flags` are inherited descriptors, `parent` the front's process id; `index_folder` is "" when
    it is the root.
    """

    root: str
    index_folder: str
    server: str
    threads: int
    read_s: float
    cpus: tuple[int, ...]
    buffer_pool: int
    cancel_flags: int
    parent: int


@dataclass(frozen=True, slots=True)
class Task:
    """A part of Tasks: decode `header`'s clip into `clip_bytes` bytes of the buffer pool at `offset`.

    `received_s` is when the front got it (the monotonic clock is one for all processes), `queued` its queue's length.
    The byte `flag` of the cancel flags is set when the clip is not wanted any more.
    """

    id: int
    offset: int
    clip_bytes: int
    received_s: float
    queued: int
    flag: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Tasks:
    """Front to worker: what one thread is to decode together. Each task gets its own Done."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class Hello:
    """Worker to front, once: it can take tasks, what decides the bytes it will make, and how many videos it has."""

    fingerprint: str
    videos: int


@dataclass(frozen=True, slots=True)
class NoStart:
    """Worker to front, instead of Hello: why it cannot serve."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """Worker to front: a task's end. `header` is the reply, ready to send; `outcome` is "clip" or an error's code.

    `codec`, `stage_s` and `read_bytes` are for the metrics, empty or 0 when there is no clip; `storage` is what
    ReadWatch.take gave after it. `busy_s` is the time of a thread that went into it, its part of what several took
    together; `finished_s` is when it was sent.
    """

    id: int
    outcome: str
    header: bytes
    codec: str
    read_bytes: int
    stage_s: dict[str, float]
    storage: dict[str, int]
    busy_s: float
    finished_s: float


@dataclass(frozen=True, slots=True)
class Stuck:
    """Worker to front: a read of the Tasks that begin with this id has not returned in time and their thread waits in
    it. A Done of each may follow.
    """

    id: int
    reason: str


Message = Setup | Tasks | Hello | NoStart | Done | Stuck
_KINDS: tuple[type[Message], ...] = (Setup, Tasks, Hello, NoStart, Done, Stuck)


def pack_message(message: Message) -> bytes:
    """A message as one datagram."""
    values = [_values(task) for task in message.tasks] if isinstance(message, Tasks) else _values(message)
    return cast(bytes, msgpack.packb([_KINDS.index(type(message)), *values]))


def unpack_message(datagram: bytes) -> Message:
    """The message of a datagram. Raises ValueError or TypeError for what no worker of this version sends."""
    kind, *values = msgpack.unpackb(datagram)
    if _KINDS[kind] is Tasks:
        return Tasks(tuple(Task(*task) for task in values))
    return cast(Message, _KINDS[kind](*values))


def _values(record: Message | Task) -> list[object]:
    return [getattr(record, name) for name in record.__slots__]
