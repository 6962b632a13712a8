"""Watches a run from outside and disturbs nothing: the conservation laws at every scrape, the memory of processes."""

from __future__ import annotations

import contextlib
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import TracebackType

from tests.integration.serving import conserved as server_conserved
from tests.integration.serving import parse_metrics

_EVERY_S = 0.1

Who = Mapping[str, Callable[[], Iterable[int]]]


class Observer:
    """Samples within its `with`: `peak_rss_bytes` of each named set of processes, `scrapes` of the trainer and of
    servers that come and go, and pages that are off.
    """

    def __init__(self, metrics_url: str, processes: Who, *, servers: Sequence[Callable[[], str]] = ()) -> None:
        self.scrapes = self.server_scrapes = 0
        self.violations: list[str] = []
        self.peak_rss_bytes = dict.fromkeys(processes, 0)
        self._url = metrics_url
        self._processes = processes
        self._stopping = threading.Event()
        self._servers = servers
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._run, self._run_servers)]

    def __enter__(self) -> Observer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            with contextlib.suppress(OSError):  # the trainer has ended
                page = urllib.request.urlopen(self._url, timeout=10).read().decode()
                self.scrapes += 1
                if not conserved(page):
                    self.violations.append(page)
            for name, pids in self._processes.items():
                now_bytes = sum(map(rss_bytes, pids()))
                self.peak_rss_bytes[name] = max(self.peak_rss_bytes[name], now_bytes)

    def _run_servers(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            for url in self._servers:
                with contextlib.suppress(OSError, ValueError, HTTPException):  # it is stopped, or has ended
                    page = urllib.request.urlopen(url(), timeout=1).read().decode()
                    self.server_scrapes += 1
                    if not server_conserved(parse_metrics(page)):
                        self.violations.append(page)


def rss_bytes(pid: int) -> int:
    """Resident memory of a process; 0 for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:")), 0)


def conserved(page: str) -> bool:
    """Whether requested = used + dropped + in flight + held on a page of /metrics."""
    values = parse_metrics(page)

    def total(name: str) -> float:
        return sum(value for key, value in values.items() if key.partition("{")[0] == f"framefeed_{name}")

    parts = ("trainer_clips_total", "client_dropped_total", "client_inflight_requests", "client_held_clips")
    return total("client_requested_total") == sum(map(total, parts))
