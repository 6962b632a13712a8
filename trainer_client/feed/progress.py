"""How far a run is: what load_state_dict() replaces, all at once. It knows neither servers nor how batches come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainer_client.feed.order import Order
from trainer_client.feed.stand_ins import StandIn


@dataclass(slots=True, kw_only=True, eq=False)
class Progress:
    """`order` says which steps are done. `replayed` are the plan's steps to use, instead of all.

    `recorded` are the stand-ins of the state that was loaded, `stood_in` those of the run, each with the number of
    steps before it: what has as many as are done, or more, was not given yet. `fingerprint` and `data` are the decoder
    and the data set that the servers have, if known.
    """

    order: Order = field(default_factory=Order)
    replayed: list[int] | None = None
    recorded: Sequence[StandIn] = ()
    stood_in: list[tuple[int, StandIn]] = field(default_factory=list)
    fingerprint: str | None = None
    data: str | None = None

    def offer(self, step: int, stand_ins: Sequence[StandIn]) -> int:
        """Note that step `step` of the plan is given next, with these stand-ins. Returns what `order.steps` is then.

        Nothing is given until that is assigned: what was noted before for the same place is forgotten.
        """
        place = self.order.steps
        kept = self.stood_in
        while kept and kept[-1][0] >= place:
            del kept[-1]
        kept.extend((place, stand_in) for stand_in in stand_ins)
        return self.order.offer(step)
