"""All ranks of a run meet before each step: what one asks for all of them know, so that they stop and save at one step.

It goes over torch.distributed's key-value store and not over its collectives, which wait for the device and cannot be
left: a rank that waits here still hears a signal, and that another is gone. It knows no models and no files.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import Store  # type: ignore[attr-defined]

from framefeed.errors import BadInput
from trainer_client.training.processes import GONE, RankLost, run_store
from trainer_client.training.ranks import Ranks

_BITS = 12  # of each count in one number of the store
_MOST = (1 << _BITS) - 1
_SLICE = timedelta(seconds=1)
_PATIENCE_S, _STOPPING_S = 600.0, 30.0
_places = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What a rank asks for: to stop, to stop because its time is over, to save; and whether its part is written."""

    stop: bool = False
    late: bool = False
    save: bool = False
    written: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What all ranks know alike: somebody asks to stop, is late, asks to save; every rank's part is written."""

    stop: bool
    late: bool
    save: bool
    written: bool


class Meeting:
    """Where the ranks meet. Alone a rank agrees with itself, at once."""

    def __init__(
        self,
        ranks: Ranks,
        *,
        store: Store | None = None,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store` and `name` are what all ranks have alike; None: the store of the group that they have joined, and
        the number of this meeting place, since every rank makes them in the same order.
        """
        if ranks.world > _MOST:
            raise BadInput(f"world size is {ranks.world}, wanted at most {_MOST}")
        self._ranks, self._clock = ranks, clock
        self._store = run_store() if ranks.world > 1 and store is None else store
        self._prefix, self._number = f"framefeed/meeting/{next(_places) if name is None else name}", 0

    def meet(self, asks: Asks, *, stopping: Callable[[], bool] = lambda: False) -> Agreed:
        """Blocks until all ranks are here: 600 s at most, and 30 s once this one is `stopping`.

        Raises RankLost when another rank is gone, or does not come in that time.
        """
        store = self._store
        if store is None:
            return _agreed(asks.stop, asks.late, asks.save, asks.written, world=1)
        self._number += 1
        here, total = f"{self._prefix}/{self._number}/here", f"{self._prefix}/{self._number}/total"
        flags = (True, asks.stop, asks.late, asks.save, asks.written)
        told = int(store.add(here, sum(int(flag) << (_BITS * place) for place, flag in enumerate(flags))))
        if told & _MOST == self._ranks.world:
            store.set(total, str(told))
            self._forget(store, self._number - 1)
        else:
            self._wait(store, total, stopping)
            told = int(store.get(total))
        counts = [(told >> (_BITS * place)) & _MOST for place in range(1, len(flags))]
        return _agreed(*counts, world=self._ranks.world)

    def _wait(self, store: Store, key: str, stopping: Callable[[], bool]) -> None:
        began_s, stopped_s = self._clock(), None
        while True:
            try:
                store.wait([key], _SLICE)
                return
            except RuntimeError:  # the slice is over; or the store is gone, which the next line says
                if store.check([key]):
                    return
            if store.check([GONE]):
                raise RankLost(f"{store.get(GONE).decode(errors='replace')[:200]} is gone")
            now_s = self._clock()
            if stopped_s is None and stopping():
                stopped_s = now_s
            if now_s - began_s > _PATIENCE_S or (stopped_s is not None and now_s - stopped_s > _STOPPING_S):
                raise RankLost(f"the other ranks have not come to the next step within {now_s - began_s:.0f} s")

    def _forget(self, store: Store, number: int) -> None:
        """All have come to a later meeting, and so have read this one's result."""
        for name in ("here", "total"):
            store.delete_key(f"{self._prefix}/{number}/{name}")


def _agreed(stop: int, late: int, save: int, written: int, *, world: int) -> Agreed:
    return Agreed(stop=stop > 0, late=late > 0, save=save > 0, written=written == world)
