"""Server entries for tests of both sides."""

from __future__ import annotations

from typing import Any

from framefeed.server_entry import ServerEntry


def entry(**changes: Any) -> ServerEntry:
    """An entry like a server's, but for what is given."""
    usual: dict[str, Any] = {
        "server": "box-1:5555",
        "endpoints": ("tcp://10.0.0.5:5555",),
        "host": "boot/net",
        "state": "ready",
        "beat": 1,
        "lease_s": 90.0,
        "sockets": (0,),
        "threads": 4,
        "fingerprint": "fake-1",
        "metrics_url": "http://10.0.0.5:9555/metrics",
        "pid": 7,
    }
    return ServerEntry(**{**usual, **changes})
