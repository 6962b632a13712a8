"""What a gateway refuses within a turn, one entry a reason: a flood is told in a few messages. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable

from decode_server.service.listeners.gateway.gateway_messages import Refused


class RefusedTally:
    """Filled by `refuse`, emptied by `take`; `begun` is called with the first of a turn."""

    def __init__(self, begun: Callable[[], object] = lambda: None) -> None:
        self._begun = begun
        self._refused: dict[str, Refused] = {}

    def refuse(self, reason: str, who: str, why: str) -> None:
        """Note that somebody is refused; of several for one reason only the first is told by name."""
        if not self._refused:
            self._begun()
        before = self._refused.get(reason)
        self._refused[reason] = (
            Refused(reason, 1, who, why)
            if before is None
            else Refused(reason, before.times + 1, before.who, before.why)
        )

    def take(self) -> list[Refused]:
        """What was refused since the last call."""
        refused = list(self._refused.values())
        self._refused.clear()
        return refused
