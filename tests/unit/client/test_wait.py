"""Every blocked nanosecond has one cause, and the causes sum exactly to the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer_client.measures.wait import CAUSES, ClipLife, WaitLedger, attribute, to_ns

seconds = st.floats(0, 50)


@st.composite
def lives(draw: st.DrawFn) -> ClipLife:
    wanted, sent, received = sorted(draw(st.tuples(seconds, seconds, seconds)))
    stage = draw(st.dictionaries(st.sampled_from(["queue", "read", "decode", "scale"]), st.floats(-1, 30)))
    return ClipLife(wanted_s=wanted, sent_s=sent, received_s=received, absent_s=draw(seconds), stage_s=stage)


@given(st.tuples(seconds, seconds).map(sorted), lives(), st.none() | seconds)
def test_parts_sum_exactly_to_the_blocked_time(span: list[float], life: ClipLife, later_s: float | None) -> None:
    blocked = to_ns(span[0]), to_ns(span[1])
    spent = attribute(blocked, life, later_ready_ns=None if later_s is None else to_ns(later_s))
    assert set(spent) == set(CAUSES)
    assert all(part >= 0 for part in spent.values())
    assert sum(spent.values()) == blocked[1] - blocked[0]


LIFE = ClipLife(
    wanted_s=10.0,
    sent_s=13.0,
    received_s=20.0,
    absent_s=2.0,
    stage_s={"queue": 1.0, "read": 1.0, "decode": 1.5, "scale": 0.5},
)


def blocked(start_s: float, end_s: float, later_s: float | None = None) -> dict[str, float]:
    later_ns = None if later_s is None else to_ns(later_s)
    spent = attribute((to_ns(start_s), to_ns(end_s)), LIFE, later_ready_ns=later_ns)
    return {cause: ns / 1e9 for cause, ns in spent.items() if ns}


def test_a_wait_through_the_whole_life_has_every_stage() -> None:
    assert blocked(10, 20) == {"no_server": 2, "server_queue": 2, "read": 1, "decode": 2, "network": 3}


def test_a_late_consumer_pays_only_for_what_was_left() -> None:
    assert blocked(16.5, 20) == {"decode": 0.5, "network": 3}


def test_before_it_was_wanted_and_after_it_came_is_the_loader_itself() -> None:
    assert blocked(8, 10) == {"reorder": 2}
    assert blocked(20, 21) == {"reorder": 1}


def test_ordinary_slowness_is_reorder_while_a_later_batch_is_complete() -> None:
    assert blocked(10, 20, later_s=15.5) == {
        "no_server": 2,
        "server_queue": 2,
        "read": 1,
        "decode": 0.5,
        "reorder": 4.5,
    }


def test_a_lost_server_keeps_its_name_although_later_batches_are_complete() -> None:
    assert blocked(10, 12, later_s=9) == {"no_server": 2}


def test_stages_longer_than_the_request_leave_no_network() -> None:
    life = ClipLife(wanted_s=0, sent_s=0, received_s=1, stage_s={"decode": 9.0})
    assert attribute((0, to_ns(1)), life)["decode"] == to_ns(1)


def test_the_ledger_adds_up() -> None:
    ledger = WaitLedger()
    ledger.add((0, 7), LIFE)
    ledger.add((to_ns(11), to_ns(15)), LIFE, later_ready_ns=to_ns(14))
    ledger.add((5, 9), None)
    assert ledger.blocked_ns == sum(ledger.spent_ns().values()) == 7 + to_ns(4) + 4
    assert ledger.spent_ns()["no_server"] == 4 + to_ns(1)
