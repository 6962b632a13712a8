"""The members of a running feed: has what was seen of servers decided on, and the dispatch and connections told.

It decides nothing itself. Everything but start() and close() belongs to the feed's thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from framefeed.errors import BadInput
from trainer_client.fleet.discovery import Discovery
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.fleet import Fleet
from trainer_client.fleet.membership import Membership
from trainer_client.fleet.server import State

_log = logging.getLogger(__name__)

_TURN_S = 0.5  # time alone may make a member leave


class Connects(Protocol):
    """What is needed of the feed's connections."""

    def connect(self, url: str) -> None: ...

    def disconnect(self, url: str) -> None: ...


class Members:
    """Whose servers a feed uses. Whoever starts it closes it."""

    def __init__(self, discovery: Discovery, *, fleet: Fleet, dispatch: Dispatch) -> None:
        self._discovery, self._fleet, self._dispatch = discovery, fleet, dispatch
        self._membership = Membership()
        self._due_s = -math.inf
        self._connected: set[str] = set()
        self._unusable: dict[str, BadInput] = {}

    def start(self) -> None:
        """Begin to look for servers."""
        self._discovery.start()

    def close(self) -> None:
        """Stop looking, as Discovery does. Idempotent."""
        self._discovery.close()

    def tend(self, wire: Connects, *, lock: AbstractContextManager[object], now_s: float) -> None:
        """Connect to servers that joined and let go of those that left, when there is news and now and then.

        Fleet and dispatch are only touched under the lock. An address that cannot be used is said once; raises BadInput
        when there are only such.
        """
        discovered = self._discovery.discovered()
        if not discovered and now_s < self._due_s:
            return
        self._due_s = now_s + _TURN_S
        for look in discovered:
            self._membership.saw(look, now_s)
        with lock:
            held = list(self._fleet.servers)
        self._connect(wire, held)  # first let go of those that were forgotten: one may join again
        with lock:
            connected = [url for url, server in self._fleet.servers.items() if server.state is not State.OFFLINE]
            change = self._membership.decide(now_s, connected=connected)
            for url in change.joined:
                self._dispatch.joined(url, now_s=now_s)
            for url in change.left:
                self._dispatch.left(url, now_s=now_s)
            held = list(self._fleet.servers)
        self._connect(wire, held)

    def _connect(self, wire: Connects, wanted: Sequence[str]) -> None:
        """Have connections to these and no others."""
        for url in sorted(self._connected.difference(wanted)):
            _log.info("server %s left", url)
            wire.disconnect(url)
        self._connected.intersection_update(wanted)
        self._unusable = {url: error for url, error in self._unusable.items() if url in wanted}
        for url in wanted:
            if url in self._connected or url in self._unusable:
                continue
            try:
                wire.connect(url)
            except BadInput as error:
                _log.error("server %s is not used: %s", url, error)
                self._unusable[url] = error
            else:
                _log.info("server %s joins", url)
                self._connected.add(url)
        if self._unusable and not self._connected:
            raise next(iter(self._unusable.values()))

    def __str__(self) -> str:
        """Where servers come from, and what is wrong there."""
        return str(self._membership)
