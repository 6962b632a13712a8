"""What is fuzzed holds under some inputs here, under more in the slow suite, under a million each in `make fuzz`."""

from __future__ import annotations

import random
from functools import partial

import pytest

from tests.fuzz.fuzzing import Plan, fuzz
from tests.fuzz.inputs import DEPTHS, JSON, MSGPACK, Strange, paths_of
from tests.fuzz.parsers import PARSERS
from tests.fuzz.rough_target import Rough
from tests.fuzz.targets import SERVERS, ParserTarget
from tests.integration.test_fuzz import seed_of_run

FEW = 150
PARSED, SERVED = 10_000, 4_000
"""Inputs of a target in the slow suite: 144,000 in all."""


def test_what_is_wrong_is_found_and_the_inputs_behind_it_are_taken() -> None:
    tally = fuzz(Plan(target="rough", seed=1, inputs=12), Rough)
    assert (tally.inputs, tally.exceptions, tally.restarts, tally.clean) == (12, 2, 1, False)
    assert "input 3: " in tally.told[0]
    assert "an oversight" in tally.told[0]
    assert tally.told[1] == "input 5: its process ended with 9"
    assert "input 8: " in tally.told[2]
    assert "2 uncaught exceptions, 1 restarts" in str(tally)


def test_an_input_follows_from_seed_target_and_number() -> None:
    plan = Plan(target="tcp headers", seed=7, first=100, inputs=5)
    again = Plan(target="tcp headers", seed=7, inputs=900)
    assert plan.rng(104).randbytes(20) == again.rng(104).randbytes(20)
    assert plan.rng(104).randbytes(20) != plan.rng(105).randbytes(20)


@pytest.mark.parametrize("spelling", [MSGPACK, JSON], ids=["msgpack", "json"])
def test_each_depth_is_tried_in_each_field(spelling: object) -> None:
    body = {"a": 1, "b": {"c": 2}}
    assert spelling in (MSGPACK, JSON)
    strange = Strange([body], MSGPACK if spelling is MSGPACK else JSON)
    fields = len(list(paths_of(body)))
    assert strange.every_depth == 2 * DEPTHS * fields
    rng = random.Random(1)
    swept = {strange.bytes_at(number, rng) for number in range(1, strange.every_depth, 2)}
    assert len(swept) == DEPTHS * fields
    deepest = b"\x91" * 1023 if spelling is MSGPACK else b"[" * 1023
    assert sum(deepest in data for data in swept) == fields


@pytest.mark.parametrize("name", PARSERS)
def test_some_inputs_of_each_parser(name: str) -> None:
    plan, target = Plan(target=name, seed=seed_of_run(), inputs=FEW), ParserTarget(name)
    for number in range(FEW):
        target.turn(number, plan.rng(number))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PARSERS, *SERVERS])
def test_many_inputs_of_each_target(name: str) -> None:
    make = SERVERS.get(name) or partial(ParserTarget, name)
    tally = fuzz(Plan(target=name, seed=seed_of_run(), inputs=SERVED if name in SERVERS else PARSED), make)
    print(tally)
    assert tally.clean, tally.told
