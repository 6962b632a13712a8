"""Why the consumer waited: splits a blocked interval by the life of the clip that ended it; knows no clock or threads.

Times are integer nanoseconds, so the parts sum exactly to the whole. The life of a clip, from the moment its batch
slot wanted it: no usable server (or one that was lost with the request), waiting for room at the servers, the server's
queue, read, decode and scale, and the rest until its pixels arrived: the network. While a later batch lies complete,
what an ordinary slow clip costs is called reorder: strict order made the consumer wait. A lost server keeps its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CAUSES = ("no_server", "server_queue", "read", "decode", "network", "reorder")
_ORDINARY = frozenset({"server_queue", "read", "decode", "network"})


def to_ns(seconds: float) -> int:
    """Whole nanoseconds of a time in seconds; it keeps the order of times."""
    return round(seconds * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLife:
    """When a clip was wanted, when the request that brought it was sent, and when its pixels lay in the batch slot.

    `absent_s` of the time before `sent_s` there was no usable server, or one that never answered held the request;
    `stage_s` is what the server says of its own stages.
    """

    wanted_s: float
    sent_s: float
    received_s: float
    absent_s: float = 0.0
    stage_s: Mapping[str, float] = field(default_factory=dict)

    def parts(self) -> list[tuple[str, int]]:
        """(cause, its end in ns) in order of time: first what came before the clip was wanted, last until received."""
        stage = {name: max(seconds, 0.0) for name, seconds in self.stage_s.items()}
        lasts = (
            ("server_queue", stage.get("queue", 0.0)),
            ("read", stage.get("read", 0.0)),
            ("decode", stage.get("decode", 0.0) + stage.get("scale", 0.0)),
        )
        ends = [("reorder", self.wanted_s), ("no_server", min(self.wanted_s + self.absent_s, self.sent_s))]
        ends.append(("server_queue", self.sent_s))
        at_s = self.sent_s
        for cause, seconds in lasts:
            at_s = min(at_s + seconds, self.received_s)
            ends.append((cause, at_s))
        ends.append(("network", self.received_s))
        return [(cause, to_ns(end_s)) for cause, end_s in ends]


def attribute(blocked_ns: tuple[int, int], clip: ClipLife, *, later_ready_ns: int | None = None) -> dict[str, int]:
    """Nanoseconds of the blocked interval by cause, summing exactly to it.

    `later_ready_ns` is when some later batch became complete, None if none was. What lies before the clip was wanted or
    after it was received is the loader's own work, counted as reorder.
    """
    at_ns, end_ns = blocked_ns
    later_ns = end_ns if later_ready_ns is None else min(later_ready_ns, end_ns)
    spent = dict.fromkeys(CAUSES, 0)
    for cause, part_end_ns in [*clip.parts(), ("reorder", end_ns)]:
        until_ns = min(part_end_ns, end_ns)
        if until_ns <= at_ns:
            continue
        if cause in _ORDINARY:
            ordinary_ns = max(min(later_ns, until_ns) - at_ns, 0)
            spent[cause] += ordinary_ns
            spent["reorder"] += until_ns - at_ns - ordinary_ns
        else:
            spent[cause] += until_ns - at_ns
        at_ns = until_ns
    return spent


class WaitLedger:
    """The running totals: owner of every blocked second of one rank's consumer."""

    def __init__(self) -> None:
        self._spent_ns = dict.fromkeys(CAUSES, 0)
        self.blocked_ns = 0

    def add(self, blocked_ns: tuple[int, int], clip: ClipLife | None, *, later_ready_ns: int | None = None) -> None:
        """Count one wait. Without a clip (it ended in an error or is not over) all of it is no_server."""
        self.blocked_ns += blocked_ns[1] - blocked_ns[0]
        if clip is None:
            self._spent_ns["no_server"] += blocked_ns[1] - blocked_ns[0]
            return
        for cause, spent_ns in attribute(blocked_ns, clip, later_ready_ns=later_ready_ns).items():
            self._spent_ns[cause] += spent_ns

    def spent_ns(self) -> dict[str, int]:
        """Nanoseconds by cause; their sum is `blocked_ns`."""
        return dict(self._spent_ns)
