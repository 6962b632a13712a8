"""The last ten minutes of a run as one JSON answer: what `framefeed top` says now, and how it came to that. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter

import msgspec

from framefeed.cli.top.history import History
from framefeed.cli.top.measure import Snapshot
from framefeed.cli.top.report import told
from framefeed.cli.top.state import State

KEPT_S = 600.0
_SHOWN_SERVERS, _SHOWN_RANKS, _SHOWN_EVENTS, _SHOWN_SILENT = 128, 64, 20, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One look. Rates are clips a second of all ranks, `waits` shares of the time of the rank that waits most, by
    cause; None is not known.
    """

    at_s: float
    got_clips_s: float
    demand_clips_s: float
    could_clips_s: float | None
    waits: dict[str, float] = field(default_factory=dict)


class StatusRing:
    """Takes looks `every_s` apart; keeps the points of ten minutes."""

    def __init__(self, *, every_s: float) -> None:
        self._every_s = every_s
        self._history = History()
        self._points: deque[Point] = deque(maxlen=max(round(KEPT_S / every_s), 1))
        self._said = _encode({"every_s": every_s, "points": []})

    @property
    def answer(self) -> bytes:
        """The JSON: every_s, points (oldest first), verdict, ranks (worst first), servers (those first that take no
        requests), silent pages, events; and how many of each it leaves out.
        """
        return self._said

    def add(self, look: Snapshot) -> None:
        """One look more; the second is the first of which anything can be said."""
        view = self._history.add(look)
        state = view.state
        if not state.ranks and not state.servers:
            return
        self._points.append(_point(look.at_s, state))
        said = told(view)
        self._said = _encode(
            {
                "every_s": self._every_s,
                "points": list(self._points),
                "verdict": {name: said["verdict"][name] for name in ("kind", "line", "reason")},
                "ranks": said["ranks"][:_SHOWN_RANKS],
                "servers": sorted(said["servers"], key=itemgetter("up"))[:_SHOWN_SERVERS],
                "left_out": {
                    "ranks": max(len(state.ranks) - _SHOWN_RANKS, 0),
                    "servers": max(len(state.servers) - _SHOWN_SERVERS, 0),
                    "silent": max(len(state.silent) - _SHOWN_SILENT, 0),
                },
                "silent": dict(islice(said["silent"].items(), _SHOWN_SILENT)),
                "events": said["events"][:_SHOWN_EVENTS],
            }
        )


def _point(at_s: float, state: State) -> Point:
    worst = state.ranks[0].waits if state.ranks else {}
    return Point(
        at_s=at_s,
        got_clips_s=state.got_clips_s,
        demand_clips_s=state.demand_clips_s,
        could_clips_s=state.could_clips_s,
        waits=dict(worst),
    )


def _encode(said: dict[str, object]) -> bytes:
    return msgspec.json.encode(said)
