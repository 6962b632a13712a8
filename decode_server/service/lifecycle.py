"""The life of a server: starting, ready, draining, stopped, and which step may follow which.

It knows neither signals nor sockets; the front moves it and everyone else reads it.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """What a server is to its clients: only a READY one takes requests."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


# READY falls back to STARTING when the last worker is lost: unready until one is up again.
NEXT: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.DRAINING, State.STOPPED}),
    State.READY: frozenset({State.STARTING, State.DRAINING, State.STOPPED}),
    State.DRAINING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}


class Lifecycle:
    """One server's state. Written by one thread; reading it from others is safe."""

    def __init__(self) -> None:
        self._state = State.STARTING

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    def move(self, to: State) -> bool:
        """Step to a state that may follow, and say whether that changed anything; staying is no step."""
        if to is self._state:
            return False
        assert to in NEXT[self._state], f"lifecycle: {self._state.value} cannot become {to.value}"
        self._state = to
        return True

    def __repr__(self) -> str:
        return f"Lifecycle({self._state.value})"
