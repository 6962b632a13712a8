"""What the front and a worker say to one another over their socket pair, and how it is spelled.

Both ends are this program on this machine, so there is no version; it knows neither processes nor clips.
"""

from __future__ import annotations

import math

import msgspec
from msgspec import Struct

from decode_server.clips.read_watch import FAULTS, OPERATIONS, RETRY
from decode_server.service.workers.sandbox import Sandbox
from framefeed.clip import STAGES
from framefeed.errors import WIRE_ERRORS, Permanent
from framefeed.show_value import one_line, show_value
from framefeed.wire import MAX_HEADER_BYTES

MAX_MESSAGE_BYTES = 1 << 17
_MAX_CODEC_CHARS = 40
_OUTCOMES = frozenset({"clip", Permanent.code, *WIRE_ERRORS})
_STAGES = frozenset(STAGES)
_FAULTS, _OPERATIONS = frozenset({*FAULTS, RETRY}), frozenset(OPERATIONS)


class Setup(Struct, frozen=True, array_like=True, tag=0):
    """Front to worker, first: what to serve, in how many threads, pinned to which CPUs.

    A read that lasts longer than `read_s` is to be reported as Stuck.
    `buffer_pool`, `cancel_flags` and `manifest` are inherited descriptors, to be closed before a clip is decoded;
    of the pool this worker has the `part_bytes` at `part_offset`. `parent` is the front's process id;
    `index_folder` is "" when it is the root; `started_s` is when the server started, by the wall clock; `max_read_mib`
    and `max_decode_mpx` are what one clip may cost.
    """

    root: str
    index_folder: str
    server: str
    threads: int
    read_s: float
    cpus: tuple[int, ...]
    buffer_pool: int
    part_offset: int
    part_bytes: int
    cancel_flags: int
    manifest: int
    parent: int
    started_s: float
    max_read_mib: int
    max_decode_mpx: int


class Task(Struct, frozen=True, array_like=True):
    """One of Tasks: decode `header`'s clip into `clip_bytes` bytes at `offset` of the worker's part of the pool.

    `received_s` is when the front got it: the monotonic clock is one for all processes. The byte `flag` of the cancel
    flags is set when the clip is not wanted any more.
    """

    id: int
    offset: int
    clip_bytes: int
    received_s: float
    flag: int
    header: bytes


class Tasks(Struct, frozen=True, array_like=True, tag=1):
    """Front to worker: what one thread is to decode together. Each task gets its own Done."""

    tasks: tuple[Task, ...]


class Hello(Struct, frozen=True, array_like=True, tag=2):
    """Worker to front, once: it can take tasks, what decides the bytes it will make, and how many videos it has of
    which data set ("" if that is not known), in which sandbox.
    """

    fingerprint: str
    videos: int
    dataset: str
    sandbox: Sandbox


class NoStart(Struct, frozen=True, array_like=True, tag=3):
    """Worker to front, instead of Hello: why it cannot serve."""

    reason: str


class Effort(Struct, frozen=True, array_like=True):
    """What a task took: `busy_s` of a thread's time, its part of what several took together, until `finished_s`.

    `storage` is what ReadWatch.take gave after it, `reads_s` the operations of storage and how long each took,
    `lookups` how many packet indices were in memory and how many were not.
    """

    busy_s: float
    finished_s: float
    storage: dict[str, int]
    reads_s: list[tuple[str, float]]
    lookups: tuple[int, int]

    def __post_init__(self) -> None:
        known = _FAULTS.issuperset(self.storage) and _OPERATIONS.issuperset(name for name, _ in self.reads_s)
        took_s = (self.busy_s, self.finished_s, *(took_s for _, took_s in self.reads_s))
        if (
            not known
            or min(*self.lookups, *self.storage.values()) < 0
            or not all(0 <= one_s < math.inf for one_s in took_s)
        ):
            raise ValueError("an effort of other faults, operations or times than there are")


class Done(Struct, frozen=True, array_like=True, tag=4):
    """Worker to front: a task's end. `reply` is what pack_unsealed gave for it; `outcome` is "clip" or an error's code.

    `codec`, `stage_s` and `read_bytes` are for the metrics, empty or 0 when there is no clip.
    """

    id: int
    outcome: str
    reply: bytes
    codec: str
    read_bytes: int
    stage_s: dict[str, float]
    effort: Effort

    def __post_init__(self) -> None:
        """Its words become labels of metrics; who decodes what others wrote may say anything."""
        if self.outcome not in _OUTCOMES:
            raise ValueError(f"outcome is {show_value(self.outcome)}")
        if len(self.codec) > _MAX_CODEC_CHARS or not self.codec.isprintable():
            raise ValueError(f"codec is {show_value(self.codec)}")
        if len(self.reply) > MAX_HEADER_BYTES // 2:
            raise ValueError(f"its reply has {len(self.reply)} bytes, wanted at most {MAX_HEADER_BYTES // 2}")
        times = all(0 <= took_s < math.inf for took_s in self.stage_s.values())
        if not _STAGES.issuperset(self.stage_s) or not times or self.read_bytes < 0:
            raise ValueError(f"it read {self.read_bytes} bytes in {len(self.stage_s)} stages, not all of {STAGES}")


class Stuck(Struct, frozen=True, array_like=True, tag=5):
    """Worker to front: a read of the Tasks that begin with this id has not returned in time and their thread waits in
    it, `ahead` if it is one that reads for those that decode. A Done of each may follow.
    """

    id: int
    reason: str
    ahead: bool


Message = Setup | Tasks | Hello | NoStart | Done | Stuck
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def pack_message(message: Message) -> bytes:
    """A message as one datagram."""
    return _ENCODER.encode(message)


def unpack_message(datagram: bytes) -> Message:
    """The message of a datagram. Raises ValueError for what no worker of this version sends."""
    try:
        return _DECODER.decode(datagram)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(one_line(str(error))) from None
