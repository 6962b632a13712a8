"""Where clients of each listener find their front's metrics, as they are told; it serves none and knows no connection.

Unknown until the metrics have their port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit


class MetricsPlace:
    """No port until `learn`."""

    def __init__(self) -> None:
        self._of_listener: tuple[int, ...] = ()

    def learn(self, metrics_url: str, urls: Sequence[str]) -> None:
        """The URL of the metrics, and those of the listeners, as bound."""
        parts = urlsplit(metrics_url)
        self._of_listener = tuple(parts.port or 0 if _meet(parts.hostname or "", _host_of(url)) else 0 for url in urls)

    def of(self, listener: int) -> int:
        """The port of the metrics at the host where clients reach a listener; 0 if they are not there, or not yet."""
        return self._of_listener[listener] if self._of_listener else 0


def _host_of(url: str) -> str:
    return "127.0.0.1" if url.startswith("shm://") else urlsplit(url).hostname or ""


def _meet(metrics: str, listener: str) -> bool:
    """Whether whoever reaches a listener at a host surely reaches there what is bound to the other address."""
    bound = ipaddress.ip_address(metrics)
    return bound.is_unspecified or bound == ipaddress.ip_address(listener)
