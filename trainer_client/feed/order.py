"""The order in which a run used the steps of its plan: which are done, which come next, and all of it as text.

In plan order it is one integer. Within a window, a batch that is ready may be used before an earlier one that is not,
by less than the window's length; what was used when is kept, a number a step, so that a run can resume and be replayed.
It knows no clips, ranks or time.
"""

from __future__ import annotations

import base64
import re
import zlib
from array import array
from collections.abc import Iterator
from itertools import count, takewhile

import numpy as np

from framefeed.errors import BadInput
from framefeed.show_value import show_value

_MAX_STEPS = 1 << 26  # of an order that is not the plan's, a number a step


def window_of(order: str, *, world_size: int) -> int:
    """How many batches "strict" (1) or "window:W" (W) lets compete.

    Raises BadInput for anything else, and for more than one batch with more than one rank: each would overtake by
    what its own servers answer, and a step would be of different plan steps at different ranks.
    """
    if order == "strict":
        return 1
    match = re.fullmatch(r"window:([1-9]\d{0,3})", order)
    if match is None:
        wanted = "'strict' or 'window:W' with W from 1 to 9999"
        raise BadInput(f"is {show_value(order)}, wanted {wanted}", of="loader", field="order")
    window = int(match[1])
    if window > 1 and world_size > 1:
        raise BadInput(
            f"is {show_value(order)} and world_size is {world_size}, wanted 'strict': ranks that overtake by "
            "themselves take different steps, and the global batches are not the plan's",
            of="loader",
            field="order",
        )
    return window


class Order:
    """The plan's steps in the order in which they were delivered: eight bytes each once one came out of turn."""

    def __init__(self) -> None:
        self.steps = 0
        """How many are done: what was offered is delivered by assigning what offer() returned."""
        self._displaced = array("q")  # plan's step less place in the order; empty while all are 0

    def offer(self, step: int) -> int:
        """Note that step `step` of the plan is used next. Returns what `steps` is then.

        It is so once that is assigned; until then another may be offered, or the same one again.
        """
        if step != self.steps or self._displaced:
            del self._displaced[self.steps :]
            self._displaced.extend([0] * (self.steps - len(self._displaced)))
            self._displaced.append(step - self.steps)
        return self.steps + 1

    def used(self, steps: int) -> list[int]:
        """The plan's steps that the first `steps` were. Raises ValueError if the run has not got so far, or for more
        steps than can be listed.
        """
        if steps > _MAX_STEPS:
            raise ValueError(f"order: {steps} steps are asked for, wanted at most {_MAX_STEPS}")
        if self._displaced and steps > self.steps:
            raise ValueError(f"order: {steps} steps are asked for, {self.steps} were delivered")
        displaced = self._displaced[:steps] or [0] * steps
        return [place + by for place, by in enumerate(displaced)]

    def has_gaps(self, steps: int) -> bool:
        """Whether a step beyond an unused one was used among the first `steps`."""
        return any(self._displaced[:steps]) and max(self.used(steps)) >= steps

    def remaining(self, limit: int | None) -> Iterator[int]:
        """The plan's steps that are not used, in plan order, below the limit; a snapshot taken now."""
        done = set(self.used(self.steps)) if self._displaced else None
        first = self.steps if done is None else next(step for step in count() if step not in done)
        ahead = set() if done is None else {step for step in done if step > first}
        steps = (step for step in count(first) if step not in ahead)
        return takewhile(lambda step: limit is None or step < limit, steps)

    def spell(self, steps: int) -> str | None:
        """The order of the first `steps` as text; None if it is the plan's."""
        displaced = self._displaced[:steps]
        if not any(displaced):
            return None
        return base64.b64encode(zlib.compress(np.array(displaced, "<i4").tobytes(), 9)).decode()

    @classmethod
    def read(cls, text: object, *, steps: int) -> Order:
        """What spell(steps) wrote. Raises BadInput for anything that is not the order of so many steps."""
        order = cls()
        order.steps = steps
        if text is None:
            return order
        try:
            raw = _unpacked(
                base64.b64decode(text if isinstance(text, str) else "", validate=True), bytes_wanted=4 * steps
            )
            order._displaced = array("q", np.frombuffer(raw, "<i4").tolist())
        except (ValueError, zlib.error) as error:
            raise BadInput(f"resume: order is {show_value(text)}, wanted what a run wrote ({error})") from None
        used = order.used(steps) if len(order._displaced) == steps else []
        if len(set(used)) != steps or min(used, default=0) < 0:
            raise BadInput(f"resume: order is not one of {steps} different steps")
        return order


def _unpacked(packed: bytes, *, bytes_wanted: int) -> bytes:
    """What zlib packed, which must be so long: no more memory than that is taken, whatever the text says."""
    if bytes_wanted > 4 * _MAX_STEPS:
        raise ValueError(f"it is of more than {_MAX_STEPS} steps")
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(packed, bytes_wanted + 1)
    if len(raw) != bytes_wanted or not unpacker.eof:
        raise ValueError(f"it is not of {bytes_wanted // 4} steps")
    return raw
