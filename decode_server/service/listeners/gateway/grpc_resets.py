"""Which addresses open streams only to end them (HTTP/2's rapid reset, CVE-2023-44487). Pure: it ends none itself.

A stream counts as unused when it ended before a message came over it. gRPC's core lets no more of a connection through
than may stand at a time, so what is counted here is a part of what came. Source:
nvd.nist.gov/vuln/detail/CVE-2023-44487.
"""

from __future__ import annotations

from collections import OrderedDict

UNUSED_AT_ONCE = 64  # of an address in a window; a trainer opens one stream, and another when that was cut
WINDOW_S = 10.0
_ADDRESSES = 1024  # counted at a time; which was counted longest ago is forgotten


class UnusedStreams:
    """Counts by address."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, and how many

    def ended(self, address: str, now_s: float) -> bool:
        """A stream of it ended unused; whether that is one too many within a window."""
        since_s, count = self._windows.pop(address, (now_s, 0))
        if now_s >= since_s + WINDOW_S:
            since_s, count = now_s, 0
        self._windows[address] = since_s, count + 1
        if len(self._windows) > _ADDRESSES:
            self._windows.popitem(last=False)
        return count >= UNUSED_AT_ONCE

    def __repr__(self) -> str:
        return f"UnusedStreams(of {len(self._windows)} addresses)"
