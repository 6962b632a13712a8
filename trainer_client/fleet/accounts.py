"""The accounts of a feed's requests: what each came to and took, in the ledger and in what is learned from it.

It decides nothing. Every attempt that ends is counted here, once.
"""

from __future__ import annotations

from framefeed.wire import ClipReply
from trainer_client.fleet.attempts import Attempt
from trainer_client.fleet.timeout_estimator import TimeoutEstimator
from trainer_client.measures.stats import Durations, Ledger

# Mere overload, at worst.
_HARMLESS = frozenset({"ok", "superseded", "unsent", "busy", "draining", "deadline_exceeded", "not_here"})


class Accounts:
    """Of one feed."""

    def __init__(self, ledger: Ledger, timeouts: TimeoutEstimator) -> None:
        self._ledger, self._timeouts = ledger, timeouts

    def ended(self, attempt: Attempt, outcome: str) -> None:
        """An attempt is over. What went wrong may have been another clip beside it: it is next decoded alone."""
        attempt.wanted.alone |= outcome not in _HARMLESS
        self._ledger.outcomes[attempt.url, outcome] += 1
        if attempt.hedge and outcome != "ok":
            self._ledger.hedges["first" if attempt.wanted.done else "neither"] += 1

    def got(self, attempt: Attempt, reply: ClipReply, now_s: float) -> None:
        """A clip came that was wanted."""
        ledger, wanted = self._ledger, attempt.wanted
        ledger.received_bytes += wanted.clip_bytes
        ledger.read_bytes += reply.info.read_bytes
        ledger.durations.setdefault(attempt.url, Durations()).add(now_s - attempt.sent_s)
        if attempt.hedge:
            ledger.hedges["hedge"] += 1

    def unneeded(self, *, late_since_s: float | None, was_given: bool, now_s: float) -> None:
        """A reply came that nobody waits for: late, of an attempt sent then and given up; a second one; or unknown."""
        if late_since_s is not None:
            self._timeouts.took(now_s - late_since_s)
            reason = "late"
        else:
            reason = "duplicate" if was_given else "unknown"
        self._ledger.dropped_replies[reason] += 1
