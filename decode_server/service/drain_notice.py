"""Who is told that the server leaves, and how long what they sent before may still come. It knows no sockets or clock.

A client that asks for nothing when the drain begins would learn of it by a lost connection, and with it a request.
"""

from __future__ import annotations

from collections import OrderedDict

QUIET_S = 1.0  # without a request for this long after the notice, none is on its way: a busy trainer reads it late
_CLIENTS = 4096


class DrainNotice:
    """The clients that asked last, and when the latest of them did."""

    def __init__(self) -> None:
        self._clients: OrderedDict[bytes, None] = OrderedDict()
        self._last_s = 0.0

    def asked(self, client: bytes, now_s: float) -> None:
        """A client asked for a clip."""
        self._last_s = now_s
        self._clients[client] = None
        self._clients.move_to_end(client)
        if len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)

    def begin(self, now_s: float) -> list[bytes]:
        """The drain begins: the clients to tell."""
        self._last_s = now_s
        return list(self._clients)

    def quiet(self, now_s: float) -> bool:
        """Whether nobody asks any more."""
        return not self._clients or now_s >= self._last_s + QUIET_S
