"""How many servers are wanted: adds at once where that helps, gives back late, never beyond its bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.cli.fleet.policy import CAUSES, HEADROOM, Decision, FleetLimits, Past, Signals, decide
from framefeed.cli.fleet.signals import signals_of
from framefeed.cli.top.state import Rank, Server, State
from framefeed.errors import BadInput

LIMITS = FleetLimits(most=8, local=1, calm_s=100, settle_s=20)
EACH_CLIPS_S = 150.0


def seen(at_s: float, *, servers: int, demand: float, verdict: str = "") -> Signals:
    """What is measured while so many servers are up and ranks would take so much."""
    could = servers * EACH_CLIPS_S
    starvation = max(1 - could / demand, 0.0) if demand else 0.0
    kind = verdict or ("decode_bound" if starvation > 0.05 else "trainer_bound")
    return Signals(
        at_s=at_s,
        servers=servers,
        verdict=kind,
        starvation=starvation,
        demand_clips_s=demand,
        could_clips_s=could or None,
    )


def first(now: Signals, wanted: int = 2, limits: FleetLimits = LIMITS) -> Decision:
    """The decision of a fleet that wanted so many for long."""
    return decide(limits, Past(wanted=wanted, since_s=now.at_s - 1000), now)[0]


@pytest.mark.parametrize("could", [5e-324, 1e-300, 1e300, math.inf, math.nan])
@pytest.mark.parametrize("demand", [0.0, 1e15, math.inf, math.nan])
def test_no_rate_that_a_page_can_say_ends_the_fleet_s_keeper(could: float, demand: float) -> None:
    now = Signals(at_s=0, servers=2, verdict="decode_bound", starvation=0.5, demand_clips_s=demand, could_clips_s=could)
    decision = first(now)
    assert LIMITS.least <= decision.wanted <= LIMITS.most
    if math.isnan(demand) or math.isnan(could):
        assert decision.change == 0


@pytest.mark.parametrize(
    ("now", "wanted", "cause"),
    [
        (seen(0, servers=2, demand=900), 7, "starved"),
        (seen(0, servers=2, demand=310, verdict="front_bound"), 3, "starved"),
        (seen(0, servers=2, demand=900, verdict="network_bound"), 2, "elsewhere"),
        (seen(0, servers=2, demand=900, verdict="storage_bound"), 2, "elsewhere"),
        (seen(0, servers=2, demand=900, verdict="straggler"), 2, "elsewhere"),
        (seen(0, servers=2, demand=9000), 8, "bounds"),
        (seen(0, servers=2, demand=0, verdict="unknown"), 2, "unknown"),
        (seen(0, servers=2, demand=0, verdict="starting"), 2, "unknown"),
        (seen(0, servers=2, demand=260), 2, "enough"),
        (seen(0, servers=2, demand=100), 1, "not_needed"),
        (replace(seen(0, servers=0, demand=900, verdict="no_server"), starvation=1.0), 3, "starved"),
    ],
)
def test_what_is_wanted(now: Signals, wanted: int, cause: str) -> None:
    decision = first(now)
    assert (decision.wanted, decision.cause, decision.change) == (wanted, cause, wanted - 2)


def test_local_cores_come_first() -> None:
    assert [first(seen(0, servers=2, demand=demand)).local for demand in (100, 900)] == [1, 1]
    none = FleetLimits(most=8)
    assert first(seen(0, servers=2, demand=900), limits=none).local == 0


def test_a_recorded_load_takes_it_from_1_to_3_and_back_to_1() -> None:
    """As measured with servers that need 10 s to start: a minute of little, three of much, then little again."""
    past, up, ready = Past(wanted=1, since_s=0.0), 1, [(0.0, 1)]
    history: list[tuple[float, int, str]] = []
    for step in range(120):
        at_s = 5.0 * step
        up = [count for since_s, count in ready if since_s <= at_s][-1]
        demand = 380.0 if 60 <= at_s < 240 else 100.0
        decision, past = decide(LIMITS, past, seen(at_s, servers=up, demand=demand))
        assert decision.cause in CAUSES
        if decision.change:
            history.append((at_s, decision.wanted, decision.cause))
            ready.append((at_s + (10.0 if decision.change > 0 else 0.0), decision.wanted))
    assert history == [(60.0, 3, "starved"), (335.0, 1, "not_needed")]


def test_one_quiet_look_gives_nothing_back_and_a_demand_that_swings_keeps_its_peak() -> None:
    past = Past(wanted=4, since_s=-1000.0, needs=((-5.0, 4),))
    for step in range(60):
        demand = 520.0 if step % 10 == 0 else 120.0
        decision, past = decide(LIMITS, past, seen(5.0 * step, servers=4, demand=demand))
        assert (decision.wanted, decision.change) == (4, 0), decision


def test_a_change_is_given_time_before_the_next() -> None:
    decision, past = decide(LIMITS, Past(wanted=1, since_s=-100), seen(0, servers=1, demand=300))
    assert decision.wanted == 3
    decision, past = decide(LIMITS, past, seen(10, servers=1, demand=600))
    assert (decision.wanted, decision.cause) == (3, "settling")
    decision, past = decide(LIMITS, past, seen(20, servers=1, demand=600))
    assert (decision.wanted, decision.cause) == (5, "starved")


NUMBERS = st.floats(0, 1e6, allow_nan=False)


@given(
    st.lists(st.tuples(st.integers(0, 20), NUMBERS, st.sampled_from(["", "network_bound", "unknown", "no_server"]))),
    st.integers(0, 4),
    st.integers(0, 6),
)
def test_it_stays_within_its_bounds_and_says_why(looks: list[tuple[int, float, str]], least: int, more: int) -> None:
    limits = FleetLimits(least=least, most=max(least + more, 1), local=2)
    past = Past(wanted=limits.least, since_s=0.0)
    for number, (servers, demand, verdict) in enumerate(looks):
        before = past.wanted
        decision, past = decide(limits, past, seen(10.0 * number, servers=servers, demand=demand, verdict=verdict))
        assert limits.least <= decision.wanted == past.wanted <= limits.most
        assert decision.local <= min(decision.wanted, 2)
        assert decision.change == decision.wanted - before
        assert decision.cause in CAUSES
        assert decision.reason.count("\n") == 0 < len(decision.reason) < 200
        assert len(past.needs) <= math.ceil(limits.calm_s / 10.0) + 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"most": 0}, "most is 0 and the least 1"),
        ({"most": 2, "least": 3}, "most is 2 and the least 3"),
        ({"most": 2, "local": -1}, "local is -1"),
        ({"most": 2, "calm_s": -1.0}, "calm_s is -1"),
    ],
)
def test_bounds_that_cannot_be(options: dict[str, float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        FleetLimits(**options)  # type: ignore[arg-type]


def test_signals_of_a_state() -> None:
    rank = Rank(name="0", waits={"decode": 0.5}, clips_s=100)
    server = Server(name="tcp://a:1", state="ready", clips_s=100, threads=4, busy_threads=4, sockets=1)
    gone = Server(name="tcp://b:1", seen_state="lost")
    signals = signals_of(State(over_s=5, ranks=(rank,), servers=(server, gone)), at_s=7)
    assert (signals.at_s, signals.servers, signals.starvation) == (7, 1, 0.5)
    assert signals.demand_clips_s == pytest.approx(200)
    assert signals.could_clips_s == pytest.approx(100)
    needed = first(signals, wanted=1).wanted
    assert needed == math.ceil(HEADROOM * 2)
