"""How many decode servers a run wants: a decision over what was measured, for every kind of fleet. Pure: no clock.

Servers are added at once when a rank starves for want of them, to as many as the measured rates ask for; they are
given back only when fewer were enough for `calm_s` on end. KEDA's query (deploy/kubernetes/overlays/keda) is the same
formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from framefeed.errors import BadInput

HEADROOM = 1.1  # times the demand that is measured: it varies by clip
STARVED = 0.02  # share of its time that the worst rank may wait
CALM_S, SETTLE_S = 300.0, 30.0
_MOST_NEEDED = 1e6  # more than any bounds
CAUSES = ("starved", "not_needed", "enough", "calm", "settling", "elsewhere", "unknown", "bounds")
# What more servers help against: full threads or fronts, or some that are gone (framefeed.cli.top.verdict).
_HELPED = frozenset({"decode_bound", "front_bound", "no_server", "faulty_server"})
_BLIND = frozenset({"unknown", "starting"})  # verdicts that say nothing of how many servers are enough


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLimits:
    """Bounds. The first `local` servers run on spare cores of the trainer's machine, all others elsewhere; `settle_s`
    is from one change to the next addition, since a server that starts is not measured yet.
    """

    most: int
    least: int = 1
    local: int = 0
    calm_s: float = CALM_S
    settle_s: float = SETTLE_S

    def __post_init__(self) -> None:
        for name in ("least", "local", "calm_s", "settle_s"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"is {getattr(self, name):g}, wanted at least 0", of="fleet", field=name)
        if self.most < max(self.least, 1):
            said = f"is {self.most} and the least {self.least}; wanted as many or more, and at least 1"
            raise BadInput(said, of="fleet", field="most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What is known at one time. Rates are clips a second, of all ranks and all servers.

    `demand_clips_s` is what ranks would take without a wait, `could_clips_s` what the `servers` that are up could give
    with every thread at work (None: not known), `verdict` the kind of a verdict, `starvation` that of the worst rank.
    """

    at_s: float
    servers: int
    verdict: str
    starvation: float = 0.0
    demand_clips_s: float = 0.0
    could_clips_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is remembered from one decision to the next: how many were wanted, since when, how many needed lately."""

    wanted: int
    since_s: float
    needs: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`wanted` servers, of which `local` on the trainer's machine; `change` from before, `cause` one of CAUSES."""

    wanted: int
    local: int
    change: int
    cause: str
    reason: str


def decide(limits: FleetLimits, past: Past, now: Signals) -> tuple[Decision, Past]:
    """What is wanted now, and what to remember of it."""
    needed = _needed(past, now)
    needs = (*((at_s, count) for at_s, count in past.needs if at_s > now.at_s - limits.calm_s), (now.at_s, needed))
    wanted, cause, reason = _choose(limits, past, now, needed=needed, most_lately=max(count for _, count in needs))
    bounded = min(max(wanted, limits.least), limits.most)
    if bounded != wanted:
        cause, reason = "bounds", f"{reason}; bounds are {limits.least} to {limits.most}"
    change = bounded - past.wanted
    decision = Decision(wanted=bounded, local=min(bounded, limits.local), change=change, cause=cause, reason=reason)
    return decision, Past(wanted=bounded, since_s=now.at_s if change else past.since_s, needs=needs)


def _needed(past: Past, now: Signals) -> int:
    """How many servers, like those that are up, give what the ranks would take; what there is where nothing says."""
    if now.verdict in _BLIND:
        return past.wanted
    if not now.could_clips_s or not now.servers:
        return past.wanted + 1 if now.verdict in _HELPED else past.wanted
    needed = HEADROOM * now.demand_clips_s * now.servers / now.could_clips_s
    if math.isnan(needed):  # of rates that are none
        return past.wanted
    return max(math.ceil(min(needed, _MOST_NEEDED)), 1)  # first: a supply near 0 makes it infinite


def _choose(limits: FleetLimits, past: Past, now: Signals, *, needed: int, most_lately: int) -> tuple[int, str, str]:
    """How many are wanted before bounds, the cause and the reason."""
    rates = f"demand {now.demand_clips_s:.0f} clips/s, {now.servers} up could give {now.could_clips_s or 0:.0f}"
    if now.verdict in _BLIND or (now.starvation > STARVED and now.verdict not in _HELPED):
        why = "nothing says how many are enough" if now.verdict in _BLIND else "more servers would not help"
        return past.wanted, "unknown" if now.verdict in _BLIND else "elsewhere", f"{why} ({now.verdict}); {rates}"
    waited_s = now.at_s - past.since_s
    if now.starvation > STARVED and needed > past.wanted:
        if waited_s < limits.settle_s and past.needs:
            return past.wanted, "settling", f"{needed} needed, the last change is {waited_s:.0f} s old; {rates}"
        return needed, "starved", f"a rank waits {100 * now.starvation:.0f} % of its time; {rates}"
    if most_lately >= past.wanted:
        return past.wanted, "enough", rates
    if waited_s < limits.calm_s:
        return past.wanted, "calm", f"{most_lately} would do, for {waited_s:.0f} of {limits.calm_s:.0f} s; {rates}"
    return most_lately, "not_needed", f"{most_lately} were enough for {limits.calm_s:.0f} s; {rates}"
