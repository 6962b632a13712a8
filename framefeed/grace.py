"""How long a process that is asked to stop gets, told once; whoever starts or kills processes reads it here.

Each time has to outlast the one before it, or a stop loses what it was meant to save. A request that was admitted is
kept for no longer than its deadline, and the decode that began just before that ends a little later; the drain waits
for all of those, and what started the server waits for the drain and the last replies. Files that cannot import this
(compose.yaml, the systemd unit) are tested against it.
"""

from __future__ import annotations

STOP_GRACE_S = 60  # stop_grace_period, TimeoutStopSec and terminationGracePeriodSeconds: then comes SIGKILL
DRAIN_S = STOP_GRACE_S - 15.0  # --drain-s of a server
END_S = 10.0  # past the drain: the last replies, the ends of workers, and of the fronts of a box
ONE_DECODE_S = 10.0  # of the largest clip that a server takes, on a loaded core
MAX_DEADLINE_S = 30.0  # --max-deadline-s: nothing waits longer in a server, whatever a client asks for
REQUEST_DEADLINE_S = 10.0  # --attempt-s: so long a trainer waits for a clip; servers are told more, for its own pauses


def outlasts(*, deadline_s: float, drain_s: float) -> bool:
    """Whether a drain waits for every request that a server may have admitted."""
    return deadline_s + ONE_DECODE_S < drain_s


if not (outlasts(deadline_s=MAX_DEADLINE_S, drain_s=DRAIN_S) and DRAIN_S + END_S < STOP_GRACE_S):
    raise AssertionError("a stop gives less time than what it waits for")
