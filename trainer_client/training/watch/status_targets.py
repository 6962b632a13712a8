"""What a trainer knows of where metrics are, as targets of Prometheus (http_sd): its servers', and its own ranks'.

It knows of servers what the feed exports, and asks none. Source of the form: prometheus.io, "HTTP SD".
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from framefeed.cli.top.measure import PAGE_INFO
from framefeed.page_place import is_here
from framefeed.page_server import Page

DECODE, TRAINER = "/targets/decode", "/targets/trainer"
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  # compared with


class ScrapeTargets:
    """Of one node's ranks, whose pages are at `urls`, as bound, and of the servers that the first of them knows."""

    def __init__(self, registry: CollectorRegistry, urls: Sequence[str]) -> None:
        self._registry = registry
        bound = [urlsplit(url) for url in urls]
        self._only_here = all(is_here(one.netloc) for one in bound)
        self._ranks = [f"{_reached(one.hostname or '')}:{one.port}" for one in bound]

    def get(self, path: str) -> Page | None:
        """The page of a path; None if that is none of its."""
        if path not in (DECODE, TRAINER):
            return None
        targets = self._servers() if path == DECODE else self._ranks
        return 200, "application/json", json.dumps([{"targets": targets, "labels": {}}]).encode()

    def _servers(self) -> list[str]:
        """Those on loopback only where this page is, too: elsewhere it would be another machine's."""
        known = self._registry.restricted_registry([PAGE_INFO]).collect()
        pages = {sample.labels["page"] for family in known for sample in family.samples}
        return sorted(page for page in pages if self._only_here or not is_here(page))


def _reached(bound: str) -> str:
    """The host at which others reach what is bound so: this machine's address by its name, or that name."""
    if bound not in _EVERYWHERE:
        return f"[{bound}]" if ":" in bound else bound
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return name
    return name if is_here(f"{address}:0") else address
