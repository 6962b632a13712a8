"""Which frames cannot be decoded for damage that is known: the rule of what depends on what, for timelines and indices.

Pure; it knows flags and times of packets in decode order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from decode_server.media.packet_index import DAMAGED, DISPOSABLE, KEY

_LEADING_PACKETS = 32  # more than any codec puts between a key frame and what shows before it
_Ints = np.ndarray[Any, np.dtype[np.int64]]
_Flags = np.ndarray[Any, np.dtype[np.uint8]]
_Mask = np.ndarray[Any, np.dtype[np.bool_]]


def lost_frames(flags: _Flags, pts: _Ints, shown: _Ints) -> _Mask:
    """Which frames of `shown` (packets, in the order in which they show) are lost, bool (frames,): those of damaged
    packets, and those that are decoded behind one, from the same key frame on, that others may depend on.
    """
    own: _Mask = (flags[shown] & DAMAGED) > 0
    needed = np.flatnonzero((flags & (DAMAGED | DISPOSABLE)) == DAMAGED)
    keys = np.flatnonzero(flags & KEY)
    if not (len(needed) and len(keys)):
        return own
    first = np.searchsorted(needed, keys)
    needed, pts_to_end = np.append(needed, len(flags)), np.append(pts, 0)
    for _ in range(_LEADING_PACKETS):  # pictures that lead a key frame are not decoded from it
        leads = (needed[first] < len(flags)) & (pts_to_end[needed[first]] < pts[keys])
        if not leads.any():
            break
        first = first + leads
    begins = np.maximum(np.searchsorted(keys, shown, side="right") - 1, 0)
    for _ in range(_LEADING_PACKETS):
        leads = (begins > 0) & (pts[keys[begins]] > pts[shown])
        if not leads.any():
            break
        begins = begins - leads
    lost: _Mask = own | (needed[first][begins] <= shown)
    return lost


def lost_stretches(lost: _Mask) -> Iterator[tuple[int, int]]:
    """(first, behind) of each run of lost frames."""
    edges = np.flatnonzero(np.diff(lost, prepend=False, append=False))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
