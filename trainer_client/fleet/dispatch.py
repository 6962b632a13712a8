"""The dispatch: which clip is asked of which server, and again of which other when no good answer comes.

A pure state machine of messages and time: the caller owns clocks and sockets, sends what tick() returns and hands in
what arrives. It knows nothing of batches; a clip is a ticket, a number that grows in the order in which clips are
wanted. The conservation law holds after every call: requested = ok + not used (by reason) + in flight.

A clip that takes long is asked of a second server as well (a hedge: Dean and Barroso, "The Tail at Scale", 2013). The
first usable answer is taken. The other attempt stays in flight, and in every bound, until its server has answered too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from framefeed.errors import DeadlineExceeded, FramefeedError, ServerLost, error_from_code
from framefeed.request import ClipRequest
from framefeed.wire import Call, ClipReply, DecodeCall, DescribeCall, ErrorReply, Reply, ServerReply
from trainer_client.fleet.affinity import part_key
from trainer_client.fleet.attempts import Attempt, Attempts, Wanted
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.timeout_estimator import TimeoutEstimator
from trainer_client.fleet.watchdog import Stalled, Watchdog
from trainer_client.measures.lives import Lives
from trainer_client.measures.stats import Durations, Ledger
from trainer_client.measures.wait import ClipLife

# Mere overload, at worst.
_HARMLESS = frozenset({"ok", "superseded", "unsent", "busy", "draining", "deadline_exceeded"})
_SILENCE = 3.0  # p99s without a word from a server that was asked: it is likely lost
_NAMED = 3  # waiting clips that a message names


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


class Dispatch:
    """Requests of one feed. Times are seconds of one monotonic clock that the caller reads."""

    def __init__(
        self, fleet: Fleet, limits: DispatchLimits, *, ledger: Ledger, say: Callable[[str], None] | None = None
    ) -> None:
        """`say` is told of a standstill that does not end the run."""
        self._fleet = fleet
        self._limits = limits
        self._ledger = ledger
        self._say = say
        self._timeouts = TimeoutEstimator(limits.timeouts)
        self._watchdog = Watchdog(limits.stall_s)
        self.attempts = Attempts()
        self.lives = Lives()
        self._waiting: list[int] = []  # heap: the earliest wanted first
        self._resting: list[tuple[float, int]] = []  # heap: (until, ticket)
        self._wanted: dict[int, Wanted] = {}
        self._finished: list[Got | Failed] = []

    @property
    def in_flight(self) -> int:
        """Requests that await their answer."""
        return len(self.attempts)

    @property
    def wanted(self) -> list[int]:
        """Tickets that have not ended."""
        return list(self._wanted)

    @property
    def idle(self) -> list[int]:
        """Those of them that no server is asked for now: they wait for one or rest."""
        return [*self._waiting, *(ticket for _, ticket in self._resting)]

    @property
    def inflight_limit_bytes(self) -> int:
        """Bound on the clips asked for and not yet received."""
        return self._limits.inflight_bytes

    @property
    def deadline_s(self) -> float:
        """What a server is given for a clip now."""
        return self._timeouts.deadline_s

    # What happened.

    def want(self, ticket: int, request: ClipRequest, *, now_s: float) -> None:
        """A clip is wanted. Tickets are asked for in growing order; one that ended may be used for another clip."""
        assert ticket not in self._wanted
        if not self._wanted:
            self._watchdog.progress(now_s)
        self._wanted[ticket] = Wanted(
            ticket=ticket,
            request=request,
            key=part_key(request, part_s=self._limits.affinity_part_s),
            wanted_s=now_s,
        )
        self.lives.wanted(ticket, now_s)
        heapq.heappush(self._waiting, ticket)

    def joined(self, url: str, *, now_s: float) -> None:
        """A server may be used from now on, once a connection to it stands."""
        self._fleet.joined(url, now_s)

    def left(self, url: str, *, now_s: float) -> None:
        """A server is no member any more: what it held is asked of others, unless it drains and may yet answer."""
        self._lost(self._fleet.left(url, now_s), now_s)

    def connected(self, url: str, *, now_s: float) -> None:
        """A connection to a server stands."""
        self._lost(self._fleet.connected(url, now_s), now_s)

    def disconnected(self, url: str, *, now_s: float) -> None:
        """The connection to a server is gone; what it held is asked of others."""
        self._lost(self._fleet.disconnected(url, now_s), now_s)
        self.lives.gone(url)

    def unsent(self, send: Send, *, now_s: float) -> None:
        """A message could not be sent now: its clip waits again, the server rests."""
        attempt = self.attempts.of(send.url, send.call.attempt)
        if attempt is not None:
            self._fleet.busy(attempt.url, attempt=attempt.number, now_s=now_s)
            self._tell_lost(attempt, now_s)
            self._drop(attempt, "unsent")
            self._again(attempt.wanted, "unsent")

    def expects(self, url: str, attempt: int) -> int | None:
        """The ticket that a clip with this attempt from this server would fill; None if nobody needs it."""
        found = self.attempts.of(url, attempt)
        return None if found is None or found.wanted.done else found.wanted.ticket

    def replied(self, url: str, reply: Reply, *, pixel_bytes: int, now_s: float) -> None:
        """A reply arrived, with so many bytes of pixels behind its header. Raises BadInput for a foreign decoder."""
        if isinstance(reply, ServerReply):
            self._fleet.described(url, reply, now_s)
            return
        self.lives.heard(url, reply.load, now_s)
        attempt = self.attempts.of(url, reply.attempt)
        if attempt is None:
            self._unawaited(url, reply, now_s=now_s)
        elif isinstance(reply, ErrorReply):
            self._refused(attempt, reply, now_s)
        elif pixel_bytes != attempt.wanted.request.clip_bytes or (
            len(reply.info.pts_s) != attempt.wanted.request.sampling.frames
        ):
            self.malformed(url, reply.attempt, now_s=now_s)
        elif attempt.wanted.done:
            self._superseded(attempt, now_s)
        else:
            self._got(attempt, reply, now_s)

    def malformed(self, url: str, attempt: int, *, now_s: float, why: str = "wrong number of pixels or times") -> None:
        """A reply arrived that cannot be used; `attempt` is what could still be read of it, 0 if nothing."""
        self._fleet.troubled(url, f"sent a malformed reply ({why})")
        self._ledger.dropped_replies["malformed"] += 1
        found = self.attempts.of(url, attempt)
        if found is not None:
            self._failed(found, "malformed", now_s)

    # What to do.

    def tick(self, now_s: float) -> list[Send]:
        """All that is to be sent now. Raises Stalled when the run has stood still for too long and is to end then."""
        for attempt in self.attempts.overdue(now_s):
            self._give_up(attempt, now_s)
        sends = [Send(url=url, call=DescribeCall(attempt=self.attempts.number())) for url in self._fleet.probes(now_s)]
        while self._resting and self._resting[0][0] <= now_s:
            heapq.heappush(self._waiting, heapq.heappop(self._resting)[1])
        self._hedge(sends, now_s)
        self._assign(sends, now_s)
        self.lives.held(self._held_by(now_s), now_s)
        if self._wanted and self._watchdog.barks(now_s):
            self._stand_still(now_s)
        return sends

    def finished(self) -> list[Got | Failed]:
        """What became of tickets since the last call; each ticket ends once."""
        finished, self._finished = self._finished, []
        return finished

    def wake_s(self, now_s: float) -> float | None:
        """When tick() is next due if nothing happens before; None if nothing is due."""
        times = [self._watchdog.due_s] if self._wanted else []
        times += [until_s for until_s, _ in self._resting[:1]]
        times += [at_s for at_s in (self.attempts.next_s(), self._fleet.wake_s(now_s)) if at_s is not None]
        return min(times, default=None)

    def situation(self, now_s: float) -> str:
        """One line for people: how long there was no clip, where each server stands, who waits where since when."""
        asked = {attempt.wanted.ticket: attempt for attempt in self.attempts}
        lines = []
        for ticket in sorted(self._wanted)[:_NAMED]:
            wanted, attempt = self._wanted[ticket], asked.get(ticket)
            where = f"at {attempt.url}" if attempt is not None else f"at no server ({wanted.trouble})"
            lines.append(f"{wanted} {where} since {now_s - (attempt.sent_s if attempt else wanted.wanted_s):.1f} s")
        servers = "; ".join(f"{s}, since {now_s - s.since_s:.1f} s" for s in self._fleet.servers.values())
        return (
            f"no clip for {self._watchdog.still_s(now_s):.1f} s; servers: {servers}; {len(self._wanted)} clips wait"
            f"{', first: ' if lines else ''}{'; '.join(lines)}"
        )

    def close(self) -> None:
        """Give up everything in flight; counted as closed. Nothing is finished after it."""
        for attempt in self.attempts:
            self._drop(attempt, "closed")
        self._wanted.clear()
        self._waiting.clear()
        self._resting.clear()

    @property
    def has_spare(self) -> bool:
        """Whether servers have threads for as many clips again as are asked for, and nothing holds any back."""
        return not self._waiting and self._spare_clips() >= max(self.in_flight, 1)

    def life_so_far(self, tickets: Sequence[int], now_s: float) -> ClipLife | None:
        """What became until now of that clip among these which is likely the last to come; None if none is wanted."""
        return self.lives.so_far(tickets, now_s, silence_s=self._silence_s)

    # How.

    def _held_by(self, now_s: float) -> str:
        """Why clips wait that could be asked for; "" if none does."""
        if not self._waiting:
            return ""
        if not self._fleet.up or self._all_silent(now_s):
            return "no_server"
        has_credit = self._has_credit(self._wanted[self._waiting[0]])
        limited = not has_credit and self._spare_clips() > 0 and self._fleet.has_room(now_s)
        return "client_limit" if limited else "server_queue"

    @property
    def _silence_s(self) -> float:
        p99_s = self._timeouts.p99_s
        return self.deadline_s if p99_s is None else min(_SILENCE * p99_s, self.deadline_s)

    def _all_silent(self, now_s: float) -> bool:
        """Whether every server that is up was asked for clips and has said nothing for long."""
        asked_s = {attempt.url: attempt.sent_s for attempt in reversed(list(self.attempts))}
        return all(
            url in asked_s and self.lives.is_silent(url, asked_s[url], now_s, silence_s=self._silence_s)
            for url in self._fleet.up
        )

    def _spare_clips(self) -> int:
        """Threads of servers that no clip of ours is for, unless others' clips wait for them."""
        servers = self._fleet.servers
        return 0 if self.lives.queued else sum(servers[url].workers for url in self._fleet.up) - self.in_flight

    def _assign(self, sends: list[Send], now_s: float) -> None:
        aside: list[int] = []
        while self._waiting and self._fleet.has_room(now_s):
            wanted = self._wanted[self._waiting[0]]
            if not self._has_credit(wanted):
                break
            heapq.heappop(self._waiting)
            if self._judge(wanted, now_s):
                continue
            avoid = wanted.avoid if self._others(*wanted.avoid) else ()
            url = self._fleet.pick(now_s, avoid=avoid, key=wanted.key, clip_bytes=wanted.request.clip_bytes)
            if url is None:
                aside.append(wanted.ticket)
            else:
                sends.append(self._attempt(wanted, url, now_s=now_s))
        for ticket in aside:
            heapq.heappush(self._waiting, ticket)

    def _hedge(self, sends: list[Send], now_s: float) -> None:
        """Ask a second server for clips that take long, within the budget; the others wait a turn.

        A clip that has lost an attempt is asked of two at once, beyond the budget: two faults in a row then cost it one
        deadline, not two.
        """
        for attempt in self.attempts.to_hedge(now_s):
            wanted, ledger = attempt.wanted, self._ledger
            if wanted.done or len(wanted.asked) > 1:
                continue
            affordable = ledger.hedged + 1 <= self._limits.hedge_share * (ledger.requested + 1)
            url = None
            if (affordable or wanted.owed_hedges) and self._has_credit(wanted):
                avoid = {*wanted.avoid, *wanted.asked}
                url = self._fleet.pick(now_s, avoid=avoid, key=wanted.key, clip_bytes=wanted.request.clip_bytes)
            if url is None:
                self.attempts.hedge_at(attempt, now_s + max(self._timeouts.p95_s or 0.0, self._limits.retry_rest_s))
            else:
                ledger.hedged += 1
                wanted.owed_hedges -= not affordable
                sends.append(self._attempt(wanted, url, now_s=now_s, hedge=True))

    def _has_credit(self, wanted: Wanted) -> bool:
        """Whether its bytes may be in flight as well; one clip may be, however large."""
        bytes_with_it = self._fleet.inflight_bytes + wanted.request.clip_bytes
        return not len(self.attempts) or bytes_with_it <= self._limits.inflight_bytes

    def _attempt(self, wanted: Wanted, url: str, *, now_s: float, hedge: bool = False) -> Send:
        deadline_s, p95_s = self._timeouts.deadline_s, self._timeouts.p95_s
        attempt = Attempt(
            number=self.attempts.number(),
            url=url,
            wanted=wanted,
            sent_s=now_s,
            give_up_s=now_s + deadline_s + self._limits.grace_s,
            hedge=hedge,
        )
        hedges = self._limits.hedge_share > 0 and len(self._fleet.servers) > 1
        after_s = 0.0 if wanted.owed_hedges else p95_s
        self.attempts.add(attempt, hedge_at_s=None if after_s is None or not hedges else now_s + after_s)
        self.lives.asked(wanted.ticket, url, now_s)
        self._fleet.sent(url, attempt=attempt.number, clip_bytes=wanted.request.clip_bytes)
        self._ledger.requested += 1
        call = DecodeCall(attempt=attempt.number, deadline_s=deadline_s, request=wanted.request, alone=wanted.alone)
        return Send(url=url, call=call)

    def _others(self, *urls: str) -> list[str]:
        return [url for url in self._fleet.up if url not in urls]

    def _give_up(self, attempt: Attempt, now_s: float) -> None:
        self._fleet.troubled(attempt.url, f"left a request unanswered for {now_s - attempt.sent_s:.1f} s")
        self._took(attempt, now_s)
        self.attempts.abandon(attempt)
        self._failed(attempt, DeadlineExceeded.code, now_s)

    def _stand_still(self, now_s: float) -> None:
        line = f"{self.situation(now_s)} (stall_s is {self._limits.stall_s:g})"
        if self._limits.stall_ends:
            raise Stalled(line)
        self._ledger.stalls += 1
        if self._say is not None:
            self._say(line)

    def _got(self, attempt: Attempt, reply: ClipReply, now_s: float) -> None:
        wanted = attempt.wanted
        life = self.lives.got(wanted.ticket, attempt.url, reply.info, reply.load, now_s)
        self._took(attempt, now_s)
        self._fleet.served(attempt.url, attempt.number)
        ledger = self._ledger
        ledger.received_bytes += wanted.request.clip_bytes
        ledger.read_bytes += reply.info.read_bytes
        ledger.durations.setdefault(attempt.url, Durations()).add(now_s - attempt.sent_s)
        if attempt.hedge:
            ledger.hedges["hedge"] += 1
        self._end(wanted, Got(ticket=wanted.ticket, reply=reply, life=life), now_s)
        self._drop(attempt, "ok")

    def _superseded(self, attempt: Attempt, now_s: float) -> None:
        """A good clip, but another server gave it before."""
        self._took(attempt, now_s)
        self._fleet.served(attempt.url, attempt.number)
        self._ledger.dropped_replies["late"] += 1
        self._drop(attempt, "superseded")

    def _refused(self, attempt: Attempt, reply: ErrorReply, now_s: float) -> None:
        wanted, url = attempt.wanted, attempt.url
        error = error_from_code(reply.code, f"clip of {wanted}: {reply.message} (server {reply.server} at {url})")
        wanted.trouble = f"{error.code} from {url}: {reply.message:.120}"
        if not wanted.done:
            self.lives.refused(wanted.ticket, url, error.code, now_s)
        self._drop(attempt, error.code)
        if error.code == "busy":
            self._fleet.busy(url, attempt=attempt.number, now_s=now_s)
            self._again(wanted, error.code)
        elif error.code == "draining":
            self._fleet.leaving(url, attempt=attempt.number, now_s=now_s)
            self._again(wanted, error.code)
        elif error.code == DeadlineExceeded.code:  # it is alive and has more than it can do
            self._took(attempt, now_s)
            self._fleet.busy(url, attempt=attempt.number, now_s=now_s)
            self._elsewhere(wanted, url, reason=error.code, now_s=now_s)
        else:
            self._fleet.answered(url, attempt.number)
            wanted.poison.add(url, error, now_s=now_s, storage_s=self._limits.storage_s)
            if not self._judge(wanted, now_s):
                self._elsewhere(wanted, url, reason=error.code, now_s=now_s)

    def _judge(self, wanted: Wanted, now_s: float) -> bool:
        """End a clip that is held to be bad itself."""
        if wanted.done:
            return True
        error = wanted.poison.verdict(self._fleet.up, witnesses=self._limits.witnesses, what=str(wanted))
        if error is not None:
            self._end(wanted, Failed(ticket=wanted.ticket, error=error), now_s)
        return error is not None

    def _failed(self, attempt: Attempt, reason: str, now_s: float) -> None:
        """No usable answer to an attempt: the server's fault until shown otherwise."""
        lost = self._fleet.failed(attempt.url, attempt=attempt.number, now_s=now_s)
        self._count_loss(attempt, now_s)
        attempt.wanted.trouble = f"{reason} at {attempt.url}"
        self._drop(attempt, reason)
        self._elsewhere(attempt.wanted, attempt.url, reason=reason, now_s=now_s)
        self._lost(lost, now_s)

    def _lost(self, numbers: Iterable[int], now_s: float) -> None:
        for number in numbers:
            attempt = self.attempts.numbered(number)
            assert attempt is not None, "the fleet holds no attempt that is not open"
            self.attempts.abandon(attempt)
            self._count_loss(attempt, now_s)
            attempt.wanted.trouble = f"{attempt.url} was lost"
            self._drop(attempt, ServerLost.code)
            self._again(attempt.wanted, ServerLost.code)

    def _again(self, wanted: Wanted, reason: str) -> None:
        if not (wanted.done or wanted.asked):
            self._ledger.retries[reason] += 1
            heapq.heappush(self._waiting, wanted.ticket)

    def _elsewhere(self, wanted: Wanted, url: str, *, reason: str, now_s: float) -> None:
        """Ask another server; when each has failed this clip, rest and begin again with all."""
        wanted.avoid.add(url)
        if wanted.done or wanted.asked or self._others(*wanted.avoid) or not self._fleet.up:
            self._again(wanted, reason)
            return
        self._ledger.retries[reason] += 1
        wanted.avoid = set(wanted.poison.permanent)
        rest_s = min(self._limits.retry_rest_s * 2.0 ** min(wanted.rounds, 30), self._limits.retry_rest_max_s)
        wanted.rounds += 1
        self.lives.rests(wanted.ticket, now_s + rest_s)
        heapq.heappush(self._resting, (now_s + rest_s, wanted.ticket))

    def _end(self, wanted: Wanted, how: Got | Failed, now_s: float) -> None:
        wanted.done = True
        del self._wanted[wanted.ticket]
        self.lives.forget(wanted.ticket)
        self._watchdog.progress(now_s)
        self._finished.append(how)

    def _drop(self, attempt: Attempt, outcome: str) -> None:
        self.attempts.remove(attempt)
        attempt.wanted.alone |= outcome not in _HARMLESS
        self._ledger.outcomes[attempt.url, outcome] += 1
        if attempt.hedge and outcome != "ok":
            self._ledger.hedges["first" if attempt.wanted.done else "neither"] += 1

    def _took(self, attempt: Attempt, now_s: float) -> None:
        self._timeouts.took(now_s - attempt.sent_s)
        self._fleet.took(attempt.url, now_s - attempt.sent_s)

    def _unawaited(self, url: str, reply: ClipReply | ErrorReply, *, now_s: float) -> None:
        if isinstance(reply, ErrorReply):
            self._fleet.troubled(url, f"{reply.code}: {reply.message:.120}")
            if reply.code == "draining":
                self._fleet.leaving(url, attempt=None, now_s=now_s)
        sent_s = self.attempts.late(reply.attempt)
        if sent_s is not None:
            self._timeouts.took(now_s - sent_s)
            reason = "late"
        else:
            reason = "duplicate" if self.attempts.was_given(reply.attempt) else "unknown"
        self._ledger.dropped_replies[reason] += 1

    def _count_loss(self, attempt: Attempt, now_s: float) -> None:
        """An attempt got no answer: its clip waited in vain, and is next asked of two servers at once."""
        self._tell_lost(attempt, now_s)
        attempt.wanted.owed_hedges += 1

    def _tell_lost(self, attempt: Attempt, now_s: float) -> None:
        if not attempt.wanted.done:
            self.lives.lost(attempt.wanted.ticket, attempt.url, now_s)
