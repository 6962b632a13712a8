"""The dispatch: which clip is asked of which server, and again of which other when no good answer comes.

A pure state machine of messages and time: the caller owns clocks and sockets, sends what tick() returns and hands in
what arrives. It knows nothing of batches; a clip is a ticket, a number that grows in the order in which clips are
wanted. The conservation law holds after every call: requested = ok + not used (by reason) + in flight.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from framefeed.errors import BadInput, DeadlineExceeded, FramefeedError, Permanent, ServerLost, error_from_code
from framefeed.request import ClipRequest
from framefeed.wire import Call, ClipReply, DecodeCall, DescribeCall, ErrorReply, Reply, ServerReply
from trainer_client.fleet import Fleet
from trainer_client.stats import Durations, Ledger
from trainer_client.wait import ClipLife

_REMEMBERED_ATTEMPTS = 4096  # abandoned ones whose late reply is still told from a duplicate
_NAMED = 3  # waiting clips that a message names


class Stalled(FramefeedError):
    """No clip arrived for longer than the run may stand still; the message names who waits for what, and where."""

    code = "stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchLimits:
    """How long to wait and how much to ask for.

    A server has `attempt_s` seconds for a clip, and `grace_s` more to say that it was too slow; then it counts as
    silent and the clip is asked of another. A clip that every server failed rests
    `retry_rest_s`, doubling to `retry_rest_max_s`. `stall_s` seconds without any clip while some are wanted end the
    run. `inflight_bytes` bounds the clips asked for and not yet answered.
    """

    attempt_s: float = 10.0
    grace_s: float = 1.0
    retry_rest_s: float = 0.05
    retry_rest_max_s: float = 5.0
    stall_s: float = 120.0
    inflight_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name in ("attempt_s", "grace_s", "retry_rest_s", "retry_rest_max_s", "stall_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"loader: {name} is {getattr(self, name):g}, wanted more than 0 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One message for a server."""

    url: str
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """The clip of a ticket arrived."""

    ticket: int
    reply: ClipReply
    life: ClipLife


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No server will ever give the clip of a ticket; the error names video, span and server."""

    ticket: int
    error: FramefeedError


@dataclass(slots=True)
class _Wanted:
    """A clip that is wanted: what failed so far, and how much of its wait had no server."""

    ticket: int
    request: ClipRequest
    wanted_s: float
    absent_mark_s: float
    lost_s: float = 0.0
    rounds: int = 0
    avoid: set[str] = field(default_factory=set)
    permanent: tuple[str, FramefeedError] | None = None
    trouble: str = "not asked yet"

    def __str__(self) -> str:
        return f"{self.request.video} [{self.request.start_s:g}, {self.request.end_s:g}) s"


@dataclass(frozen=True, slots=True)
class _Attempt:
    number: int
    url: str
    wanted: _Wanted
    sent_s: float
    deadline_s: float


class Dispatch:
    """Requests of one feed. Times are seconds of one monotonic clock that the caller reads."""

    def __init__(self, fleet: Fleet, limits: DispatchLimits, *, ledger: Ledger) -> None:
        self._fleet = fleet
        self._limits = limits
        self._ledger = ledger
        self._next_attempt = 1
        self._attempts: dict[int, _Attempt] = {}  # in order of sending, so of deadline
        self._abandoned: OrderedDict[int, None] = OrderedDict()
        self._waiting: list[int] = []  # heap: the earliest wanted first
        self._resting: list[tuple[float, int]] = []  # heap: (until, ticket)
        self._wanted: dict[int, _Wanted] = {}
        self._finished: list[Got | Failed] = []
        self._progress_s = 0.0

    @property
    def in_flight(self) -> int:
        """Requests that await their answer."""
        return len(self._attempts)

    # What happened.

    def want(self, ticket: int, request: ClipRequest, *, now_s: float) -> None:
        """A clip is wanted. Tickets are asked for in growing order; each may be used once."""
        assert ticket not in self._wanted
        if not self._wanted:
            self._progress_s = now_s
        absent_s = self._fleet.absent_s(now_s)
        self._wanted[ticket] = _Wanted(ticket=ticket, request=request, wanted_s=now_s, absent_mark_s=absent_s)
        heapq.heappush(self._waiting, ticket)

    def connected(self, url: str, *, now_s: float) -> None:
        """A connection to a server stands."""
        self._lost(self._fleet.connected(url, now_s), now_s)

    def disconnected(self, url: str, *, now_s: float) -> None:
        """The connection to a server is gone; what it held is asked of others."""
        self._lost(self._fleet.disconnected(url, now_s), now_s)

    def unsent(self, send: Send, *, now_s: float) -> None:
        """A message could not be sent now: its clip waits again, the server rests."""
        attempt = self._attempts.get(send.call.attempt)
        if attempt is not None:
            self._fleet.busy(attempt.url, attempt=attempt.number, now_s=now_s)
            self._drop(attempt, "unsent")
            self._again(attempt.wanted, "unsent")

    def expects(self, url: str, attempt: int) -> int | None:
        """The ticket that a clip with this attempt from this server would fill; None if nobody awaits it."""
        found = self._attempts.get(attempt)
        return found.wanted.ticket if found is not None and found.url == url else None

    def replied(self, url: str, reply: Reply, *, pixel_bytes: int, now_s: float) -> None:
        """A reply arrived, with so many bytes of pixels behind its header. Raises BadInput for a foreign decoder."""
        if isinstance(reply, ServerReply):
            self._fleet.described(url, reply, now_s)
            return
        attempt = self._attempts.get(reply.attempt)
        if attempt is None or attempt.url != url:
            self._unawaited(url, reply, now_s=now_s)
        elif isinstance(reply, ErrorReply):
            self._refused(attempt, reply, now_s)
        elif pixel_bytes != attempt.wanted.request.clip_bytes or (
            len(reply.info.pts_s) != attempt.wanted.request.sampling.frames
        ):
            self.garbled(url, reply.attempt, now_s=now_s)
        else:
            self._got(attempt, reply, now_s)

    def garbled(self, url: str, attempt: int, *, now_s: float, why: str = "wrong number of pixels or times") -> None:
        """A reply arrived that cannot be used; `attempt` is what could still be read of it, 0 if nothing."""
        self._fleet.servers[url].trouble = f"sent a malformed reply ({why})"
        self._ledger.dropped_replies["malformed"] += 1
        found = self._attempts.get(attempt)
        if found is not None and found.url == url:
            self._failed(found, "malformed", now_s)

    # What to do.

    def tick(self, now_s: float) -> list[Send]:
        """All that is to be sent now. Raises Stalled when the run has stood still for too long."""
        self._expire(now_s)
        sends = [Send(url=url, call=DescribeCall(attempt=self._number())) for url in self._fleet.probes(now_s)]
        while self._resting and self._resting[0][0] <= now_s:
            heapq.heappush(self._waiting, heapq.heappop(self._resting)[1])
        self._assign(sends, now_s)
        if self._wanted and now_s - self._progress_s >= self._limits.stall_s:
            raise Stalled(f"{self.situation(now_s)} (stall_s is {self._limits.stall_s:g})")
        return sends

    def finished(self) -> list[Got | Failed]:
        """What became of tickets since the last call; each ticket ends once."""
        finished, self._finished = self._finished, []
        return finished

    def wake_s(self, now_s: float) -> float | None:
        """When tick() is next due if nothing happens before; None if nothing is due."""
        times = [self._progress_s + self._limits.stall_s] if self._wanted else []
        times += [attempt.deadline_s for attempt in self._attempts.values()][:1]
        times += [until_s for until_s, _ in self._resting[:1]]
        fleet_s = self._fleet.wake_s(now_s)
        return min(times if fleet_s is None else [*times, fleet_s], default=None)

    def situation(self, now_s: float) -> str:
        """One line for people: how long there was no clip, where each server stands, who waits where since when."""
        asked = {attempt.wanted.ticket: attempt for attempt in self._attempts.values()}
        lines = []
        for ticket in sorted(self._wanted)[:_NAMED]:
            wanted, attempt = self._wanted[ticket], asked.get(ticket)
            where = f"at {attempt.url}" if attempt is not None else f"at no server ({wanted.trouble})"
            lines.append(f"{wanted} {where} since {now_s - (attempt.sent_s if attempt else wanted.wanted_s):.1f} s")
        servers = "; ".join(f"{s}, since {now_s - s.since_s:.1f} s" for s in self._fleet.servers.values())
        return (
            f"no clip for {now_s - self._progress_s:.1f} s; servers: {servers}; {len(self._wanted)} clips wait"
            f"{', first: ' if lines else ''}{'; '.join(lines)}"
        )

    def close(self) -> None:
        """Give up everything in flight; counted as closed. Nothing is finished after it."""
        for attempt in list(self._attempts.values()):
            self._drop(attempt, "closed")
        self._wanted.clear()
        self._waiting.clear()
        self._resting.clear()

    # How.

    def _assign(self, sends: list[Send], now_s: float) -> None:
        aside: list[int] = []
        while self._waiting and self._fleet.has_room(now_s):
            wanted = self._wanted[self._waiting[0]]
            clip_bytes = wanted.request.clip_bytes
            if self._attempts and self._fleet.inflight_bytes + clip_bytes > self._limits.inflight_bytes:
                break
            heapq.heappop(self._waiting)
            if wanted.permanent is not None and not self._others(wanted.permanent[0]):
                self._finish(wanted, wanted.permanent[1], now_s)
                continue
            avoid = wanted.avoid if self._others(*wanted.avoid) else ()
            url = self._fleet.pick(now_s, avoid=avoid)
            if url is None:
                aside.append(wanted.ticket)
            else:
                sends.append(self._attempt(wanted, url, now_s))
        for ticket in aside:
            heapq.heappush(self._waiting, ticket)

    def _attempt(self, wanted: _Wanted, url: str, now_s: float) -> Send:
        number = self._number()
        self._attempts[number] = _Attempt(number, url, wanted, now_s, now_s + self._patience_s)
        self._fleet.sent(url, attempt=number, clip_bytes=wanted.request.clip_bytes)
        self._ledger.requested += 1
        call = DecodeCall(attempt=number, deadline_s=self._limits.attempt_s, request=wanted.request)
        return Send(url=url, call=call)

    @property
    def _patience_s(self) -> float:
        return self._limits.attempt_s + self._limits.grace_s

    def _number(self) -> int:
        self._next_attempt += 1
        return self._next_attempt - 1

    def _others(self, *urls: str) -> list[str]:
        return [url for url in self._fleet.up if url not in urls]

    def _expire(self, now_s: float) -> None:
        while self._attempts:
            attempt = next(iter(self._attempts.values()))
            if attempt.deadline_s > now_s:
                return
            self._fleet.servers[attempt.url].trouble = f"left a request unanswered for {self._patience_s:g} s"
            self._abandon(attempt)
            self._failed(attempt, DeadlineExceeded.code, now_s)

    def _got(self, attempt: _Attempt, reply: ClipReply, now_s: float) -> None:
        wanted = attempt.wanted
        absent_s = max(self._fleet.absent_s(attempt.sent_s) - wanted.absent_mark_s, 0.0)
        life = ClipLife(
            wanted_s=wanted.wanted_s,
            sent_s=attempt.sent_s,
            received_s=now_s,
            absent_s=absent_s + wanted.lost_s,
            stage_s=reply.info.stage_s,
        )
        self._fleet.served(attempt.url, attempt.number)
        self._fleet.servers[attempt.url].trouble = ""
        self._drop(attempt, "ok")
        ledger = self._ledger
        ledger.received_bytes += wanted.request.clip_bytes
        ledger.read_bytes += reply.info.read_bytes
        ledger.durations.setdefault(attempt.url, Durations()).add(now_s - attempt.sent_s)
        del self._wanted[wanted.ticket]
        self._progress_s = now_s
        self._finished.append(Got(ticket=wanted.ticket, reply=reply, life=life))

    def _refused(self, attempt: _Attempt, reply: ErrorReply, now_s: float) -> None:
        wanted, url = attempt.wanted, attempt.url
        error = error_from_code(reply.code, f"clip of {wanted}: {reply.message} (server {reply.server} at {url})")
        wanted.trouble = f"{error.code} from {url}: {reply.message:.120}"
        self._drop(attempt, error.code)
        if error.code == "busy":
            self._fleet.busy(url, attempt=attempt.number, now_s=now_s)
            self._again(wanted, error.code)
        elif error.code == "draining":
            self._fleet.leaving(url, attempt=attempt.number, now_s=now_s)
            self._again(wanted, error.code)
        elif error.code == DeadlineExceeded.code:  # it is alive and has more than it can do
            self._fleet.busy(url, attempt=attempt.number, now_s=now_s)
            self._elsewhere(wanted, url, reason=error.code, now_s=now_s)
        else:
            self._fleet.answered(url, attempt.number)
            self._blame_clip(wanted, url, error, now_s=now_s)

    def _blame_clip(self, wanted: _Wanted, url: str, error: FramefeedError, *, now_s: float) -> None:
        """A server tried and could not: another may; what should fail everywhere alike is believed of two."""
        if isinstance(error, Permanent):
            if wanted.permanent is not None or not self._others(url):
                self._finish(wanted, error, now_s)
                return
            wanted.permanent = url, error
        self._elsewhere(wanted, url, reason=error.code, now_s=now_s)

    def _failed(self, attempt: _Attempt, reason: str, now_s: float) -> None:
        """No usable answer to an attempt: the server's fault until shown otherwise."""
        lost = self._fleet.failed(attempt.url, attempt=attempt.number, now_s=now_s)
        attempt.wanted.lost_s += now_s - attempt.sent_s
        attempt.wanted.trouble = f"{reason} at {attempt.url}"
        self._drop(attempt, reason)
        self._elsewhere(attempt.wanted, attempt.url, reason=reason, now_s=now_s)
        self._lost(lost, now_s)

    def _lost(self, numbers: Iterable[int], now_s: float) -> None:
        for number in numbers:
            attempt = self._attempts[number]
            self._abandon(attempt)
            attempt.wanted.lost_s += now_s - attempt.sent_s
            attempt.wanted.trouble = f"{attempt.url} was lost"
            self._drop(attempt, ServerLost.code)
            self._again(attempt.wanted, ServerLost.code)

    def _again(self, wanted: _Wanted, reason: str) -> None:
        self._ledger.retries[reason] += 1
        heapq.heappush(self._waiting, wanted.ticket)

    def _elsewhere(self, wanted: _Wanted, url: str, *, reason: str, now_s: float) -> None:
        """Ask another server; when each has failed this clip, rest and begin again with all."""
        wanted.avoid.add(url)
        if self._others(*wanted.avoid) or not self._fleet.up:
            self._again(wanted, reason)
            return
        self._ledger.retries[reason] += 1
        wanted.avoid = {wanted.permanent[0]} if wanted.permanent is not None else set()
        rest_s = min(self._limits.retry_rest_s * 2.0 ** min(wanted.rounds, 30), self._limits.retry_rest_max_s)
        wanted.rounds += 1
        heapq.heappush(self._resting, (now_s + rest_s, wanted.ticket))

    def _finish(self, wanted: _Wanted, error: FramefeedError, now_s: float) -> None:
        del self._wanted[wanted.ticket]
        self._progress_s = now_s
        self._finished.append(Failed(ticket=wanted.ticket, error=error))

    def _drop(self, attempt: _Attempt, outcome: str) -> None:
        del self._attempts[attempt.number]
        self._ledger.outcomes[attempt.url, outcome] += 1

    def _abandon(self, attempt: _Attempt) -> None:
        self._abandoned[attempt.number] = None
        if len(self._abandoned) > _REMEMBERED_ATTEMPTS:
            self._abandoned.popitem(last=False)

    def _unawaited(self, url: str, reply: ClipReply | ErrorReply, *, now_s: float) -> None:
        if isinstance(reply, ErrorReply):
            self._fleet.servers[url].trouble = f"{reply.code}: {reply.message:.120}"
            if reply.code == "draining":
                self._fleet.leaving(url, attempt=None, now_s=now_s)
        if reply.attempt in self._abandoned:
            del self._abandoned[reply.attempt]
            reason = "late"
        else:
            reason = "duplicate" if 0 < reply.attempt < self._next_attempt else "unknown"
        self._ledger.dropped_replies[reason] += 1
