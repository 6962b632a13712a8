"""What holds a run up and what would help, in one line: a decision over a State. Pure; it shows nothing.

It asks in this order: does a rank wait for data; does it because servers are gone or at fault; does it alone; and if
none of these, which of the causes of waiting (docs/operations.md) has most of the wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from framefeed.cli.top.faults import find_fault
from framefeed.cli.top.numbers import percent, several, show_rate, show_time
from framefeed.cli.top.state import STARTING, Rank, State, short_name

STARVED = 0.05  # as in deploy/prometheus/alerts.yml
_FULL = 0.8  # of the threads: more of them are what is missing
_APART = 3.0  # times what the middle one of the others waits, from which a rank is a straggler
_MOST_SOCKETS = 9999
_MOST_SILENT = 3
GROUPS = {"server_queue": "decode"}  # both end with more decoding threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`kind` is one word of a fixed set, `line` what to know, `reason` why, `numbers` what both were computed from."""

    kind: str
    line: str
    reason: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


def judge(state: State) -> Verdict:
    """The verdict of a state."""
    if not state.ranks:
        first = [f"{url}: {trouble}" for url, trouble in state.silent[:_MOST_SILENT]]
        others = len(state.silent) - len(first)
        why = "; ".join([*first, *([f"and {several(others, 'other')}"] if others else [])])
        why = why or "give a trainer's metrics page"
        return Verdict(kind="unknown", line="unknown: no trainer's page was read twice", reason=why)
    worst = state.ranks[0]
    if worst.starvation <= STARVED:
        return _unstarved(state)
    cause, share = main_cause(worst)
    numbers = {
        "starvation": worst.starvation,
        "cause_share": share,
        "demand_clips_s": state.demand_clips_s,
        "got_clips_s": state.got_clips_s,
        "could_clips_s": state.could_clips_s or 0.0,
        "sockets": float(state.sockets),
        "busy_share": state.busy_share,
    }
    waits = f"rank {worst.name} waits {percent(worst.starvation)} of its time, {percent(share)} of that for {cause}"
    kind, line, more = _why(state, worst, cause)
    reason = f"{waits}; {more}" if more else waits
    return Verdict(kind=kind, line=line, reason=reason, numbers=numbers)


def main_cause(rank: Rank) -> tuple[str, float]:
    """The cause that a rank waits for most, the first batch aside, and its share of the wait."""
    sums: dict[str, float] = {}
    for cause, share in rank.waits.items():
        if cause != STARTING:
            sums[GROUPS.get(cause, cause)] = sums.get(GROUPS.get(cause, cause), 0.0) + share
    cause = max(sorted(sums), key=lambda name: sums[name], default="nothing")
    whole = sum(sums.values())
    return cause, sums[cause] / whole if whole else 0.0


def _unstarved(state: State) -> Verdict:
    worst = state.ranks[0]
    first = max(state.ranks, key=lambda rank: rank.waits.get(STARTING, 0.0))
    if first.waits.get(STARTING, 0.0) > STARVED:
        up = sum(server.up for server in state.servers)
        line = f"starting: rank {first.name} waits for its first batch"
        return Verdict(kind="starting", line=line, reason=f"{several(up, 'server')} of {len(state.servers)} up")
    if not state.got_clips_s:
        line = f"idle: in {show_time(state.over_s)} no rank took a batch, and none waits for one"
        return Verdict(kind="idle", line=line, reason="the trainer does other work, such as a checkpoint, or stands")
    could = f", servers could give {show_rate(state.could_clips_s)}" if state.could_clips_s else ""
    reason = f"worst rank {worst.name} waits {percent(worst.starvation)}; trainers take {show_rate(state.got_clips_s)}"
    line = "trainer-bound: no GPU is starved, data is there when it is asked for"
    numbers = {"starvation": worst.starvation, "got_clips_s": state.got_clips_s}
    return Verdict(kind="trainer_bound", line=line, reason=reason + could, numbers=numbers)


def _why(state: State, worst: Rank, cause: str) -> tuple[str, str, str]:
    """Kind, line and what else is to be known, of a run of which a rank is starved."""
    fault = find_fault(state, cause)
    if fault is not None:
        return fault
    full = cause == "decode" and state.busy_share >= _FULL
    others = [rank.starvation for rank in state.ranks[1:]]
    if others and not full and worst.starvation >= _APART * median(others):
        line = f"straggler: rank {worst.name} alone is starved, by {cause}; look at its host"
        return "straggler", line, f"the middle one of the others waits {percent(median(others))}"
    if cause in ("decode", "read"):
        return _at_servers(state, cause)
    kind, line = _ELSEWHERE.get(cause, ("unknown", f"starved by {cause}"))
    return kind, line, _measured(state, worst, cause)


_ELSEWHERE = {
    "network": ("network_bound", "network-bound: a faster link, smaller clips, or shm:// on one host"),
    "front": ("front_bound", "front-bound: a server's front thread is full; more servers of fewer workers"),
    "client_limit": ("client_bound", "client-bound: the trainer's own budget; raise --inflight-mib, --prefetch-mib"),
    "plan": ("plan_bound", "plan-bound: the trainer's own dataset, policy or CPU is slow, not the servers"),
    "copy": ("copy_bound", "copy-bound: batches wait to be on the device; pinned memory, copies ahead"),
    "reorder": ("reorder_bound", "reorder-bound: single clips come late; hedge more, or --order window:W"),
    "no_server": ("no_server", "no server answers in time: the trainers' logs say what each last said"),
}


def _measured(state: State, worst: Rank, cause: str) -> str:
    if cause == "network":
        return f"it receives {worst.received_bytes_s / 1e6:.3g} MB/s"
    fullest = max(state.servers, key=lambda server: server.front_busy, default=None)
    if cause == "front" and fullest is not None and fullest.paged:
        return f"the front of {short_name(fullest.name)} works {percent(fullest.front_busy)} of the time"
    if cause == "client_limit":
        return f"{worst.in_flight:.0f} requests in flight, {worst.held:.0f} clips held of {worst.held_limit:.0f}"
    return ""


def _at_servers(state: State, cause: str) -> tuple[str, str, str]:
    readers = [server for server in state.servers if server.read_share > 0.5]
    if cause == "read" or (readers and sum(s.clips_s for s in readers) > 0.5 * sum(s.clips_s for s in state.servers)):
        slowest = max(state.servers, key=lambda server: server.storage_p99_s, default=None)
        line = "storage-bound: faster storage, chunks (framefeed chunk), or more threads"
        if slowest is None or not slowest.storage_mean_s:
            return "storage_bound", line, ""
        times = f"p99 {show_time(slowest.storage_p99_s)}, mean {show_time(slowest.storage_mean_s)}"
        return "storage_bound", line, f"reads at {short_name(slowest.name)} take {times}"
    at_least = "" if all(rank.demand_is_known for rank in state.ranks) else "at least "
    flow = f"demand {at_least}{show_rate(state.demand_clips_s)}, got {show_rate(state.got_clips_s)}"
    if state.could_clips_s is None:
        more = _missing(state.demand_clips_s, state.got_clips_s, sum(server.up for server in state.servers))
        return "decode_bound", f"decode-bound: {at_least}{several(more, 'more server')} like these", flow
    flow += f", could {show_rate(state.could_clips_s)} on {several(state.sockets, 'socket')}"
    if state.unread_servers:
        flow += f" and {several(state.unread_servers, 'server')} whose page is not read"
    if state.busy_share < _FULL:
        line = "decode-bound by single clips, threads idle: prefetch more, shorter GOPs"
        return "decode_bound", line, f"{flow}, threads {percent(state.busy_share)} busy"
    more = sockets_missing(state)
    give = "give" if more != 1 else "gives"
    return "decode_bound", f"decode-bound: {at_least}{several(more, 'more socket')} {give} ≈ 0 starvation", flow


def sockets_missing(state: State) -> int:
    """How many more CPU sockets like those there are would decode what the ranks would take; at least 1."""
    return _missing(state.demand_clips_s, state.could_clips_s or 0.0, state.sockets * state.unread_scale)


def _missing(demand: float, supply: float, sources: float) -> int:
    if not supply or not sources:
        return 1
    wanted = min(demand * sources / supply, float(_MOST_SOCKETS))  # first: a supply near 0 makes it infinite
    return max(math.ceil(wanted - sources), 1)
