"""Which connections open streams only to end them (HTTP/2's rapid reset, CVE-2023-44487). Pure: it ends none itself.

A stream counts as unused when it ended before a message came over it. Who has too many within a window is a flood until
the window is over. Source: nvd.nist.gov/vuln/detail/CVE-2023-44487.
"""

from __future__ import annotations

from collections import OrderedDict

UNUSED_AT_ONCE = 64  # of a connection in a window; a trainer opens one stream, and another when that was cut
WINDOW_S = 10.0
_CONNECTIONS = 1024  # counted at a time; who was counted longest ago is forgotten


class UnusedStreams:
    """Counts by the name of a connection."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, and how many

    def ended(self, connection: str, now_s: float) -> None:
        """A stream of it ended unused."""
        since_s, count = self._windows.pop(connection, (now_s, 0))
        self._windows[connection] = (since_s, count + 1) if now_s < since_s + WINDOW_S else (now_s, 1)
        if len(self._windows) > _CONNECTIONS:
            self._windows.popitem(last=False)

    def is_flood(self, connection: str, now_s: float) -> bool:
        """Whether a further stream of it is to be refused."""
        since_s, count = self._windows.get(connection, (now_s, 0))
        return count >= UNUSED_AT_ONCE and now_s < since_s + WINDOW_S

    def __repr__(self) -> str:
        return f"UnusedStreams(of {len(self._windows)} connections)"
