"""How long a server's clips lately took at each stage, and from that what becomes of one that is not answered yet.

It knows one server's answers only, no clip and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from framefeed.wire import Load
from trainer_client.measures.wait import ORDINARY, Part

_WEIGHT = 0.2  # of the newest answer in the moving averages
_FRONT_IDLE, _FRONT_FULL = 0.5, 0.9  # busy so much of its time, a front explains none of what is left over, or all
_FRONT_KEEPS_UP, _FRONT_FAILS = 0.8, 0.95  # and none of the queue behind it, or all: workers wait for it as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """When a clip was asked for and received, and what its server said of the time between."""

    sent_s: float
    received_s: float
    stage_s: Mapping[str, float]
    load: Load

    def stages(self) -> dict[str, float]:
        """Seconds of each ordinary cause, in order, summing to the whole up to what rounding costs.

        What the server's stages leave is the way there and back. Of that the front's is what it says that it waited
        for its thread, and of the rest as much as that thread was busy: a full one also lets messages lie unread. One
        that is quite full does not keep its workers busy, so its queue is its own doing.
        """
        said = {name: max(seconds, 0.0) for name, seconds in self.stage_s.items()}
        work = {
            "server_queue": said.get("queue", 0.0) * (1.0 - self._front(_FRONT_KEEPS_UP, _FRONT_FAILS)),
            "read": said.get("read", 0.0),
            "decode": said.get("decode", 0.0) + said.get("scale", 0.0),
        }
        left_s = self.received_s - self.sent_s
        for name, seconds in work.items():
            work[name] = min(seconds, left_s)
            left_s -= work[name]
        front_s = min(max(self.load.front_s, 0.0), left_s)
        network_s = (left_s - front_s) * (1.0 - self._front(_FRONT_IDLE, _FRONT_FULL))
        return {**work, "front": left_s - network_s, "network": network_s}

    def _front(self, none: float, all_of_it: float) -> float:
        """The share that a front answers for which was so busy: none at the one level, all at the other."""
        return min(max((self.load.front_busy - none) / (all_of_it - none), 0.0), 1.0)


@dataclass(slots=True)
class Pace:
    """Moving averages of a server's stages, in seconds."""

    mean_s: dict[str, float] = field(default_factory=dict)

    def took(self, stages: Mapping[str, float]) -> None:
        """A clip of it took so long at each stage."""
        for cause in ORDINARY:
            before_s = self.mean_s.get(cause, stages[cause])
            self.mean_s[cause] = before_s + _WEIGHT * (stages[cause] - before_s)


def mean_of(paces: Iterable[Pace]) -> dict[str, float]:
    """The averages over servers that have answered; empty if none has."""
    known = [pace.mean_s for pace in paces if pace.mean_s]
    return {cause: sum(mean_s[cause] for mean_s in known) / len(known) for cause in ORDINARY} if known else {}


def ends_of(stages: Mapping[str, float], start_s: float) -> list[Part]:
    """The stages one after another, each with its end."""
    ends, at_s = [], start_s
    for cause, seconds in stages.items():
        at_s += seconds
        ends.append((cause, at_s))
    return ends


def expected(mean_s: Mapping[str, float], *, sent_s: float, now_s: float) -> list[Part]:
    """What a clip that was sent has probably met until now: the stages as they usually last, or, when it takes longer
    than usual, each so much longer. Of a server of which nothing is known it is its queue.
    """
    usual_s = sum(mean_s.values())
    if usual_s <= 0:
        return [("server_queue", now_s)]
    stretch = max((now_s - sent_s) / usual_s, 1.0)
    ends = ends_of({cause: stretch * seconds for cause, seconds in mean_s.items()}, sent_s)
    return [(cause, min(end_s, now_s)) for cause, end_s in ends]
