"""Why the consumer waited: splits a blocked interval by the life of the clip that ended it; knows no clock or threads.

Times are integer nanoseconds, so the parts sum exactly to the whole. Until a feed has delivered its first batch, all is
first_batch. Then a wait is what the clip did meanwhile that ended it, or of which most is missing. Three rules correct
that, because another reason made the clip late:
- while a later batch lies complete, what an ordinary slow clip costs is reorder: strict order made the consumer wait;
- a clip that the client's own budget held back while servers had nothing to do would have come so much earlier: what it
  costs then is client_limit, up to the time that it was held back;
- so would the batch that was opened late because no more are prefetched, but only its time at servers: that they had
  threads to spare says nothing of links and fronts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CAUSES = (
    "first_batch",
    "plan",
    "client_limit",
    "no_server",
    "network",
    "front",
    "server_queue",
    "read",
    "decode",
    "reorder",
    "copy",
)
AT_SERVERS = ("server_queue", "read", "decode")
ORDINARY = (*AT_SERVERS, "front", "network")
"""What becomes of any clip that is asked for, in the order in which it does."""

Part = tuple[str, float]
"""A cause, and when it ended in seconds; it began where the part before it ended."""


def to_ns(seconds: float) -> int:
    """Whole nanoseconds of a time in seconds; it keeps the order of times."""
    return round(seconds * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLife:
    """What became of a clip from when its batch slot wanted it, in order of time, until `received_s`, or until now.

    `shallow_s` is for how long its batch could have been opened before, had more been prefetched.
    """

    wanted_s: float
    received_s: float
    parts: tuple[Part, ...] = ()
    shallow_s: float = 0.0

    @property
    def limited_ns(self) -> int:
        """For how long the client's own budget held it back."""
        limited_ns, at_ns = 0, to_ns(self.wanted_s)
        for cause, end_s in self.parts:
            limited_ns += max(to_ns(end_s) - at_ns, 0) * (cause == "client_limit")
            at_ns = max(to_ns(end_s), at_ns)
        return limited_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """An interval in which the consumer was blocked, over or not, and the life that says why.

    `later_ready_ns` is when some later batch became complete, None if none was. No `life`: no batch is planned yet.
    """

    began_ns: int
    ended_ns: int
    life: ClipLife | None = None
    later_ready_ns: int | None = None
    first_batch: bool = False

    def causes(self) -> dict[str, int]:
        """Nanoseconds by cause, summing exactly to the interval.

        What lies before the clip was wanted or after it was received is the loader's own work, counted as plan.
        """
        spent = dict.fromkeys(CAUSES, 0)
        if self.first_batch or self.life is None:
            spent["first_batch" if self.first_batch else "plan"] = self.ended_ns - self.began_ns
            return spent
        self._walk(self.life, spent)
        limited_ns = max(self.life.limited_ns - spent["client_limit"], 0)
        _claim(spent, limited_ns, of=ORDINARY)
        _claim(spent, to_ns(self.life.shallow_s), of=AT_SERVERS)
        return spent

    def _walk(self, life: ClipLife, spent: dict[str, int]) -> None:
        at_ns, end_ns = self.began_ns, self.ended_ns
        later_ns = end_ns if self.later_ready_ns is None else min(self.later_ready_ns, end_ns)
        parts = [("plan", life.wanted_s), *life.parts]
        for cause, part_end_ns in [*((cause, to_ns(end_s)) for cause, end_s in parts), ("plan", end_ns)]:
            until_ns = min(part_end_ns, end_ns)
            if until_ns <= at_ns:
                continue
            ordinary_ns = until_ns - at_ns
            if cause in ORDINARY:
                ordinary_ns = max(min(later_ns, until_ns) - at_ns, 0)
                spent["reorder"] += until_ns - at_ns - ordinary_ns
            spent[cause] += ordinary_ns
            at_ns = until_ns


def _claim(spent: dict[str, int], up_to_ns: int, *, of: tuple[str, ...]) -> None:
    """Move so much of these causes to client_limit, as far as there is."""
    for cause in of:
        moved_ns = min(spent[cause], up_to_ns)
        spent[cause] -= moved_ns
        spent["client_limit"] += moved_ns
        up_to_ns -= moved_ns


class WaitLedger:
    """The running totals: owner of every blocked second of one rank's consumer.

    What is shown while a wait lasts is an estimate, and the truth may be another when it is over. What was shown of a
    cause is never taken back: totals only grow. Each time the wait has grown, that growth goes to the causes of which
    less is shown than is now held true, in proportion to what they lack. So the sum is always the whole wait, and what
    was shown in error is made good by the waits that follow.
    """

    def __init__(self) -> None:
        self._settled_ns = dict.fromkeys(CAUSES, 0)
        self._shown_ns = dict.fromkeys(CAUSES, 0)
        self.blocked_ns = 0  # in waits that are over
        self.since_s: float | None = None
        """When the present wait began; None if nobody waits."""

    def copy(self) -> WaitLedger:
        """The totals as they are: who counts on a copy, and puts it in the place of this one, counts all or nothing."""
        other = WaitLedger()
        other._settled_ns, other._shown_ns = dict(self._settled_ns), dict(self._shown_ns)
        other.blocked_ns, other.since_s = self.blocked_ns, self.since_s
        return other

    def add(self, wait: Wait) -> None:
        """Count a wait that is over."""
        self.since_s = None
        for cause, spent_ns in wait.causes().items():
            self._settled_ns[cause] += spent_ns
        self.blocked_ns += wait.ended_ns - wait.began_ns
        self.shown_ns()

    def copied(self, waited_ns: int) -> None:
        """Count a wait for a batch to be on the device."""
        self._settled_ns["copy"] += waited_ns
        self.blocked_ns += waited_ns
        self.shown_ns()

    def shown_ns(self, present: Wait | None = None) -> dict[str, int]:
        """Nanoseconds by cause, the present wait included as it is known now; none is less than at any call before."""
        now = {} if present is None else present.causes()
        lacking = {c: max(self._settled_ns[c] + now.get(c, 0) - shown, 0) for c, shown in self._shown_ns.items()}
        grown_ns = sum(self._settled_ns.values()) + sum(now.values()) - sum(self._shown_ns.values())
        for cause, more_ns in _shares(grown_ns, lacking).items():
            self._shown_ns[cause] += more_ns
        return dict(self._shown_ns)


def _shares(whole_ns: int, lacking: Mapping[str, int]) -> dict[str, int]:
    """The whole, shared out in proportion to what is lacking, which is at least as much; exactly, none beyond it."""
    total_ns = sum(lacking.values())
    assert 0 <= whole_ns <= total_ns, "a wait goes on from where it was last seen"
    shares = {cause: lack * whole_ns // total_ns if total_ns else 0 for cause, lack in lacking.items()}
    left_ns = whole_ns - sum(shares.values())
    for cause, lack in lacking.items():  # less than a nanosecond a cause was cut off
        more_ns = min(left_ns, lack - shares[cause], 1)
        shares[cause] += more_ns
        left_ns -= more_ns
    return shares
