"""Energy that a run takes, by the counters that this machine has: a GPU's own (NVML), the CPU packages' (RAPL).

What cannot be read is said, never guessed. It knows no steps.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux has the counters of CPU packages."""
_NVML = "libnvidia-ml.so.1"
_EVERY_S = 30.0  # a package's counter begins anew after some minutes


class Counter(Protocol):
    """Joules since some time."""

    @property
    def wraps_j(self) -> float | None:
        """After how many it begins anew; None for never."""
        ...

    def read_j(self) -> float:
        """Raises OSError if it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class RaplPackage:
    """A CPU package's counter, all that runs on it included: /sys/class/powercap/intel-rapl:N (AMD's too)."""

    folder: Path
    wraps_j: float | None

    @classmethod
    def all(cls, powercap: Path) -> list[RaplPackage]:
        """Those of this machine. Raises OSError, which names the file, if one may not be read."""
        found = sorted(path for path in powercap.glob("intel-rapl:*") if path.name.count(":") == 1)
        packages = [cls(path, _number(path / "max_energy_range_uj") / 1e6) for path in found]
        for package in packages:
            package.read_j()
        return packages

    def read_j(self) -> float:
        """Joules."""
        return _number(self.folder / "energy_uj") / 1e6


class GpuCounter:
    """A GPU's counter since its driver was loaded, by NVML, which comes with the driver."""

    wraps_j: float | None = None

    def __init__(self, uuid: str, library: str = _NVML) -> None:
        """`uuid` is as torch says it. Raises OSError for a machine, or a GPU, that has no such counter."""
        self._nvml = ctypes.CDLL(library)
        self._handle = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByUUID", f"GPU-{uuid.removeprefix('GPU-')}".encode(), ctypes.byref(self._handle))
        self.read_j()

    def read_j(self) -> float:
        """Joules."""
        millijoules = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    def _call(self, name: str, *args: object) -> None:
        code = getattr(self._nvml, name)(*args)
        if code:
            raise OSError(f"{name} says {code}")


class EnergyMeter:
    """Sums what counters have counted since it was made. One thread uses it."""

    def __init__(
        self, *, device: torch.device, packages: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`packages`: where the CPUs' counters are (POWERCAP), which are the whole machine's: one process reads them,
        None is for the others."""
        self.unread: dict[str, str] = {}
        """Why a counter is not there, by what it counts."""
        self._counters: dict[str, list[Counter]] = {"gpu": [], "cpu": []}
        self._open("gpu", lambda: _gpu_counters(device))
        self._open("cpu", lambda: _cpu_counters(packages))
        self._sums_j = {name: 0.0 for name, counters in self._counters.items() if counters}
        self._before_j = {id(counter): counter.read_j() for one in self._counters.values() for counter in one}
        self._clock, self._sampled_s = clock, clock()

    def record(self, step: object) -> None:
        """Read the counters, if they were not for half a minute: microseconds. Call it after every step."""
        del step
        if self._clock() - self._sampled_s >= _EVERY_S:
            self.read()

    def read(self) -> dict[str, float]:
        """Joules of "gpu" and "cpu", as far as there are counters."""
        self._sampled_s = self._clock()
        for name in list(self._sums_j):
            try:
                self._sums_j[name] += sum(self._since(counter) for counter in self._counters[name])
            except OSError as error:
                self.unread[name] = str(error)
                del self._sums_j[name]
        return dict(self._sums_j)

    def _since(self, counter: Counter) -> float:
        now_j, before_j = counter.read_j(), self._before_j[id(counter)]
        self._before_j[id(counter)] = now_j
        return now_j - before_j + ((counter.wraps_j or 0.0) if now_j < before_j else 0.0)

    def _open(self, name: str, find: Callable[[], list[Counter]]) -> None:
        try:
            self._counters[name] = find()
        except (OSError, AttributeError) as error:
            self.unread[name] = str(error)


def _gpu_counters(device: torch.device) -> list[Counter]:
    if device.type != "cuda":
        raise OSError("the run has no GPU")
    return [GpuCounter(str(torch.cuda.get_device_properties(device).uuid))]


def _cpu_counters(folder: Path | None) -> list[Counter]:
    if folder is None:
        raise OSError("counted by the first process of this machine")
    packages = RaplPackage.all(folder)
    if not packages:
        raise OSError(f"{folder} has no intel-rapl")
    return [*packages]


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except ValueError as error:
        raise OSError(f"{path}: {error}") from None
