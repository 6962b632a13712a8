"""The last looks at a run, and what is shown of them: state and verdict over a window, sparks, events. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from framefeed.cli.top.events import Event, what_happened
from framefeed.cli.top.measure import Snapshot, measure
from framefeed.cli.top.state import State
from framefeed.cli.top.verdict import Verdict, judge

WINDOW = 5  # looks that the state and the verdict are over: a cause is an estimate while a wait lasts
SPARK = 24  # looks that a spark line has
KEPT_EVENTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown. `sparks` are by cause: of each of the last looks, of the rank that waited most for it."""

    at_s: float
    state: State
    verdict: Verdict
    sparks: Mapping[str, tuple[float, ...]]
    events: tuple[Event, ...] = ()


class History:
    """Takes looks and gives the view of them; keeps so many as it shows."""

    def __init__(self) -> None:
        self._looks: deque[Snapshot] = deque(maxlen=WINDOW)
        self._waits: deque[Mapping[str, float]] = deque(maxlen=SPARK)
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)

    def add(self, look: Snapshot) -> View:
        """The view with one more look, the last events first."""
        if self._looks:
            waits: dict[str, float] = {}
            for rank in measure(self._looks[-1], look).ranks:
                for cause, share in rank.waits.items():
                    waits[cause] = max(waits.get(cause, 0.0), share)
            self._waits.append(waits)
            self._events.extendleft(reversed(what_happened(self._looks[-1], look)))
        self._looks.append(look)
        state = measure(self._first_of_window(), look)
        causes = dict.fromkeys(cause for waits in self._waits for cause in waits)
        return View(
            at_s=look.at_s,
            state=state,
            verdict=judge(state),
            sparks={cause: tuple(waits.get(cause, 0.0) for waits in self._waits) for cause in causes},
            events=tuple(self._events),
        )

    def _first_of_window(self) -> Snapshot:
        """The pages as they were first in the window: one that did not answer then is as old as its first answer."""
        first = {page.url: page for look in reversed(self._looks) for page in look.pages if not page.trouble}
        return Snapshot(pages=tuple(first.values()))
