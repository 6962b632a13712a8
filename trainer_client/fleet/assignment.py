"""The assignment: which of the clips that wait, or take long, is asked of which server now, within all bounds.

It decides what is asked and knows nothing of answers; whether a clip is bad itself, its owner says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer_client.fleet.attempts import Attempt, Attempts, Stage, Wanted
from trainer_client.fleet.balancer import Asked
from trainer_client.fleet.calls import Calls
from trainer_client.fleet.clip_queue import ClipQueue
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.hedging import Hedging, is_over
from trainer_client.fleet.timeout_estimator import TimeoutEstimator
from trainer_client.measures.lives import Lives
from trainer_client.measures.stats import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What is assigned, to whom, and how it is said."""

    fleet: Fleet
    clips: ClipQueue
    attempts: Attempts
    calls: Calls
    timeouts: TimeoutEstimator
    ledger: Ledger
    lives: Lives


class Assignment:
    """Of one feed."""

    def __init__(self, desk: Desk, limits: DispatchLimits, *, judge: Callable[[Wanted, float], bool]) -> None:
        """`judge` ends a clip that is held bad itself, and says whether it did."""
        self._fleet, self._clips, self._attempts = desk.fleet, desk.clips, desk.attempts
        self._calls, self._timeouts, self._ledger, self._lives = desk.calls, desk.timeouts, desk.ledger, desk.lives
        self._limits, self._judge = limits, judge
        self._hedging = Hedging(share=limits.hedge_share, head_clips=limits.head_clips, ledger=desk.ledger)

    def assign(self, now_s: float) -> None:
        """Ask servers with room for the clips that wait, the earliest wanted first."""
        aside: list[Wanted] = []
        while (wanted := self._clips.first()) is not None and self._fleet.has_room(now_s):
            if not self.has_credit(wanted):
                break
            self._clips.take_first()
            if self._judge(wanted, now_s):
                continue
            avoid = wanted.avoid if self._fleet.any_but(wanted.avoid) else wanted.poison.spoken
            if avoid and not self._fleet.any_but(avoid):
                self.rest(wanted, now_s)  # until one that may have another opinion is there
                continue
            url = self._fleet.pick(now_s, Asked(avoid=avoid, key=wanted.key, clip_bytes=wanted.clip_bytes))
            if url is None:
                aside.append(wanted)
            else:
                self._ask(wanted, url, now_s=now_s)
        for wanted in aside:
            self._clips.wait(wanted)

    def hedge(self, now_s: float) -> None:
        """Ask a second server for clips that take long; those that may have none yet are looked at again."""
        for attempt in self._attempts.to_hedge(now_s):
            wanted = attempt.wanted
            if attempt.stage is Stage.CANCELLED or is_over(wanted):
                continue
            asked = self._hedging.asks(wanted, oldest=self._clips.oldest)
            url = self._fleet.pick(now_s, asked) if asked is not None and self.has_credit(wanted) else None
            if url is None:
                self._attempts.hedge_at(attempt, now_s + max(self._timeouts.p95_s or 0.0, self._limits.retry_rest_s))
            else:
                self._hedging.made(wanted)
                self._ask(wanted, url, now_s=now_s, hedge=True)

    def has_credit(self, wanted: Wanted) -> bool:
        """Whether its bytes may be in flight as well; one clip may be, however large."""
        bytes_with_it = self._fleet.inflight_bytes + wanted.clip_bytes
        return not len(self._attempts) or bytes_with_it <= self._limits.inflight_bytes

    def _ask(self, wanted: Wanted, url: str, *, now_s: float, hedge: bool = False) -> None:
        limits, p95_s = self._limits, self._timeouts.p95_s
        attempt = Attempt(
            number=self._attempts.number(),
            url=url,
            wanted=wanted,
            sent_s=now_s,
            look_s=now_s + self._timeouts.deadline_s,
            give_up_s=now_s + limits.timeouts.attempt_s,
            hedge=hedge,
            since_s=now_s,
        )
        after_s = 0.0 if wanted.owed_hedge else p95_s
        hedges = self._hedging.on and after_s is not None and len(self._fleet.servers) > 1
        self._attempts.add(attempt, hedge_at_s=now_s + (after_s or 0.0) if hedges else None)
        self._fleet.sent(url, attempt=attempt.number, clip_bytes=wanted.clip_bytes)
        self._lives.asked(wanted.ticket, url, now_s)
        self._ledger.requested += 1
        self._calls.decode(attempt, dataset=self._fleet.identity.dataset)

    def rest(self, wanted: Wanted, now_s: float) -> None:
        """Every server failed this clip: it rests, longer each time, and begins again with all."""
        wanted.avoid = set(wanted.poison.spoken)
        rest_s = min(self._limits.retry_rest_s * 2.0 ** min(wanted.rounds, 30), self._limits.retry_rest_max_s)
        wanted.rounds += 1
        self._lives.rests(wanted.ticket, now_s + rest_s)
        self._clips.rest(wanted, until_s=now_s + rest_s)

    def owe_hedge(self, wanted: Wanted, now_s: float) -> None:
        """A second server is asked for it as soon as one has room, whatever the budget."""
        if self._hedging.on and not wanted.done:
            wanted.owed_hedge = True
            for attempt in wanted.open:
                self._attempts.hedge_at(attempt, now_s)
