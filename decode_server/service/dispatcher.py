"""Starts queued jobs while a worker and the buffer pool have room for them. It knows no clients' connections.

Who is next is admission's to say, who may have buffers the pool's, who has clips to read first the outbox's.
"""

from __future__ import annotations

from collections.abc import Iterator

from decode_server.service.admission import Admission, Job
from decode_server.service.buffer_pool import BufferPool
from decode_server.service.metrics import Metrics
from decode_server.service.outbox import Outbox
from decode_server.service.range_allocator import Buffer
from decode_server.service.workers.worker_pool import WorkerPool

_BUFFER_POLL_S, _BUFFER_POLL_MAX_S = 0.001, 0.02  # how often to ask for buffers back while a clip waits for them


class Dispatcher:
    """`dispatch` after everything that could have made room."""

    def __init__(
        self, admission: Admission, pool: WorkerPool, buffer_pool: BufferPool, outbox: Outbox, *, metrics: Metrics
    ) -> None:
        self.short_of_buffers = False  # a clip could begin if there were a buffer for it
        self.clients_blocked = False  # all that wait are clients' that have clips to read first
        self._admission, self._pool, self._outbox, self._metrics = admission, pool, outbox, metrics
        self._buffer_pool = buffer_pool
        self._poll_s = _BUFFER_POLL_S

    @property
    def poll_s(self) -> float | None:
        """How soon to try again because buffers that are on their way come back without an event; None if none are."""
        waits = self.short_of_buffers or self.clients_blocked
        return self._poll_s if waits and self._outbox.in_transit else None

    def dispatch(self) -> None:
        """Start jobs while a worker and the buffer pool have room; the first one in line is never overtaken."""
        self.short_of_buffers = self.clients_blocked = False
        while len(self._admission) and self._pool.room:
            job = self._admission.first(blocked=self._blocked)
            place = self._place(job) if job else None
            if job is None or place is None:
                self.short_of_buffers, self.clients_blocked = job is not None, job is None
                self._poll_s = min(2 * self._poll_s, _BUFFER_POLL_MAX_S)
                return
            self._poll_s = _BUFFER_POLL_S
            part, buffer = place
            together = [(job, buffer), *self._companions(job, part)]
            for started, _ in together:
                self._admission.take(started)
            self._metrics.started(together=len(together))
            self._pool.start(together, part=part)

    def _blocked(self, job: Job) -> bool:
        """Whether its client has clips to read before it gets this one."""
        return self._outbox.blocks(job.client) or not self._in_share(job)

    def _in_share(self, job: Job) -> bool:
        shares = self._admission.shares(job.principal)
        return self._buffer_pool.ranges.within_share(job.client, job.clip_bytes, principal=job.principal, shares=shares)

    def _place(self, job: Job) -> tuple[int, Buffer] | None:
        """A buffer of the least loaded worker's part, or of the next one's where that is full."""
        for part in self._pool.parts_with_room():
            if buffer := self._allocate(job, part):
                return part, buffer
        return None

    def _allocate(self, job: Job, part: int) -> Buffer | None:
        return self._buffer_pool.allocate(job.clip_bytes, owner=job.client, principal=job.principal, part=part)

    def _companions(self, job: Job, part: int) -> Iterator[tuple[Job, Buffer]]:
        """Jobs to decode together with this one, and their buffers: no more than leaves every thread its share of the
        queue, and others theirs of the buffer pool.
        """
        most = len(self._admission) // self._pool.room - 1
        if most < 1 or job.alone:
            return
        for companion in self._admission.companions(job)[:most]:
            buffer = self._allocate(companion, part) if self._in_share(companion) else None
            if buffer is None:
                return
            yield companion, buffer

    def __repr__(self) -> str:
        return f"Dispatcher(short of buffers: {self.short_of_buffers}, clients blocked: {self.clients_blocked})"
