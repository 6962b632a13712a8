"""`make fuzz`: so many inputs for each target, a line for each at the end. Exit code 1 if anything was found."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import tyro

from tests.fuzz.fuzzing import Plan, Tally, fuzz
from tests.fuzz.targets import TARGETS


@dataclass(frozen=True, kw_only=True)
class Options:
    """Fuzz fronts, replies and files."""

    inputs: int = 1_000_000
    """Inputs of each target."""
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    """From which all inputs follow."""
    first: int = 0
    """Number of the first input: to go on where a run ended, or to have one input again."""
    only: tuple[str, ...] = ()
    """Targets, all unless given."""


def run(options: Options) -> list[Tally]:
    """Each target in turn, told as it ends."""
    print(f"seed {options.seed}", flush=True)
    tallies = []
    for name in options.only or TARGETS:
        plan = Plan(target=name, seed=options.seed, first=options.first, inputs=options.inputs)
        tally = fuzz(plan, TARGETS[name])
        print(tally, *tally.told, sep="\n", flush=True)
        tallies.append(tally)
    return tallies


if __name__ == "__main__":
    done = run(tyro.cli(Options))
    total = sum(tally.inputs for tally in done)
    found = [tally for tally in done if not tally.clean]
    print(f"{total:,} inputs, {len(found)} of {len(done)} targets with findings")
    raise SystemExit(bool(found))
