"""Every blocked nanosecond has one cause, the causes sum exactly to the whole, and what was shown is not taken back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer_client.measures.wait import CAUSES, ORDINARY, ClipLife, Wait, WaitLedger, to_ns

seconds = st.floats(0, 50)
STAGES = ("client_limit", "no_server", *ORDINARY)


@st.composite
def lives(draw: st.DrawFn) -> ClipLife:
    times = sorted(draw(st.lists(seconds, min_size=2, max_size=8)))
    parts = tuple((draw(st.sampled_from(STAGES)), end_s) for end_s in times[1:])
    return ClipLife(wanted_s=times[0], received_s=times[-1], parts=parts, shallow_s=draw(st.just(0.0) | seconds))


@st.composite
def waits(draw: st.DrawFn) -> Wait:
    began_s, ended_s = sorted(draw(st.tuples(seconds, seconds)))
    later_s = draw(st.none() | seconds)
    return Wait(
        began_ns=to_ns(began_s),
        ended_ns=to_ns(ended_s),
        life=draw(st.none() | lives()),
        later_ready_ns=None if later_s is None else to_ns(later_s),
        first_batch=draw(st.booleans()),
    )


@given(waits())
def test_the_causes_of_a_wait_sum_exactly_to_it(wait: Wait) -> None:
    spent = wait.causes()
    assert tuple(spent) == CAUSES
    assert all(part >= 0 for part in spent.values())
    assert sum(spent.values()) == wait.ended_ns - wait.began_ns


LIFE = ClipLife(
    wanted_s=10.0,
    received_s=20.0,
    parts=(("no_server", 12.0), ("server_queue", 14.0), ("read", 15.0), ("decode", 17.0), ("network", 20.0)),
)


def blocked(
    start_s: float, end_s: float, later_s: float | None = None, *, life: ClipLife | None = LIFE, first: bool = False
) -> dict[str, float]:
    later_ns = None if later_s is None else to_ns(later_s)
    wait = Wait(began_ns=to_ns(start_s), ended_ns=to_ns(end_s), life=life, later_ready_ns=later_ns, first_batch=first)
    return {cause: ns / 1e9 for cause, ns in wait.causes().items() if ns}


def test_a_wait_through_the_whole_life_has_every_stage() -> None:
    assert blocked(10, 20) == {"no_server": 2, "server_queue": 2, "read": 1, "decode": 2, "network": 3}


def test_a_late_consumer_pays_only_for_what_was_left() -> None:
    assert blocked(16.5, 20) == {"decode": 0.5, "network": 3}


def test_before_it_was_wanted_and_after_it_came_is_the_loader_itself() -> None:
    assert blocked(8, 10) == {"plan": 2}
    assert blocked(20, 21) == {"plan": 1}
    assert blocked(20, 21, life=None) == {"plan": 1}


def test_the_first_batch_s_wait_is_its_own_cause_whatever_it_was() -> None:
    assert blocked(8, 20, 9, first=True) == {"first_batch": 12}
    assert blocked(8, 20, life=None, first=True) == {"first_batch": 12}


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


def held(held_s: float, *, shallow_s: float = 0.0) -> ClipLife:
    parts = (("client_limit", held_s), ("read", held_s + 1), ("decode", held_s + 3), ("network", held_s + 4))
    return ClipLife(wanted_s=0.0, received_s=held_s + 4, parts=parts, shallow_s=shallow_s)


def test_a_clip_held_back_by_the_budget_would_have_come_so_much_earlier() -> None:
    assert blocked(0, 14, life=held(10)) == {"client_limit": 10, "read": 1, "decode": 2, "network": 1}
    assert blocked(9, 14, life=held(10)) == {"client_limit": 5}, "it could have come before it was waited for"
    assert blocked(2, 6, life=held(2)) == {"client_limit": 2, "decode": 1, "network": 1}


def test_a_batch_opened_late_for_want_of_depth_could_have_been_decoded_earlier() -> None:
    assert blocked(0, 4, life=held(0, shallow_s=2)) == {"client_limit": 2, "decode": 1, "network": 1}
    assert blocked(0, 4, life=held(0, shallow_s=9)) == {"client_limit": 3, "network": 1}, "links may be full"


def test_the_ledger_adds_up() -> None:
    ledger = WaitLedger()
    ledger.add(Wait(began_ns=0, ended_ns=7, life=LIFE))
    ledger.add(Wait(began_ns=to_ns(11), ended_ns=to_ns(15), life=LIFE, later_ready_ns=to_ns(14)))
    ledger.add(Wait(began_ns=5, ended_ns=9))
    ledger.copied(3)
    assert ledger.blocked_ns == sum(ledger.shown_ns().values()) == 7 + to_ns(4) + 4 + 3
    assert ledger.shown_ns()["no_server"] == to_ns(1)
    assert ledger.shown_ns()["copy"] == 3


@given(st.data())
def test_what_is_shown_only_grows_and_is_always_the_whole_wait(data: st.DataObject) -> None:
    """Waits follow one another; each is looked at while it lasts, and what is held true of it changes at each look."""
    ledger = WaitLedger()
    shown = ledger.shown_ns()
    now_ns = blocked_ns = 0
    for _ in range(data.draw(st.integers(1, 5))):
        began_ns = now_ns = now_ns + data.draw(st.integers(0, 10**9))
        for last in [False] * data.draw(st.integers(0, 4)) + [True]:
            now_ns += data.draw(st.integers(0, 10**10))
            wait = Wait(began_ns=began_ns, ended_ns=now_ns, life=data.draw(st.none() | lives()))
            if last:
                ledger.add(wait)
                blocked_ns += now_ns - began_ns
            seen = ledger.shown_ns(None if last else wait)
            assert all(seen[cause] >= before for cause, before in shown.items())
            assert sum(seen.values()) == (blocked_ns if last else blocked_ns + now_ns - began_ns)
            shown = seen
    assert ledger.blocked_ns == blocked_ns


def wait_of(cause: str, began_s: int, ended_s: int) -> Wait:
    life = ClipLife(wanted_s=began_s, received_s=ended_s, parts=((cause, ended_s),))
    return Wait(began_ns=to_ns(began_s), ended_ns=to_ns(ended_s), life=life)


def test_what_was_shown_in_error_is_made_good_by_the_waits_that_follow() -> None:
    ledger = WaitLedger()
    assert ledger.shown_ns(wait_of("decode", 0, 4))["decode"] == to_ns(4)
    ledger.add(wait_of("no_server", 0, 6))
    shown = ledger.shown_ns()
    assert (shown["decode"], shown["no_server"]) == (to_ns(4), to_ns(2))
    ledger.add(wait_of("decode", 10, 13))
    shown = ledger.shown_ns()
    assert (shown["decode"], shown["no_server"]) == (to_ns(4), to_ns(5))
    ledger.add(wait_of("decode", 20, 23))
    shown = ledger.shown_ns()
    assert (shown["decode"], shown["no_server"]) == (to_ns(6), to_ns(6)), "nothing is owed any more"


def test_what_is_known_when_nobody_looked_meanwhile_is_the_truth() -> None:
    ledger = WaitLedger()
    for second, cause in enumerate(("decode", "read", "decode", "front")):
        ledger.add(wait_of(cause, second, second + 1))
    shown = {cause: ns for cause, ns in ledger.shown_ns().items() if ns}
    assert shown == {"decode": to_ns(2), "read": to_ns(1), "front": to_ns(1)}
