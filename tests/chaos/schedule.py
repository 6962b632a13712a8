"""When faults happen, of what kind and where: a seeded Poisson process. It knows no processes, sockets or clocks.

The seed of a run is FRAMEFEED_CHAOS_SEED, or 1; whoever uses it prints it.
"""

from __future__ import annotations

import enum
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass


class Fault(enum.Enum):
    """What can go wrong with a server (the first three) or on the wire to it (the others)."""

    KILL = "kill"  # SIGKILL, and a new process at the same address
    STOP = "stop"  # SIGSTOP, SIGCONT some time later
    DRAIN = "drain"  # SIGTERM, and a new process at the same address
    CUT = "cut"  # every connection is reset while the server works on
    CUT_MID_REPLY = "cut mid reply"  # the same, in the middle of the next reply
    LOSE_REQUEST = "lose request"
    LOSE_REPLY = "lose reply"
    DOUBLE_REPLY = "double reply"
    SPOIL_REQUEST = "spoil request"  # one byte of the next header is another
    SPOIL_REPLY = "spoil reply"
    DELAY = "delay"  # nothing comes from the server for some time


PROCESS_FAULTS = (Fault.KILL, Fault.STOP, Fault.DRAIN)
WIRE_FAULTS = tuple(fault for fault in Fault if fault not in PROCESS_FAULTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One fault: seconds after the start, its kind, the number of the server, and for how long if it lasts."""

    at_s: float
    fault: Fault
    server: int
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What a storm is made of: so many faults a second on average, for so long, each lasting up to `lasts_s`."""

    rate_hz: float
    span_s: float
    servers: int
    lasts_s: float
    faults: Sequence[Fault] = tuple(Fault)


def chaos_seed() -> int:
    """The seed of all chaos in this test run."""
    return int(os.environ.get("FRAMEFEED_CHAOS_SEED", "1"))


def arrivals(storm: Storm, *, seed: int) -> list[Arrival]:
    """The faults of a storm in order of time: gaps are exponential, so what is due does not depend on what was."""
    rng = random.Random(seed)
    found, at_s = [], rng.expovariate(storm.rate_hz)
    while at_s < storm.span_s:
        fault = rng.choice(storm.faults)
        lasts_s = rng.uniform(0.1, 1.0) * storm.lasts_s
        found.append(Arrival(at_s=at_s, fault=fault, server=rng.randrange(storm.servers), lasts_s=lasts_s))
        at_s += rng.expovariate(storm.rate_hz)
    return found
