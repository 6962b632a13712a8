"""What became of clips, from what was told of them, and what is said of one that has not come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.wire import Load
from trainer_client.measures.lives import Lives
from trainer_client.measures.pace import Answer
from trainer_client.measures.spans import Spans
from trainer_client.measures.wait import ClipLife, Part

A, B = "tcp://a:1", "tcp://b:1"


def merged(life: ClipLife | None) -> list[Part]:
    """The parts that last, with what is next to its like taken together, in milliseconds."""
    assert life is not None
    found: list[Part] = []
    at_s = life.wanted_s
    for cause, end_s in life.parts:
        if end_s > at_s + 1e-9:
            found = found[:-1] if found and found[-1][0] == cause else found
            found.append((cause, round(end_s, 3)))
            at_s = end_s
    return found


def got(lives: Told, ticket: int, url: str, now_s: float, *, sent_s: float | None = None, **stage_s: float) -> ClipLife:
    """The answer of a server that was asked at `sent_s`, or when asked() said."""
    sent_s = lives.sent[ticket, url] if sent_s is None else sent_s
    return lives.got(ticket, url, Answer(sent_s=sent_s, received_s=now_s, stage_s=stage_s, load=Load()))


class Told(Lives):
    """Remembers when whom was asked for what, as a dispatch does."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[tuple[int, str], float] = {}

    def asked(self, ticket: int, url: str, now_s: float) -> None:
        super().asked(ticket, url, now_s)
        self.sent[ticket, url] = now_s


def heard(url: str, since_s: float) -> bool:
    return False


def silent(url: str, since_s: float) -> bool:
    return True


def asked(lives: Lives, ticket: int, url: str = A, *, wanted_s: float = 0.0, at_s: float = 0.0) -> None:
    lives.wanted(ticket, wanted_s)
    lives.asked(ticket, url, at_s)


def known(*urls: str, **stage_s: float) -> Told:
    """Lives whose servers have answered one clip each, at time 0, with these stages and 0.1 s of network."""
    lives = Told()
    took_s = sum(stage_s.values()) + 0.1
    for number, url in enumerate(urls):
        asked(lives, -1 - number, url, wanted_s=-took_s, at_s=-took_s)
        got(lives, -1 - number, url, 0.0, **stage_s)
    return lives


def test_a_clip_s_life_is_who_held_it_and_what_its_server_says() -> None:
    lives = Told()
    lives.held("no_server", 0.5)
    lives.wanted(1, 1.0)
    lives.held("server_queue", 2.0)
    lives.held("client_limit", 4.0)
    lives.asked(1, A, 5.0)
    lives.held("", 5.0)
    life = got(lives, 1, A, 10.0, queue=1.0, read=0.5, decode=1.0, scale=0.5)
    assert merged(life) == [
        ("no_server", 2.0),
        ("server_queue", 4.0),
        ("client_limit", 5.0),
        ("server_queue", 6.0),
        ("read", 6.5),
        ("decode", 8.0),
        ("network", 10.0),
    ]
    assert (life.wanted_s, life.received_s, life.limited_ns) == (1.0, 10.0, 10**9)


def test_stages_longer_than_the_request_leave_no_network() -> None:
    stages = Answer(sent_s=0, received_s=1, stage_s={"decode": 9.0}, load=Load()).stages()
    assert {cause: seconds for cause, seconds in stages.items() if seconds} == {"decode": 1.0}


@pytest.mark.parametrize(
    ("load", "front_s"),
    [
        (Load(), 0.0),
        (Load(front_s=0.25), 0.25),
        (Load(front_s=0.25, front_busy=0.5), 0.25),
        (Load(front_s=0.25, front_busy=0.7), 0.25 + 0.75 / 2),
        (Load(front_busy=0.95), 1.0),
        (Load(front_s=7.0), 1.0),
    ],
)
def test_a_front_answers_for_its_wait_and_when_it_is_full_for_what_is_unexplained(load: Load, front_s: float) -> None:
    stages = Answer(sent_s=0, received_s=3, stage_s={"decode": 2.0}, load=load).stages()
    assert stages["front"] == pytest.approx(front_s)
    assert stages["network"] == pytest.approx(1 - front_s)


@pytest.mark.parametrize(("front_busy", "queue_s"), [(0.0, 2.0), (0.8, 2.0), (0.875, 1.0), (1.0, 0.0)])
def test_a_full_front_answers_for_the_queue_behind_it(front_busy: float, queue_s: float) -> None:
    load = Load(front_busy=front_busy)
    stages = Answer(sent_s=0, received_s=3, stage_s={"queue": 2.0, "decode": 1.0}, load=load).stages()
    assert stages["server_queue"] == pytest.approx(queue_s)
    assert stages["front"] + stages["network"] == pytest.approx(2.0 - queue_s)


@given(
    st.floats(0, 100),
    st.dictionaries(st.sampled_from(["queue", "read", "decode", "scale"]), st.floats(-1, 30)),
    st.builds(Load, front_s=st.floats(0, 9), front_busy=st.floats(0, 1)),
)
def test_stages_sum_to_the_request(took_s: float, stage_s: dict[str, float], load: Load) -> None:
    stages = Answer(sent_s=5, received_s=5 + took_s, stage_s=stage_s, load=load).stages()
    assert all(seconds >= 0 for seconds in stages.values())
    assert sum(stages.values()) == pytest.approx(took_s)


@pytest.mark.parametrize(
    ("code", "cause"),
    [("busy", "server_queue"), ("storage_fault", "read"), ("corrupt_media", "decode"), ("draining", "no_server")],
)
def test_an_answer_without_a_clip_says_what_was_waited_for_in_vain(code: str, cause: str) -> None:
    lives = Told()
    asked(lives, 1)
    lives.refused(1, A, code, 2.0)
    lives.rests(1, 3.0)
    lives.asked(1, B, 3.5)
    assert merged(got(lives, 1, B, 4.0)) == [(cause, 3.0), ("plan", 3.5), ("network", 4.0)]


def test_a_lost_server_is_no_server_until_another_was_asked() -> None:
    lives = Told()
    asked(lives, 1)
    lives.asked(1, B, 2.0)
    lives.lost(1, A, 3.0)
    assert merged(got(lives, 1, B, 4.0, decode=2.0)) == [("no_server", 2.0), ("decode", 4.0)]


def test_a_hedge_that_is_lost_changes_nothing() -> None:
    lives = Told()
    asked(lives, 1)
    lives.asked(1, B, 2.0)
    lives.lost(1, B, 3.0)
    assert merged(got(lives, 1, A, 4.0, decode=4.0)) == [("decode", 4.0)]


def test_a_slow_server_that_was_hedged_answers_for_its_time_as_it_usually_spends_it() -> None:
    lives = known(A, B, read=0.1, decode=0.8)
    asked(lives, 1, wanted_s=10.0, at_s=10.0)
    lives.asked(1, B, 12.0)
    life = got(lives, 1, B, 12.5, decode=0.5)
    assert merged(life) == [("read", 10.25), ("decode", 12.5)]


def test_until_it_comes_a_clip_is_where_its_server_s_clips_usually_are_by_then() -> None:
    lives = known(A, queue=1.0, read=1.0, decode=2.0)
    asked(lives, 1, wanted_s=10.0, at_s=10.0)
    assert merged(lives.so_far([1], 10.5, is_silent=heard)) == [("server_queue", 10.5)]
    assert merged(lives.so_far([1], 13.0, is_silent=heard)) == [("server_queue", 11), ("read", 12), ("decode", 13.0)]
    late = merged(lives.so_far([1], 18.2, is_silent=heard))
    assert late == [("server_queue", 12), ("read", 14), ("decode", 18), ("network", 18.2)], "twice as long, so each is"


def test_the_missing_clip_that_is_looked_at_is_the_last_to_come() -> None:
    lives = known(A, decode=1.0)
    asked(lives, 1, wanted_s=10.0, at_s=10.0)
    lives.held("client_limit", 10.0)
    lives.wanted(2, 10.0)
    assert merged(lives.so_far([1, 2], 12.0, is_silent=heard)) == [("client_limit", 12.0)]
    lives.asked(2, A, 12.0)
    assert merged(lives.so_far([1, 2], 12.5, is_silent=heard)) == [("client_limit", 12.0), ("decode", 12.5)]
    assert lives.so_far([7], 12.5, is_silent=heard) is None


def test_a_server_nothing_is_heard_of_is_held_to_be_lost() -> None:
    lives = known(A, decode=1.0)
    asked(lives, 1, wanted_s=10.0, at_s=10.0)
    assert merged(lives.so_far([1], 13.0, is_silent=silent)) == [("no_server", 13.0)]


def test_a_server_that_lives_and_had_all_its_time_spent_it_as_it_usually_does() -> None:
    lives = known(A, read=0.1, decode=0.8)
    asked(lives, 1, wanted_s=10.0, at_s=10.0)
    lives.slow(1, A, 20.0)
    lives.asked(1, B, 20.0)
    assert merged(got(lives, 1, B, 21.0))[:2] == [("read", 11.0), ("decode", 19.0)]


def test_the_late_answer_to_an_attempt_that_was_given_up_has_its_own_life() -> None:
    lives = Told()
    asked(lives, 1, wanted_s=0.0, at_s=1.0)
    lives.lost(1, A, 3.0)
    lives.asked(1, B, 4.0)
    assert merged(got(lives, 1, A, 5.0, sent_s=1.0, decode=4.0)) == [("plan", 1.0), ("decode", 5.0)]


def test_while_a_batch_is_planned_nothing_is_heard() -> None:
    lives = known(A, decode=1.0)
    asked(lives, 1, wanted_s=10.0, at_s=10.0)
    lives.planning(True, 10.5)
    assert merged(lives.so_far([1], 19.0, is_silent=heard)) == [("decode", 11.0), ("plan", 19.0)]
    assert merged(lives.so_far([1], 10.75, is_silent=heard)) == [("decode", 10.75)]
    lives.planning(False, 19.0)
    assert merged(got(lives, 1, A, 20.0, decode=1.0)) == [("decode", 11.0), ("plan", 19.0), ("network", 20.0)]


def test_a_batch_opened_late_knows_for_how_long_it_could_have_been_before() -> None:
    lives = Told()
    lives.wanted(0, 1.0)
    lives.shallow(True, 2.0)
    lives.shallow(False, 3.0)
    lives.shallow(True, 4.0)
    for ticket in (1, 2):
        lives.wanted(ticket, 6.0)
        lives.asked(ticket, A, 6.0)
    assert [got(lives, ticket, A, 7.0).shallow_s for ticket in (1, 2)] == [3.0, 3.0]
    asked(lives, 3, wanted_s=6.5, at_s=6.5)
    assert got(lives, 3, A, 7.0).shallow_s == 0.5


def test_of_a_server_that_is_gone_nothing_is_known() -> None:
    lives = known(A, decode=1.0)
    lives.gone(A)
    asked(lives, 1, wanted_s=10.0, at_s=10.0)
    assert merged(lives.so_far([1], 11.0, is_silent=heard)) == [("server_queue", 11.0)]


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from(["", "x", "y"])), max_size=8), st.floats(0, 5))
def test_spans_say_what_held_at_every_time_between(noted: list[tuple[float, str]], start_s: float) -> None:
    spans = Spans()
    for at_s, state in sorted(noted):
        spans.note(state, at_s)
    found = spans.between(start_s, 12.0)
    assert found[-1][1] == 12.0
    assert [end_s for _, end_s in found] == sorted(end_s for _, end_s in found)
    began_s = start_s
    for state, end_s in found:
        held = [seen for at_s, seen in sorted(noted) if at_s < end_s]
        assert state == (held[-1] if held else "")
        began_s = end_s
    assert began_s == 12.0
    total_s = sum(spans.total_s(state, start_s, 12.0) for state in ("", "x", "y"))
    assert total_s == pytest.approx(12.0 - start_s)


def test_spans_remember_a_bounded_past() -> None:
    spans = Spans()
    for second in range(5000):
        spans.note(str(second), float(second))
    assert spans.between(4998.5, 5000.0) == [("4998", 4999.0), ("4999", 5000.0)]
    found = spans.between(0.0, 5000.0)
    assert len(found) <= 1024
    assert found[-1] == ("4999", 5000.0)
