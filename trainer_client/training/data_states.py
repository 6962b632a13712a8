"""What the ranks of a run knew of their data, given to the ranks that go on; pure: no files, no loader.

With as many ranks as before each gets its own state back. With more or fewer each gets the same: the place in the plan,
which is one for all, and all stand-ins, so that no sample that one rank has dropped comes again on another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from framefeed.errors import BadInput
from framefeed.show_value import show_value

_STAND_INS = "stand_ins"
_OWN = frozenset({_STAND_INS, "decoder_fingerprint", "dataset"})  # what ranks may know differently


def data_of_rank(states: Sequence[Mapping[str, object]], *, rank: int, world: int) -> dict[str, int | str | None]:
    """The state of rank `rank` of `world`, from those of all ranks before, in order.

    Raises BadInput for states that are not of one run at one step. (An order that one rank alone can go on with is the
    loader's to refuse.)
    """
    first = {name: value for name, value in states[0].items() if name not in _OWN}
    for number, state in enumerate(states):
        mine = {name: value for name, value in state.items() if name not in _OWN}
        if wrong := sorted(name for name in {*first, *mine} if first.get(name) != mine.get(name)):
            seen, wanted = (show_value(state.get(wrong[0])) for state in (mine, first))
            where = f"{show_value(wrong[0])} is {seen}, rank 0's {wanted}"
            raise BadInput(f"checkpoint: the data of rank {number} stands elsewhere: {where}")
    if len(states) == world:
        return _typed(states[rank])
    merged = {name: next((s[name] for s in states if s.get(name) is not None), None) for name in _OWN - {_STAND_INS}}
    rows = [row for state in states for row in _rows(state.get(_STAND_INS))]
    told = {_STAND_INS: json.dumps(sorted(rows, key=_position))} if rows else {}
    return _typed({**first, **{name: value for name, value in merged.items() if name in states[0]}, **told})


def other_data(theirs: Mapping[str, object], mine: Mapping[str, object]) -> str:
    """What of the data of a run is otherwise than it was, by the name of the data set where both have one, as a part of
    a line; "" if it is the same, or nobody says."""
    for name, what in (
        ("dataset", "the data set"),
        ("samples", "the number of samples"),
        ("samples_digest", "samples"),
    ):
        there, here = theirs.get(name), mine.get(name)
        if there is not None and here is not None and there != here:
            return f"{what} was {show_value(there)} and is {show_value(here)}"
    return ""


def _rows(text: object) -> list[list[object]]:
    """The records of `stand_ins.spell`, which the loader checks one by one."""
    if text is None:
        return []
    try:
        rows = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise BadInput(f"checkpoint: stand_ins is {show_value(text)}, wanted a record")
    return rows


def _position(row: list[object]) -> int:
    return row[0] if row and isinstance(row[0], int) else -1


def _typed(state: Mapping[str, object]) -> dict[str, int | str | None]:
    return {name: value for name, value in state.items() if isinstance(value, int | str | None)}
