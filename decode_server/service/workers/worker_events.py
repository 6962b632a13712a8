"""What happens to jobs that workers have, as their pool tells the front. Values only; it knows neither of the two."""

from __future__ import annotations

from msgspec import Struct

from decode_server.service.admission import Job
from decode_server.service.range_allocator import Buffer
from decode_server.service.workers.worker_messages import Done


class Finished(Struct, frozen=True, eq=False):
    """A worker ended a task; the buffer is the receiver's. `before` is why the job had been answered: late, cancelled,
    client_gone or hung, "" if it had not.
    """

    job: Job
    buffer: Buffer
    done: Done
    socket: int
    before: str


class TimedOut(Struct, frozen=True, eq=False):
    """A job's deadline passed while a worker had it; its buffer comes back later."""

    job: Job


class Lost(Struct, frozen=True, eq=False):
    """A job's worker is gone, and why; its buffer comes back later."""

    job: Job
    reason: str


class Hung(Struct, frozen=True, eq=False):
    """A job's read does not return, and why it is thought so; its buffer comes back later. `late` if
    the job was answered before."""

    job: Job
    reason: str
    late: bool


class Released(Struct, frozen=True, eq=False):
    """A job's worker can write its buffer no more, and there was no Finished; the job was answered before."""

    job: Job
    buffer: Buffer


Event = Finished | TimedOut | Lost | Hung | Released
