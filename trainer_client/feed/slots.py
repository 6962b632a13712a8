"""Batch slots: the memory that clips are received into, used again when nobody can see it any more.

A slot returns to the pool when the last array, view or tensor over it is gone, and every copy that reads it for a
device is done: so a batch stays valid for as long as it is held or copied, and touched pages are used again. A page
fault costs more than the copy (0.03 ms for a clip of 0.6 MB received into a used slot, 0.08 to 0.5 ms into fresh
memory). It knows nothing of what the slots hold, and of devices only how to ask whether a copy is done.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Allocate = Callable[[int], memoryview]


class Copied(Protocol):
    """Says whether a copy is done, without waiting for it: a CUDA event."""

    def query(self) -> bool: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    array: weakref.ref[npt.NDArray[np.uint8]]
    memory: memoryview
    home: weakref.ref[deque[memoryview]]
    copies: list[Copied] = field(default_factory=list)  # that read it and may not be done


_takings = itertools.count()
_out: dict[int, _Slot] = {}  # by the number of the taking, which is never another's: who removes one gives it back
_numbers: dict[int, int] = {}  # by the id of the array over it, which no other has while it lives
_copied: deque[_Slot] = deque()  # nobody sees them any more, a copy may still read them; also those of pools gone by


def ordinary_memory(nbytes: int) -> memoryview:
    """Writable memory of the process, as the pool takes it when not told otherwise."""
    return np.empty(nbytes, np.uint8).data


class SlotPool:
    """Arrays over memory that is kept for reuse, at most `spare` idle slots of `slot_bytes` at a time."""

    def __init__(self, slot_bytes: int, *, spare: int, allocate: Allocate = ordinary_memory) -> None:
        self.slot_bytes = slot_bytes
        self._allocate = allocate
        self._idle: deque[memoryview] = deque(maxlen=spare)  # appending to a full one lets the oldest go

    def take(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """A writable uint8 array of a shape that fits a slot, its bytes undefined. Never blocks; allocates when no slot
        is idle.
        """
        assert math.prod(shape) <= self.slot_bytes
        _collect()
        try:
            memory = self._idle.pop()
        except IndexError:
            memory = self._allocate(self.slot_bytes)
        # Views of views hold this array, not the memory below it: NumPy stops at a base that is no array.
        flat = np.frombuffer(memory, dtype=np.uint8, count=math.prod(shape))
        number = next(_takings)
        _out[number] = _Slot(weakref.ref(flat), memory, weakref.ref(self._idle))
        _numbers[id(flat)] = number
        weakref.finalize(flat, _let_go, number, id(flat)).atexit = False
        return flat.reshape(shape)

    def close(self) -> None:
        """Keep no slot any more, now or when it comes back. Arrays that are out stay valid."""
        self._idle = deque(maxlen=0)


def lend(array: npt.NDArray[np.uint8], *, until: Copied) -> bool:
    """Keep the slot that an array is a view of from being used again before a copy is done, whoever lets go of it.

    Returns whether it is of a slot: other memory is its owner's. Does not block; call it before the last reference to
    the array may go.
    """
    flat = array
    while isinstance(flat.base, np.ndarray):
        flat = flat.base
    slot = _out.get(_numbers.get(id(flat), -1))
    if slot is None or slot.array() is not flat:
        return False
    slot.copies.append(until)
    return True


def _let_go(number: int, array_id: int) -> None:
    """Nobody sees a slot any more. It runs wherever the last reference went, so it asks no device.

    The array's memory, and so its id, are no other's before it is done.
    """
    _numbers.pop(array_id, None)
    _give_back(number)


def _give_back(number: int) -> None:
    """Once for each taking, whoever is first: the array's end, or _collect()."""
    slot = _out.pop(number, None)
    if slot is None:
        return
    if slot.copies:
        _copied.append(slot)
    else:
        _take_back(slot)


def _collect() -> None:
    """Take back the slots whose copies are done meanwhile, and those that nobody was told of: Python swallows what a
    signal's handler raises while an array goes, and with it the call of _let_go.
    """
    for number in list(_out):
        slot = _out.get(number)
        if slot is not None and slot.array() is None:
            _give_back(number)
    for _ in range(len(_copied)):
        try:
            slot = _copied.popleft()
        except IndexError:  # another pool's thread had it
            return
        if all(copy.query() for copy in slot.copies):
            _take_back(slot)
        else:
            _copied.append(slot)


def _take_back(slot: _Slot) -> None:
    idle = slot.home()  # none once the pool is gone: a batch that outlives it must not keep the others' memory
    if idle is not None:
        idle.append(slot.memory)
