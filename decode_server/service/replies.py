"""The replies of one server: what each says, how busy the server was, and what is told and counted of those that fail.

It knows neither workers nor admission; the outbox sends them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from decode_server.service.admission import Job
from decode_server.service.credits import Credits
from decode_server.service.front_load import FrontLoad
from decode_server.service.outbox import Outbox, Outgoing, Pixels
from decode_server.service.range_allocator import Buffer
from decode_server.service.refusals import REQUEST_REASONS, Refusals
from decode_server.service.workers.worker_messages import Done
from framefeed.errors import BadRequest, DeadlineExceeded, FramefeedError
from framefeed.wire import ErrorReply, Load, Reply, ServerReply, add_load, pack_unsealed, unpack_reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyParts:
    """What replies go through, who is told of them, and what they say of the server: requests that wait, and at how
    many a time they are decoded.
    """

    server: str
    outbox: Outbox
    refusals: Refusals
    credits: Credits
    front: FrontLoad
    queued: Callable[[], int]
    slots: Callable[[], int]
    principal: Callable[[bytes], str]  # of a client


class Replies:
    """Each method puts one reply into the outbox."""

    def __init__(self, parts: ReplyParts) -> None:
        self._server, self._outbox, self._refusals = parts.server, parts.outbox, parts.refusals
        self._credits, self._front = parts.credits, parts.front
        self._queued, self._slots = parts.queued, parts.slots
        self._principal = parts.principal

    def clip(self, job: Job, buffer: Buffer, done: Done, now_s: float) -> None:
        """A job's clip lies in a buffer, which is the outbox's from now on."""
        header = self._of_worker(job, done, now_s)
        pixels = Pixels(buffer=buffer, clip_bytes=job.clip_bytes, due_s=job.due_s)
        late = partial(self._unread, job)
        outgoing = Outgoing(
            client=job.client, outcome="clip", header=header, principal=job.principal, pixels=pixels, late=late
        )
        self._outbox.put(outgoing, now_s=now_s)

    def failed(self, job: Job, done: Done, now_s: float) -> None:
        """A job's worker says that there is no clip."""
        header = self._of_worker(job, done, now_s)
        if done.outcome in REQUEST_REASONS:
            self._note(job.client, done.outcome, _message(header) or job.what)
        outgoing = Outgoing(client=job.client, outcome=done.outcome, header=header, principal=job.principal)
        self._outbox.put(outgoing, now_s=now_s)

    def refuse(self, job: Job, error: FramefeedError, now_s: float) -> None:
        """A job that was admitted has no clip."""
        self._credits.replied(job.client)
        self._outbox.put(self._error(job.client, job.attempt, error, now_s), now_s=now_s)

    def refuse_call(self, client: bytes, attempt: int, error: FramefeedError, now_s: float) -> None:
        """A call was not admitted."""
        self._note(client, error.code, str(error))
        self._outbox.put(self._error(client, attempt, error, now_s), now_s=now_s)

    def description(self, client: bytes, reply: ServerReply, now_s: float) -> None:
        """Who the server is."""
        self._outbox.put(self._outgoing(client, "server", self.packed(client, reply, now_s)), now_s=now_s)

    def packed(self, client: bytes, reply: Reply, now_s: float) -> bytes:
        """The header of a reply that waited for nothing but the front."""
        return add_load(pack_unsealed(reply), self._load(client, now_s, front_s=now_s - self._front.turn_s))

    def _note(self, client: bytes, code: str, why: str) -> None:
        """Count and log what no server will answer otherwise: a client's mistake, an attack, or broken media."""
        if code in REQUEST_REASONS:
            self.tell(client, code, why)

    def tell(self, client: bytes, reason: str, why: str) -> None:
        """Count and log a refusal, at its client's principal's charge."""
        principal = self._principal(client)
        self._refusals.refuse(
            reason, f"client {client.hex()[:32]} of {principal or 'unknown'}", why, principal=principal
        )

    def _outgoing(self, client: bytes, outcome: str, header: bytes) -> Outgoing:
        return Outgoing(client=client, outcome=outcome, header=header, principal=self._principal(client))

    def _unread(self, job: Job) -> Outgoing:
        unread = DeadlineExceeded(f"{job.what} was ready, but not read until its time was up")
        return self._error(job.client, job.attempt, unread, time.monotonic())

    def _error(self, client: bytes, attempt: int, error: FramefeedError, now_s: float) -> Outgoing:
        reply = ErrorReply(attempt=attempt, server=self._server, code=error.code, message=str(error))
        return self._outgoing(client, error.code, self.packed(client, reply, now_s))

    def _of_worker(self, job: Job, done: Done, now_s: float) -> bytes:
        """The header of a reply that a worker made, which lay there until the front took it."""
        self._credits.replied(job.client)
        waited_s = max(time.monotonic() - done.effort.finished_s, 0.0)
        return add_load(done.reply, self._load(job.client, now_s, front_s=waited_s + job.front_s))

    def _load(self, client: bytes, now_s: float, *, front_s: float) -> Load:
        credits_ = self._credits.granted(client, now_s, slots=self._slots())
        return Load(queued=self._queued(), credits=credits_, front_s=front_s, front_busy=self._front.busy)


def _message(header: bytes) -> str:
    """What the error in a reply says; "" if it is none, or cannot be read: a worker made it."""
    try:
        said = unpack_reply(header)
    except BadRequest:
        return ""
    return said.message if isinstance(said, ErrorReply) else ""
