"""How long a process that is asked to stop gets, told once; whoever starts or kills processes reads it here.

Each has to outlast the one before it, or a stop loses what it was meant to save: a clip that was admitted has its
request's deadline and the decode that began just before it; the drain waits for all of those; the engine's kill comes
after the drain and the last replies. Files that cannot import this (compose.yaml, the systemd unit) are tested
against it.
"""

from __future__ import annotations

REQUEST_DEADLINE_S = 10.0  # what a trainer gives a server for a clip at most: --attempt-s
ONE_DECODE_S = 10.0  # of the largest clip that a server takes, on a loaded core
DRAIN_S = 30.0  # --drain-s of a server
STOP_GRACE_S = 40  # stop_grace_period, TimeoutStopSec and terminationGracePeriodSeconds: then comes SIGKILL

if not REQUEST_DEADLINE_S + ONE_DECODE_S < DRAIN_S < STOP_GRACE_S:
    raise AssertionError("a stop gives less time than what it waits for")
