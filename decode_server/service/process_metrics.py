"""CPU time and memory of the processes that a server starts, read from /proc when asked. It knows not what they do."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME = 11, 12  # of the fields of /proc/PID/stat behind the name
_RESIDENT, _SHARED = 1, 2  # of those of /proc/PID/statm


class StartsGateways(Protocol):
    """What has one process of another kind at a time."""

    @property
    def gateway_pid(self) -> int:
        """The process that is there now; 0 while there is none."""

    @property
    def gateways_ended_cpu_s(self) -> float:
        """CPU time of those that were reaped."""


class ProcessCollector(Collector):
    """For a registry; `workers` gives the processes of workers that are there now, each of `gateways` its one."""

    def __init__(self, workers: Callable[[], Sequence[int]], gateways: Sequence[StartsGateways] = ()) -> None:
        self._workers, self._gateways = workers, gateways

    def describe(self) -> Iterator[Metric]:
        """Nothing is read before somebody asks."""
        yield from self._families([], [])

    def collect(self) -> Iterator[Metric]:
        """Read /proc."""
        yield from self._families(self._workers(), [one.gateway_pid for one in self._gateways if one.gateway_pid])

    def _families(self, workers: Sequence[int], gateways: Sequence[int]) -> Iterator[Metric]:
        gateways_s = sum(one.gateways_ended_cpu_s for one in self._gateways)
        workers_s = max(reaped_cpu_seconds() - gateways_s, 0.0)
        for kind, pids, ended_s in (("workers", workers, workers_s), ("gateways", gateways, gateways_s)):
            cpu_s, own_bytes = ended_s, 0
            for pid in pids:
                with contextlib.suppress(OSError, IndexError):  # it is gone
                    cpu_s += cpu_seconds(pid)
                    own_bytes += own_memory_bytes(pid)
            yield CounterMetricFamily(
                f"framefeed_server_{kind}_cpu_seconds", f"CPU time of all {kind} so far.", value=cpu_s
            )
            yield GaugeMetricFamily(
                f"framefeed_server_{kind}_memory_bytes",
                f"Resident memory of all {kind} that none shares.",
                value=own_bytes,
            )


def reaped_cpu_seconds() -> float:
    """CPU time of all children that were reaped, by which no sum falls when one ends."""
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    return reaped.ru_utime + reaped.ru_stime


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used. Raises OSError if it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) * _TICK_S


def own_memory_bytes(pid: int) -> int:
    """Resident memory of a process that it shares with no file or other process. Raises OSError if it is gone."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[_RESIDENT]) - int(fields[_SHARED])) * _PAGE_BYTES
