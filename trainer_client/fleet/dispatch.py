"""The dispatch: which clip is asked of which server, and again of which other when no good answer comes.

A pure state machine of messages and time: the caller owns clocks and sockets, sends what tick() returns and hands in
what arrives. It knows nothing of batches; a clip is a ticket, a number that grows in the order in which clips are
wanted. The conservation law holds after every call: requested = ok + not used (by reason) + in flight.

A clip may be asked of two servers at once; the first usable answer is taken, and the other attempt is cancelled. One
that is cancelled stays in flight, and in every bound, until its server's last word on it, or until that is overdue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from framefeed.errors import (
    BadInput,
    Cancelled,
    DeadlineExceeded,
    ResourceExhausted,
    ServerLost,
    StorageFault,
    WrongVersion,
    error_from_code,
)
from framefeed.request import ClipRequest
from framefeed.wire import ClipReply, DecodeCall, ErrorReply, Reply, ServerReply
from trainer_client.fleet.accounts import Accounts
from trainer_client.fleet.affinity import part_key
from trainer_client.fleet.assignment import Assignment, Desk
from trainer_client.fleet.attempts import Attempt, Attempts, Stage, Wanted
from trainer_client.fleet.calls import Calls
from trainer_client.fleet.clip_queue import ClipQueue
from trainer_client.fleet.deadlines import Step, step_of
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.holds import Holds
from trainer_client.fleet.messages import Failed, Got, Send
from trainer_client.fleet.run_identity import Misfit
from trainer_client.fleet.situation import situation
from trainer_client.fleet.timeout_estimator import TimeoutEstimator
from trainer_client.fleet.verdicts import Verdicts
from trainer_client.fleet.watchdog import Stalled, Watchdog
from trainer_client.measures.lives import Lives
from trainer_client.measures.pace import Answer
from trainer_client.measures.stats import Ledger


class Dispatch:
    """Requests of one feed. Times are seconds of one monotonic clock that the caller reads."""

    def __init__(
        self, fleet: Fleet, limits: DispatchLimits, *, ledger: Ledger, say: Callable[[str], object] = str
    ) -> None:
        """`say` is told of a standstill that does not end the run."""
        self._fleet = fleet
        self._limits = limits
        self._ledger = ledger
        self._say = say
        self._timeouts = TimeoutEstimator(limits.timeouts)
        self._watchdog = Watchdog(limits.stall_s)
        self._accounts = Accounts(ledger, self._timeouts)
        self._verdicts = Verdicts(fleet, limits)
        self.attempts = Attempts()
        self.lives = Lives()
        self._clips = ClipQueue()
        self._calls = Calls(self.attempts, limits)
        desk = Desk(
            fleet=fleet,
            clips=self._clips,
            attempts=self.attempts,
            calls=self._calls,
            timeouts=self._timeouts,
            ledger=ledger,
            lives=self.lives,
        )
        self._assignment = Assignment(desk, limits, judge=self._judge)
        self.holds = Holds(desk, self._assignment)
        self._finished: list[Got | Failed] = []

    @property
    def in_flight(self) -> int:
        """Requests that await their answer."""
        return len(self.attempts)

    @property
    def wanted(self) -> list[int]:
        """Tickets that have not ended."""
        return list(self._clips.wanted)

    @property
    def idle(self) -> list[int]:
        """Those of them that no server is asked for now: they wait for one or rest."""
        return self._clips.idle

    @property
    def only_awaits(self) -> bool:
        """Whether answers are awaited and no clip waits to be asked for."""
        return len(self.attempts) > 0 and self._clips.first() is None

    @property
    def identity(self) -> dict[str, str]:
        """Name, data set and decoder of the run, as far as they are known."""
        known = self._fleet.identity
        return {"run": self._limits.run, "dataset": known.dataset, "fingerprint": known.fingerprint}

    @property
    def inflight_limit_bytes(self) -> int:
        """Bound on the clips asked for and not yet received."""
        return self._limits.inflight_bytes

    @property
    def deadline_s(self) -> float:
        """After which time a clip that is asked for now has a second server asked."""
        return self._timeouts.deadline_s

    # What happened.

    def want(self, ticket: int, request: ClipRequest, *, now_s: float) -> None:
        """A clip is wanted. Tickets are asked for in growing order; one that ended may be used for another clip."""
        assert ticket not in self._clips.wanted
        if not self._clips.wanted:
            self._watchdog.progress(now_s)
        self.lives.wanted(ticket, now_s)
        key = part_key(request, part_s=self._limits.affinity_part_s)
        clip_bytes = request.clip_bytes
        self._clips.add(Wanted(ticket=ticket, request=request, clip_bytes=clip_bytes, key=key, wanted_s=now_s))

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
        if attempt is not None and isinstance(send.call, DecodeCall):
            self._fleet.busy(attempt.url, attempt=attempt.number, now_s=now_s)
            self._tell_lost(attempt, now_s)
            self._drop(attempt, "unsent")
            self._again(attempt, "unsent")

    def expects(self, url: str, attempt: int) -> int | None:
        """The ticket that a clip with this attempt from this server would fill; None if nobody needs it."""
        found = self.attempts.of(url, attempt)
        return None if found is None or found.wanted.done else found.wanted.ticket

    def replied(self, url: str, reply: Reply, *, pixel_bytes: int, now_s: float) -> None:
        """A reply arrived, with so many bytes of pixels behind its header."""
        if isinstance(reply, ServerReply):
            self._lost(self._fleet.described(url, reply, now_s), now_s)
            return
        self._fleet.heard(url, reply.load, now_s)
        attempt = self.attempts.of(url, reply.attempt)
        if attempt is None:
            self._unawaited(url, reply, now_s=now_s)
        elif isinstance(reply, ErrorReply):
            self._refused(attempt, reply, now_s)
        elif not attempt.wanted.is_whole(reply, pixel_bytes=pixel_bytes):
            self.malformed(url, reply.attempt, now_s=now_s)
        elif attempt.wanted.done:
            self._superseded(attempt, now_s)
        else:
            self._got(attempt, reply, now_s)

    def malformed(self, url: str, attempt: int, *, now_s: float, why: str = "wrong number of pixels or times") -> None:
        """A reply arrived that cannot be used; `attempt` is what could still be read of it, 0 if nothing."""
        self._ledger.dropped_replies["malformed"] += 1
        self._lost(self._fleet.unread(url, f"sent a malformed reply ({why})", now_s), now_s)
        found = self.attempts.of(url, attempt)
        if found is not None:
            self._failed(found, "malformed", now_s)

    def foreign(self, url: str, why: str, *, now_s: float) -> None:
        """A reply arrived that is of another version of the contract."""
        self._ledger.dropped_replies["malformed"] += 1
        self._lost(self._fleet.shun(url, Misfit("version", why), now_s), now_s)

    # What to do.

    def tick(self, now_s: float, *, own_silence_s: float = 0.0) -> list[Send]:
        """All that is to be sent now. Raises Stalled when the run has stood still for too long and is to end then, and
        BadInput when no server fits the run.

        `own_silence_s` of the time since the last call nobody listened to the servers: it is not held against them.
        """
        if own_silence_s > 0:
            self.attempts.postpone(own_silence_s)
            self._watchdog.postpone(own_silence_s)
        self._lost(self._fleet.settle(now_s), now_s)
        for attempt in self.attempts.due(now_s):
            self._look(attempt, now_s)
        for url in self._fleet.probes(now_s):
            self._calls.describe(url)
        self._clips.wake(now_s)
        self._assignment.hedge(now_s)
        self._assignment.assign(now_s)
        self.holds.note(now_s)
        self._end_run(now_s)
        return self._calls.take()

    def finished(self) -> list[Got | Failed]:
        """What became of tickets since the last call; each ticket ends once."""
        finished, self._finished = self._finished, []
        return finished

    def wake_s(self, now_s: float) -> float | None:
        """When tick() is next due if nothing happens before; None if nothing is due."""
        if self._calls.any:
            return now_s
        times = [self._clips.next_s, self.attempts.next_s(), self._fleet.wake_s(now_s)]
        times += [self._watchdog.due_s] if self._clips.wanted else []
        return min((at_s for at_s in times if at_s is not None), default=None)

    def situation(self, now_s: float) -> str:
        """One line for people: how long there was no clip, where each server stands, who waits where since when."""
        still_s = self._watchdog.still_s(now_s)
        return situation(self._fleet.servers.values(), self._clips.wanted, still_s=still_s, now_s=now_s)

    def close(self) -> None:
        """Give up everything in flight; counted as closed. Nothing is finished after it."""
        for attempt in self.attempts:
            self._drop(attempt, "closed")
        self._clips.clear()
        self._calls.take()

    # How: deadlines.

    def _cancel(self, attempt: Attempt, outcome: str, now_s: float) -> None:
        """It is not wanted any more, and counts as this: its server is told, and has a moment for the last word."""
        self._calls.cancel(attempt)
        attempt.outcome = outcome
        self._enter(attempt, Stage.CANCELLED, now_s, look_s=now_s + self._limits.grace_s)

    def _enter(self, attempt: Attempt, stage: Stage, now_s: float, *, look_s: float) -> None:
        attempt.enter(stage, now_s=now_s, look_s=look_s)
        self.attempts.look_at(attempt)

    def _look(self, attempt: Attempt, now_s: float) -> None:
        """Its time is up, in one way or another."""
        heard = self._fleet.heard_since(attempt.url, attempt.since_s)
        match step_of(attempt, heard=heard, now_s=now_s):
            case Step.OVERDUE:
                self._ledger.overdue += 1
                self._calls.describe(attempt.url)
                look_s = min(now_s + self._limits.grace_s, attempt.give_up_s)
                self._enter(attempt, Stage.OVERDUE, now_s, look_s=look_s)
                self._assignment.owe_hedge(attempt.wanted, now_s)
            case Step.SLOW:
                self._enter(attempt, Stage.SLOW, now_s, look_s=attempt.give_up_s)
            case Step.SILENT:
                self._calls.cancel(attempt)
                self._silent(attempt, now_s)
            case Step.TIME_UP:
                self._time_up(attempt, now_s)
            case Step.GONE:
                self._took(attempt, now_s)
                self.attempts.abandon(attempt)
                self._fleet.answered(attempt.url, attempt.number)
                self._drop(attempt, attempt.outcome)
            case Step.MUTE:
                self._silent(attempt, now_s)

    def _silent(self, attempt: Attempt, now_s: float) -> None:
        """Its server is not there, whatever else it was cancelled for."""
        attempt.outcome = DeadlineExceeded.code
        self._fleet.troubled(attempt.url, f"left a request unanswered for {now_s - attempt.sent_s:.1f} s")
        self._took(attempt, now_s)
        self.attempts.abandon(attempt)
        self._failed(attempt, DeadlineExceeded.code, now_s)

    def _time_up(self, attempt: Attempt, now_s: float) -> None:
        """It had all the time there is: another server is asked."""
        self._calls.describe(attempt.url)
        attempt.wanted.trouble = f"{DeadlineExceeded.code} at {attempt.url}"
        if not self._fleet.heard_since(attempt.url, math.nextafter(attempt.sent_s, math.inf)):
            self._count_loss(attempt, now_s)
        if not attempt.wanted.done:
            self.lives.slow(attempt.wanted.ticket, attempt.url, now_s)
        self._cancel(attempt, DeadlineExceeded.code, now_s)
        self._elsewhere(attempt.wanted, attempt.url, reason=DeadlineExceeded.code, now_s=now_s)

    def _end_run(self, now_s: float) -> None:
        """Raise what ends the run, or say it if it is only to be told."""
        unfit = self._fleet.unfit(now_s)
        if unfit is not None:
            raise BadInput(unfit)
        if self._clips.wanted and self._watchdog.barks(now_s):
            line = f"{self.situation(now_s)} (stall_s is {self._limits.stall_s:g})"
            if self._limits.stall_ends:
                raise Stalled(line)
            self._ledger.stalls += 1
            self._say(line)

    # How: answers.

    def _got(self, attempt: Attempt, reply: ClipReply, now_s: float) -> None:
        wanted = attempt.wanted
        answer = Answer(sent_s=attempt.sent_s, received_s=now_s, stage_s=reply.info.stage_s, load=reply.load)
        life = self.lives.got(wanted.ticket, attempt.url, answer)
        self._accounts.got(attempt, reply, now_s)
        self._verdicts.came(reply.info.read_bytes, now_s)
        self._took(attempt, now_s)
        self._fleet.served(attempt.url, attempt.number, now_s)
        self._drop(attempt, "ok")
        self._end(wanted, Got(ticket=wanted.ticket, reply=reply, life=life), now_s)

    def _superseded(self, attempt: Attempt, now_s: float) -> None:
        """A good clip, but another server gave it before."""
        self._took(attempt, now_s)
        self._fleet.served(attempt.url, attempt.number, now_s)
        self._ledger.dropped_replies["late"] += 1
        self._drop(attempt, attempt.outcome or "superseded")

    def _refused(self, attempt: Attempt, reply: ErrorReply, now_s: float) -> None:
        wanted, url = attempt.wanted, attempt.url
        error = error_from_code(reply.code, f"clip of {wanted}: {reply.message} (server {reply.server} at {url})")
        code = error.code
        if code == WrongVersion.code:
            self._lost(self._fleet.shun(url, Misfit("version", reply.message), now_s), now_s)
            return
        wanted.trouble = f"{code} from {url}: {reply.message:.120}"
        self._drop(attempt, attempt.outcome or code)
        if not wanted.done and attempt.stage is not Stage.CANCELLED:
            self.lives.refused(wanted.ticket, url, code, now_s)
        if code == "busy":
            self._fleet.busy(url, attempt=attempt.number, now_s=now_s)
            self._again(attempt, code)
        elif code == "draining":
            self._fleet.leaving(url, attempt=attempt.number, now_s=now_s)
            self._again(attempt, code)
        elif code in (DeadlineExceeded.code, ResourceExhausted.code):  # it is alive and has more than it can do
            self._took(attempt, now_s)
            self._fleet.busy(url, attempt=attempt.number, now_s=now_s)
            self._retry(attempt, reason=code, now_s=now_s)
        elif code == Cancelled.code:
            self._took(attempt, now_s)
            self._fleet.answered(url, attempt.number)
            self._retry(attempt, reason=code, now_s=now_s)
        else:
            if code == StorageFault.code:
                self._fleet.faulted(url, attempt=attempt.number, now_s=now_s, why=reply.message)
            else:
                self._fleet.answered(url, attempt.number)
            self._verdicts.failed(attempt, error, now_s)
            if not self._judge(wanted, now_s):
                self._retry(attempt, reason=code, now_s=now_s)

    def _judge(self, wanted: Wanted, now_s: float) -> bool:
        """End a clip that is held to be bad itself."""
        if wanted.done:
            return True
        error = self._verdicts.on(wanted, now_s)
        if error is not None:
            self._end(wanted, Failed(ticket=wanted.ticket, error=error), now_s)
        return error is not None

    def _unawaited(self, url: str, reply: ClipReply | ErrorReply, *, now_s: float) -> None:
        if isinstance(reply, ErrorReply):
            self._fleet.troubled(url, f"{reply.code}: {reply.message:.120}")
            if reply.code == "draining":
                self._fleet.leaving(url, attempt=None, now_s=now_s)
            elif reply.code == WrongVersion.code:
                self._lost(self._fleet.shun(url, Misfit("version", reply.message), now_s), now_s)
        self._accounts.unneeded(
            late_since_s=self.attempts.late(reply.attempt),
            was_given=self.attempts.was_given(reply.attempt),
            now_s=now_s,
        )

    # How: what becomes of clips.

    def _failed(self, attempt: Attempt, reason: str, now_s: float) -> None:
        """No usable answer to an attempt: the server's fault until shown otherwise."""
        lost = self._fleet.failed(attempt.url, attempt=attempt.number, now_s=now_s)
        self._drop(attempt, attempt.outcome or reason)
        if attempt.stage is not Stage.CANCELLED:
            attempt.wanted.trouble = f"{reason} at {attempt.url}"
            self._count_loss(attempt, now_s)
        self._retry(attempt, reason=reason, now_s=now_s)
        self._lost(lost, now_s)

    def _lost(self, numbers: Iterable[int], now_s: float) -> None:
        for number in numbers:
            attempt = self.attempts.numbered(number)
            assert attempt is not None, "the fleet holds no attempt that is not open"
            self.attempts.abandon(attempt)
            self._drop(attempt, attempt.outcome or ServerLost.code)
            if attempt.stage is not Stage.CANCELLED:
                attempt.wanted.trouble = f"{attempt.url} was lost"
                self._count_loss(attempt, now_s)
            self._again(attempt, ServerLost.code)

    def _count_loss(self, attempt: Attempt, now_s: float) -> None:
        """An attempt got no answer: its clip waited in vain, and is next asked of two servers at once."""
        self._tell_lost(attempt, now_s)
        self._assignment.owe_hedge(attempt.wanted, now_s)

    def _tell_lost(self, attempt: Attempt, now_s: float) -> None:
        if not attempt.wanted.done:
            self.lives.lost(attempt.wanted.ticket, attempt.url, now_s)

    def _again(self, attempt: Attempt, reason: str) -> None:
        """Ask for its clip again, wherever there is room."""
        wanted = attempt.wanted
        if not (wanted.done or wanted.asked or attempt.stage is Stage.CANCELLED):
            self._ledger.retries[reason] += 1
            self._clips.wait(wanted)

    def _retry(self, attempt: Attempt, *, reason: str, now_s: float) -> None:
        """Ask another server, unless that was done when the attempt was cancelled."""
        if attempt.stage is not Stage.CANCELLED:
            self._elsewhere(attempt.wanted, attempt.url, reason=reason, now_s=now_s)

    def _elsewhere(self, wanted: Wanted, url: str, *, reason: str, now_s: float) -> None:
        """Ask another server; when each has failed this clip, rest and begin again with all."""
        wanted.avoid.add(url)
        if wanted.done or wanted.asked:
            return
        self._ledger.retries[reason] += 1
        if self._fleet.any_but(wanted.avoid) or not self._fleet.up:
            self._clips.wait(wanted)
        else:
            self._assignment.rest(wanted, now_s)

    def _end(self, wanted: Wanted, how: Got | Failed, now_s: float) -> None:
        """Its ticket is over; what is still under way for it is cancelled."""
        self._clips.end(wanted)
        self.lives.forget(wanted.ticket)
        for attempt in wanted.open:
            if attempt.stage is not Stage.CANCELLED:
                self._cancel(attempt, "superseded", now_s)
        self._watchdog.progress(now_s)
        self._finished.append(how)

    def _drop(self, attempt: Attempt, outcome: str) -> None:
        self.attempts.remove(attempt)
        self._accounts.ended(attempt, outcome)

    def _took(self, attempt: Attempt, now_s: float) -> None:
        took_s = attempt.took_s(now_s)
        self._timeouts.took(took_s)
        self._fleet.took(attempt.url, took_s)
