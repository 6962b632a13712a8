"""What a gateway refuses within a turn, one entry a reason: a flood is told in a few messages. It decides nothing."""

from __future__ import annotations

from decode_server.service.listeners.gateway.gateway_messages import Refused


class RefusedTally:
    """Filled by `refuse`, emptied by `take`."""

    def __init__(self) -> None:
        self._refused: dict[str, Refused] = {}

    def refuse(self, reason: str, who: str, why: str) -> None:
        """Note that somebody is refused; of several for one reason only the first is told by name."""
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
