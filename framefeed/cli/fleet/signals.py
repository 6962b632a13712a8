"""A run's State as the signals that a fleet's size follows. Pure."""

from __future__ import annotations

from framefeed.cli.fleet.policy import Signals
from framefeed.cli.top.state import State
from framefeed.cli.top.verdict import judge


def signals_of(state: State, *, at_s: float) -> Signals:
    """The signals of a state that was measured at `at_s`."""
    return Signals(
        at_s=at_s,
        servers=sum(server.up for server in state.servers),
        verdict=judge(state).kind,
        starvation=max((rank.starvation for rank in state.ranks), default=0.0),
        demand_clips_s=state.demand_clips_s,
        could_clips_s=state.could_clips_s,
    )
