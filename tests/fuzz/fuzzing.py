"""Runs a fuzz target in a process of its own, and counts what went wrong: exceptions nobody caught, and restarts.

An input follows from (seed, target, number), so a run goes on from any number, and one input can be had again alone. A
target that dies or stands still is replaced by another process, which goes on behind the input that did it.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Protocol

STILL_S = 120.0  # an input that takes longer is one that hangs
_TOLD = 20  # exceptions that are told in full
_SPAWN = multiprocessing.get_context("spawn")  # libraries that run threads are in nobody's way


class Target(Protocol):
    """What takes inputs."""

    def turn(self, number: int, rng: random.Random) -> int:
        """Take the input of this number and as many behind it as belong to the turn; returns how many those were.
        Raises what is a finding.
        """

    def close(self) -> int:
        """The end; returns how many processes of its had to be replaced. Raises what is a finding."""


@dataclass
class Tally:
    """What became of a run of inputs."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    exceptions: int = 0
    restarts: int = 0
    slowest_s: float = 0.0
    slowest: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.exceptions or self.restarts)

    def __str__(self) -> str:
        found = f"{self.exceptions} uncaught exceptions, {self.restarts} restarts"
        slowest = f"slowest {1e3 * self.slowest_s:.0f} ms (input {self.slowest})"
        return f"{self.target:>18}: {self.inputs:>9,} inputs, {self.seconds:7.0f} s, {found}, {slowest}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which inputs of a target."""

    target: str
    seed: int
    first: int = 0
    inputs: int

    def rng(self, number: int) -> random.Random:
        """The chance of one input."""
        return random.Random(f"{self.seed}:{self.target}:{number}")


def fuzz(plan: Plan, make: Callable[[], Target], *, still_s: float = STILL_S) -> Tally:
    """Run the inputs; `make` is sent to the process that does. Blocks until all are taken."""
    tally = Tally(plan.target)
    begun_s = time.monotonic()
    number, end = plan.first, plan.first + plan.inputs
    while number < end:
        at: Synchronized[int] = _SPAWN.Value("q", number)
        ours, theirs = _SPAWN.Pipe(duplex=False)
        child = _SPAWN.Process(target=_run, args=(plan, make, (number, end), at, theirs), name=f"fuzz {plan.target}")
        child.start()
        theirs.close()
        ended_well = _follow(child, ours, at, tally, still_s=still_s)
        tally.inputs = (end if ended_well else at.value + 1) - plan.first
        if ended_well:
            break
        tally.restarts += 1
        _tell(tally, f"input {at.value}: its process ended with {child.exitcode}")
        number = at.value + 1
    tally.seconds = time.monotonic() - begun_s
    return tally


def _run(
    plan: Plan, make: Callable[[], Target], span: tuple[int, int], at: Synchronized[int], findings: Connection
) -> None:
    """The child's side."""
    number, end = span
    target = make()
    slowest_s, slowest = 0.0, number
    while number < end:
        at.value = number
        begun_s = time.perf_counter()
        taken = 1
        try:
            taken = target.turn(number, plan.rng(number))
        except Exception:
            findings.send(("exception", f"input {number}: {traceback.format_exc(limit=-6)}"))
        took_s = (time.perf_counter() - begun_s) / taken
        if took_s > slowest_s:
            slowest_s, slowest = took_s, number
        number += taken
    try:
        restarts = target.close()
    except Exception:
        findings.send(("exception", f"after input {number - 1}: {traceback.format_exc(limit=-6)}"))
        restarts = 0
    findings.send(("end", restarts, slowest_s, slowest))


def _follow(
    child: multiprocessing.process.BaseProcess,
    findings: Connection,
    at: Synchronized[int],
    tally: Tally,
    *,
    still_s: float,
) -> bool:
    """Take in what a child finds; whether it came to its end."""
    seen, since_s = at.value, time.monotonic()
    try:
        while True:
            if findings.poll(1.0):
                match findings.recv():
                    case ("exception", text):
                        tally.exceptions += 1
                        _tell(tally, text)
                    case ("end", restarts, slowest_s, slowest):
                        tally.restarts += restarts
                        if slowest_s > tally.slowest_s:
                            tally.slowest_s, tally.slowest = slowest_s, slowest
                        return True
            elif at.value != seen:
                seen, since_s = at.value, time.monotonic()
            elif time.monotonic() > since_s + still_s:
                return False
    except EOFError:
        return False
    finally:
        _end(child)


def _end(child: multiprocessing.process.BaseProcess) -> None:
    child.join(10)
    for number in (signal.SIGINT, signal.SIGKILL):
        if child.is_alive() and child.pid is not None:
            os.kill(child.pid, number)
            child.join(10)


def _tell(tally: Tally, text: str) -> None:
    if len(tally.told) < _TOLD:
        tally.told.append(text)


def summary(tallies: Sequence[Tally]) -> str:
    """One line a target."""
    return "\n".join(map(str, tallies))
