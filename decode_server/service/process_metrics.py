"""CPU time and memory of the worker processes, read from /proc when somebody asks. It knows none of their work."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME = 11, 12  # of the fields of /proc/PID/stat behind the name
_RESIDENT, _SHARED = 1, 2  # of those of /proc/PID/statm


class ProcessCollector(Collector):
    """For a registry; `pids` gives the processes that are there now."""

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids

    def describe(self) -> Iterator[Metric]:
        """Nothing is read before somebody asks."""
        yield from self._families([])

    def collect(self) -> Iterator[Metric]:
        """Read /proc."""
        yield from self._families(self._pids())

    def _families(self, pids: Sequence[int]) -> Iterator[Metric]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that were reaped, so that the sum never falls
        cpu_s, own_bytes = ended.ru_utime + ended.ru_stime, 0
        for pid in pids:
            with contextlib.suppress(OSError, IndexError):  # it is gone
                cpu_s += cpu_seconds(pid)
                own_bytes += own_memory_bytes(pid)
        yield CounterMetricFamily(
            "framefeed_server_workers_cpu_seconds", "CPU time of all workers so far.", value=cpu_s
        )
        yield GaugeMetricFamily(
            "framefeed_server_workers_memory_bytes", "Resident memory of all workers that none shares.", value=own_bytes
        )


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used. Raises OSError if it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) * _TICK_S


def own_memory_bytes(pid: int) -> int:
    """Resident memory of a process that it shares with no file or other process. Raises OSError if it is gone."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[_RESIDENT]) - int(fields[_SHARED])) * _PAGE_BYTES
