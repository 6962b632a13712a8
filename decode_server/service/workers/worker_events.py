"""What happens to jobs that workers have, as their pool tells the front. Values only; it knows neither of the two."""

from __future__ import annotations

from dataclasses import dataclass

from decode_server.service.admission import Job
from decode_server.service.buffer_pool import Span
from decode_server.service.workers.worker_messages import Done


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker ended a task; the span is the receiver's. `late` means that the job was answered before."""

    job: Job
    span: Span
    done: Done
    socket: int
    late: bool


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A job's deadline passed while a worker had it; its span comes back later."""

    job: Job


@dataclass(frozen=True, slots=True)
class Lost:
    """A job's worker is gone, and why; its span comes back later."""

    job: Job
    reason: str


@dataclass(frozen=True, slots=True)
class Hung:
    """A job's read does not return, and why it is thought so; its span comes back later. `late` as in Finished."""

    job: Job
    reason: str
    late: bool


@dataclass(frozen=True, slots=True)
class Released:
    """A span that no worker can write any more."""

    span: Span


Event = Finished | TimedOut | Lost | Hung | Released
