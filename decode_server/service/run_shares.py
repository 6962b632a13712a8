"""Whose turn it is among runs: each gets its share of the decoding time, by what its clips took. Pure arithmetic.

Start-time fair queueing: the run that has used least for its share is next, and a run that asked for nothing has
neither saved up nor lost anything. What a clip will take is reckoned by the run's last ones and set right when it is
known, so that clips of 16 frames and of 4 get equal time and not equal numbers. It knows no clients and no clock.
Source: Goyal, Vin and Cheng 1996, "Start-time Fair Queuing".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from framefeed.errors import BadInput
from framefeed.show_value import show_value

MAX_RUNS = 256  # told apart; more of them share one
_FIRST_CLIP_S = 0.01  # reckoned for a clip before any was decoded
_CLIP_WEIGHT = 0.1  # of the newest clip in the moving average
_SHARE = re.compile(r"([\w.-]{0,64})=(\d+(?:\.\d+)?)", re.ASCII)


@dataclass(slots=True)
class _Run:
    weight: float
    used_s: float  # decoding time for its weight
    clip_s: float
    waiting: int = 0  # clips
    working: int = 0


class RunShares:
    """The runs of one server. A run without a weight of its own has 1."""

    def __init__(self, weights: Mapping[str, float] = MappingProxyType({})) -> None:
        self._weights = dict(weights)
        self._runs: dict[str, _Run] = {}
        self._turn_s = 0.0  # what the run that was last in turn had used before
        self._charged: dict[int, tuple[str, float]] = {}  # by clip: its run and what was reckoned

    def name(self, run: str) -> str:
        """What a run is called here: its name, or "" once there are too many."""
        if run not in self._runs and run not in self._weights and len(self._runs) >= MAX_RUNS:
            self._forget_idle()
            return run if len(self._runs) < MAX_RUNS else ""
        return run

    def weight(self, run: str) -> float:
        """A run's share relative to the others'."""
        return self._weights.get(run, 1.0)

    def waits(self, run: str) -> None:
        """A clip of it waits from now on."""
        known = self._runs.get(run)
        if known is None:
            known = self._runs[run] = _Run(self.weight(run), self._turn_s, _FIRST_CLIP_S)
        if not known.waiting:
            known.used_s = max(known.used_s, self._turn_s)
        known.waiting += 1

    def waits_no_more(self, run: str) -> None:
        """A clip of it is given up before its turn."""
        self._runs[run].waiting -= 1

    def in_turn(self) -> list[str]:
        """The runs that wait, the next one first."""
        waiting = [run for run, known in self._runs.items() if known.waiting]
        return sorted(waiting, key=lambda run: self._runs[run].used_s) if len(waiting) > 1 else waiting

    def begins(self, run: str, clip: int) -> None:
        """A clip that waited is being decoded; `clip` is a number of its own."""
        known = self._runs[run]
        known.waiting -= 1
        known.working += 1
        self._turn_s = max(self._turn_s, known.used_s)
        self._charged[clip] = run, known.clip_s
        known.used_s += known.clip_s / known.weight

    def ended(self, clip: int, took_s: float | None) -> None:
        """It is decoded no more, and took a thread so long; None if nobody knows."""
        run, charged_s = self._charged.pop(clip)
        known = self._runs[run]
        known.working -= 1
        if took_s is not None:
            known.used_s += (took_s - charged_s) / known.weight
            known.clip_s += _CLIP_WEIGHT * (took_s - known.clip_s)

    def _forget_idle(self) -> None:
        """Drop the runs that would begin again as new ones."""
        idle = [run for run, r in self._runs.items() if not r.waiting and not r.working and r.used_s <= self._turn_s]
        for run in idle:
            del self._runs[run]

    def __repr__(self) -> str:
        return f"RunShares({', '.join(f'{run or chr(34) * 2}: {r.used_s:.3f} s' for run, r in self._runs.items())})"


def parse_run_shares(options: Sequence[str]) -> dict[str, float]:
    """The weights of `NAME=WEIGHT` options. Raises BadInput for what is none, or a name given twice."""
    weights: dict[str, float] = {}
    for option in options:
        match = _SHARE.fullmatch(option)
        if match is None or not float(match[2]) > 0:
            raise BadInput(f"--run-share: {show_value(option)} is no share; wanted NAME=WEIGHT, as 'ablation=0.5'")
        if match[1] in weights:
            raise BadInput(f"--run-share: {show_value(match[1])} is given twice")
        weights[match[1]] = float(match[2])
    return weights
