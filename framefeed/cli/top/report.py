"""A view as JSON, for scripts: the same numbers as on the screen, rates a second and shares of 1. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from framefeed.cli.top.history import View
from framefeed.cli.top.state import State


def report(view: View) -> str:
    """One JSON object on several lines: what `told` has."""
    return msgspec.json.format(msgspec.json.encode(told(view)), indent=2).decode()


def told(view: View) -> dict[str, Any]:
    """verdict, totals, ranks (worst first), servers, silent pages, events: what JSON can say."""
    state = view.state
    return {
        "verdict": asdict(view.verdict),
        "totals": _totals(state),
        "ranks": [{**asdict(rank), "starvation": rank.starvation} for rank in state.ranks],
        "servers": [{**asdict(server), "up": server.up} for server in state.servers],
        "silent": dict(state.silent),
        "events": [{"ago_s": view.at_s - event.at_s, "text": event.text} for event in view.events],
    }


def _totals(state: State) -> dict[str, float | None]:
    return {
        "over_s": state.over_s,
        "demand_clips_s": state.demand_clips_s,
        "got_clips_s": state.got_clips_s,
        "could_clips_s": state.could_clips_s,
        "sockets": state.sockets,
        "threads": state.threads,
        "busy_share": state.busy_share,
    }
