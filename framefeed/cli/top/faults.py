"""Which server a starved rank waits for, if it is one: gone, failing, or slower than the others. Pure."""

from __future__ import annotations

from statistics import median

from framefeed.cli.top.numbers import percent, several, show_time
from framefeed.cli.top.state import Server, State, short_name

_FAILS = 0.2  # of its requests
_LEAST_FAILED_S = 0.05
_SLOW = 3.0  # times what a clip takes at the middle one of the others
_CLOSE = 0.95  # of the demand: as good as all of it
_OF_SERVERS = ("no_server", "reorder", "decode", "read")
Fault = tuple[str, str, str]
"""A verdict's kind and line, and what else is to be known."""


def find_fault(state: State, cause: str) -> Fault | None:
    """What to say of the servers if one of them, or all, are why ranks wait for a cause."""
    down = [server for server in state.servers if not server.up]
    if cause == "no_server" and (not state.servers or len(down) == len(state.servers)):
        stand = (
            ", ".join(f"{short_name(server.name)} {_standing(server)}" for server in down[:3])
            or "the trainer knows of none"
        )
        return "no_server", "no server: none takes requests; start one, or look at the trainers' logs", stand
    if cause not in _OF_SERVERS:
        return None
    return _gone(state, down, cause) or _failing(state) or _slow(state)


def _failing(state: State) -> Fault | None:
    worst = max((s for s in state.servers if s.up), key=lambda server: server.failure_share, default=Server(name=""))
    if worst.failure_share < _FAILS or worst.failed_s < _LEAST_FAILED_S:
        return None
    if _is_usual(worst.failure_share, [s.failure_share for s in state.servers if s is not worst], times=2.0):
        return None
    line = f"faulty server: {short_name(worst.name)} fails {percent(worst.failure_share)} of its requests"
    return "faulty_server", line, f"it is {_standing(worst)}; its log says why"


def _gone(state: State, down: list[Server], cause: str) -> Fault | None:
    """Servers that take no requests, if with them there would be enough."""
    up = len(state.servers) - len(down)
    could = max(state.got_clips_s, state.could_clips_s or 0.0)
    enough = cause == "no_server" or (up and could * len(state.servers) / up >= _CLOSE * state.demand_clips_s)
    if not down or not enough:
        return None
    first = down[0]
    others = f" and {several(len(down) - 1, 'other')}" if len(down) > 1 else ""
    line = f"faulty server: {short_name(first.name)}{others} {_standing(first)}; the rest cannot do all"
    return "faulty_server", line, f"{up} of {several(len(state.servers), 'server')} up, with all there would be enough"


def _slow(state: State) -> Fault | None:
    known = [server for server in state.servers if server.clip_s and server.up]
    for server in sorted(known, key=lambda server: -server.clip_s):
        others = [other.clip_s for other in known if other is not server]
        if not others or _is_usual(server.clip_s, others, times=_SLOW):
            return None
        line = f"faulty server: {short_name(server.name)} takes {show_time(server.clip_s)} a clip"
        more = f"the middle one of the others takes {show_time(median(others))}; look at its host and storage"
        return "faulty_server", line, more
    return None


def _is_usual(value: float, others: list[float], *, times: float) -> bool:
    return bool(others) and value < times * median(others)


def _standing(server: Server) -> str:
    return server.seen_state or server.state or "silent"
