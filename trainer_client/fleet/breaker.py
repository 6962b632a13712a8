"""The circuit breaker of one server: whether it is trusted with requests, and how often to ask if it may be again.

A pure state machine of what a server did; it knows no connection, load, clip or clock.
"""

from __future__ import annotations

from enum import Enum

_LONGEST_PROBE_S = 30.0


class Circuit(Enum):
    """Whether requests flow."""

    CLOSED = "closed"  # they do
    OPEN = "open"  # none does; it is asked who it is, ever more rarely
    HALF_OPEN = "half_open"  # it said who it is: one request at a time until one brings a clip


class Sign(Enum):
    """What moves a circuit."""

    CONNECTED = "connected"  # anew: what an earlier process did says nothing
    FAILING = "failing"  # too many failures in a row
    DESCRIBED = "described"  # it answered a probe
    SERVED = "served"


# What is not listed changes nothing.
_NEXT: dict[tuple[Circuit, Sign], Circuit] = {
    **{(circuit, Sign.CONNECTED): Circuit.CLOSED for circuit in Circuit},
    **{(circuit, Sign.FAILING): Circuit.OPEN for circuit in Circuit},
    (Circuit.OPEN, Sign.DESCRIBED): Circuit.HALF_OPEN,
    (Circuit.HALF_OPEN, Sign.SERVED): Circuit.CLOSED,
}


class Breaker:
    """Counts failures in a row: `failures_to_open` of them open the circuit, and a single one when it is half open."""

    def __init__(self, *, failures_to_open: int, probe_s: float) -> None:
        self.circuit = Circuit.CLOSED
        self.failures = 0
        self.openings = 0  # since it last served
        self._failures_to_open = failures_to_open
        self._probe_s = probe_s

    def connected(self) -> None:
        """A new connection stands."""
        self.failures = self.openings = 0
        self._move(Sign.CONNECTED)

    def failed(self) -> bool:
        """No usable answer came. Returns whether that opened the circuit."""
        self.failures += 1
        half_open = self.circuit is Circuit.HALF_OPEN
        if self.circuit is Circuit.OPEN or not (half_open or self.failures >= self._failures_to_open):
            return False
        self.openings += 1
        self._move(Sign.FAILING)
        return True

    def answered(self) -> None:
        """It answered with an error that says nothing against it."""
        self.failures = 0

    def described(self) -> None:
        """It said who it is and that it takes requests."""
        self._move(Sign.DESCRIBED)

    def served(self) -> None:
        """It answered with a clip."""
        self.failures = self.openings = 0
        self._move(Sign.SERVED)

    @property
    def probe_every_s(self) -> float:
        """Seconds between two probes: twice as long after each opening, up to 30 s."""
        slower = 2.0 ** min(max(self.openings - 1, 0), 30)
        return min(self._probe_s * slower, max(_LONGEST_PROBE_S, self._probe_s))

    def _move(self, sign: Sign) -> None:
        self.circuit = _NEXT.get((self.circuit, sign), self.circuit)

    def __repr__(self) -> str:
        return f"Breaker({self.circuit.value}, {self.failures} failures in a row)"
