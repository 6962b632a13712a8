"""From what packets' headers say to the flags of the packet index: where decoding may begin and what may be left out.

Pure. Where it cannot be sure it lets packets be fed: a flag that is wrong is a wrong picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from decode_server.media.demux import Row
from decode_server.media.packet_index import DAMAGED, DISPOSABLE, HIDDEN, KEY
from decode_server.media.picture_kind import PictureKind
from framefeed.errors import UnsupportedMedia

Flags = np.ndarray[Any, np.dtype[np.uint8]]


def packet_flags(rows: Sequence[Row]) -> Flags:
    """Flags, uint8 (packets,), by what headers and container say."""
    kinds = _careful(_kinds(rows))
    flags = np.zeros(len(rows), np.uint8)
    for i, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        flags[i] |= KEY * kind.random_access
        flags[i] |= DISPOSABLE * (not kind.reference)
        flags[i] |= HIDDEN * (row.discard or not kind.shown)
        flags[i] |= DAMAGED * row.damaged
    return flags


def undecodable(flags: Flags, times: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which packets come before the first key packet, or show before it and may depend on what is missing."""
    keys = np.flatnonzero(flags & KEY)
    if not len(keys):
        return np.ones(len(flags), np.bool_)
    first = int(keys[0])
    lost: np.ndarray[Any, np.dtype[np.bool_]] = (np.arange(len(flags)) < first) | (times < times[first])
    return lost


def _kinds(rows: Sequence[Row]) -> list[PictureKind]:
    return [row.kind or PictureKind(random_access=row.key) for row in rows]


def _careful(kinds: list[PictureKind]) -> list[PictureKind]:
    """Kinds with `reference` set wherever the packet is needed for a reason that its own headers do not tell."""
    if any(kind.packed for kind in kinds):  # the packet after a packed pair lets the second picture of it out
        return [replace(kind, reference=True) for kind in kinds]
    highest = max(kind.sublayer for kind in kinds)
    followed = [later.inherits and not later.random_access for _, later in pairwise(kinds)] + [False]
    return [
        # A non-reference picture of a lower sub-layer may still be used by the layers above it.
        replace(kind, reference=True) if needed or kind.sublayer < highest else kind
        for kind, needed in zip(kinds, followed, strict=True)
    ]


def check_parameters(rows: Sequence[Row], outside: frozenset[bytes]) -> None:
    """Raise UnsupportedMedia unless each run meets the same parameter sets, whatever the decoder was fed before.

    That holds when there are none but those it is opened with, `outside`, or when each key packet brings all of its
    own.
    """
    kinds = _kinds(rows)
    if all(unit in outside for kind in kinds for unit in kind.parameters):
        return
    expected = len(next((kind.parameters for kind in kinds if kind.random_access), ()))
    in_force: tuple[bytes, ...] = ()
    for kind in kinds:
        if kind.random_access:
            in_force = kind.parameters
            if len(in_force) == expected > 0:
                continue
        elif all(unit in in_force for unit in kind.parameters):
            continue
        raise UnsupportedMedia("its parameter sets change on the way, and not at every key frame; chunk it instead")
