"""Servers appear, are busy, fail, leave and come back; who gets a request follows from that and the seed alone."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from framefeed.wire import Load
from tests.unit.client.clips import who
from trainer_client.fleet.balancer import Asked
from trainer_client.fleet.fleet import Fleet, FleetLimits
from trainer_client.fleet.run_identity import Misfit, RunIdentity
from trainer_client.fleet.server import ASKED_WHO, NEXT, TAKES_REQUESTS, Event, Server, State
from trainer_client.measures.stats import Ledger

A, B = "tcp://a:1", "tcp://b:1"


def fleet(*urls: str, identity: RunIdentity | None = None, ledger: Ledger | None = None, **limits: object) -> Fleet:
    """One that takes the first identity it hears, unless told otherwise."""
    chosen = FleetLimits(**{"settle_s": 0.0, **limits})  # type: ignore[arg-type]
    return Fleet(urls or (A, B), limits=chosen, seed=3, now_s=0.0, identity=identity, ledger=ledger)


def up(target: Fleet, url: str, *, now_s: float = 0.0, workers: int = 4, **more: Any) -> None:
    target.connected(url, now_s)
    assert url in target.probes(now_s)
    target.described(url, who(1, workers=workers, **more), now_s)


def test_a_server_is_used_once_it_said_who_it_is() -> None:
    target = fleet(A)
    assert target.pick(0.0) is None
    target.connected(A, 0.0)
    assert target.pick(0.0) is None
    assert target.probes(0.0) == [A]
    assert target.probes(0.5) == []
    assert target.probes(1.0) == [A]
    target.described(A, who(1), 1.1)
    assert target.pick(1.1) == A
    assert target.probes(9.0) == []


def test_a_starting_server_is_asked_again_soon() -> None:
    target = fleet(A)
    target.connected(A, 0.0)
    target.probes(0.0)
    target.described(A, who(1, state="starting"), 0.1)
    assert target.servers[A].state is State.PROBING
    assert target.wake_s(0.1) == pytest.approx(0.3)


def test_a_starting_server_has_no_decoder_yet_which_is_no_other_one() -> None:
    target = fleet()
    for url, state, fingerprint in ((A, "starting", ""), (A, "ready", "f1"), (B, "starting", ""), (B, "ready", "f1")):
        target.connected(url, 0.0)
        target.described(url, who(1, state=state, fingerprint=fingerprint), 0.1)
    assert target.identity.fingerprint == "f1"
    assert target.up == [A, B]


def test_a_draining_server_gets_nothing_new_and_keeps_what_it_has() -> None:
    target = fleet(A)
    up(target, A)
    target.sent(A, attempt=1, clip_bytes=10)
    target.sent(A, attempt=2, clip_bytes=10)
    target.leaving(A, attempt=1, now_s=1.0)
    assert target.pick(1.0) is None
    assert list(target.servers[A].attempts) == [2]
    assert target.probes(1.0) == [A]
    target.described(A, who(3), 2.0)
    assert target.pick(2.0) == A


def test_failures_in_a_row_put_a_server_down_until_it_answers() -> None:
    target = fleet(A, failures_to_down=2)
    up(target, A)
    for attempt in (1, 2, 3):
        target.sent(A, attempt=attempt, clip_bytes=10)
    assert target.failed(A, attempt=1, now_s=5.0) == []
    assert target.failed(A, attempt=2, now_s=5.0) == [3]
    assert target.servers[A].state is State.PROBING
    assert target.inflight_bytes == 0
    assert target.probes(5.0) == [A]
    target.described(A, who(4), 5.1)
    target.sent(A, attempt=5, clip_bytes=10)
    assert not target.has_room(5.1), "one request at a time until it has served one"
    assert target.servers[A].state is State.TRIAL
    assert target.failed(A, attempt=5, now_s=9.0) == []
    assert target.servers[A].state is State.PROBING, "and one more failure is enough"
    assert target.probes(9.0) == []
    assert target.probes(10.0) == [A]


def test_a_served_clip_restores_trust() -> None:
    target = fleet(A, failures_to_down=2)
    up(target, A)
    for attempt in (1, 2, 3):
        target.sent(A, attempt=attempt, clip_bytes=10)
    target.failed(A, attempt=1, now_s=1.0)
    target.served(A, 2, 1.0)
    target.failed(A, attempt=3, now_s=1.0)
    assert target.servers[A].state is State.UP


def test_a_server_may_hold_what_it_grants_or_two_clips_a_worker() -> None:
    target = fleet(A)
    up(target, A, workers=4)
    assert target.servers[A].window_clips == 8
    for credits in (3, 1):
        target.heard(A, Load(credits=credits), 0.0)
        assert target.servers[A].window_clips == credits
    assert target.pick(0.0) == A, "whoever holds nothing may always ask for one"
    target.sent(A, attempt=1, clip_bytes=1)
    assert not target.has_room(0.0)
    target.served(A, 1, 0.0)
    assert target.has_room(0.0)


def test_a_busy_server_rests_longer_each_time_and_not_all_clients_alike() -> None:
    rests: dict[int, list[float]] = {}
    for seed in range(8):
        target = Fleet((A,), limits=FleetLimits(busy_rest_s=0.1, busy_rest_max_s=0.4), seed=seed, now_s=0.0)
        up(target, A)
        now_s, rests[seed] = 0.0, []
        for attempt in range(5):
            target.sent(A, attempt=attempt, clip_bytes=1)
            target.sent(A, attempt=100 + attempt, clip_bytes=1)
            target.busy(A, attempt=attempt, now_s=now_s)
            target.busy(A, attempt=100 + attempt, now_s=now_s)  # of the same moment: no longer rest
            assert not target.has_room(now_s)
            wake_s = target.wake_s(now_s)
            assert wake_s is not None
            assert target.has_room(wake_s)
            rests[seed].append(wake_s - now_s)
            now_s = wake_s
        for rest_s, mean_s in zip(rests[seed], (0.1, 0.2, 0.4, 0.4, 0.4), strict=True):
            assert 0.5 * mean_s <= rest_s < 1.5 * mean_s
        target.sent(A, attempt=7, clip_bytes=1)
        target.served(A, 7, now_s)
        assert target.servers[A].rests == 0
    assert len({rest[0] for rest in rests.values()}) == 8


def described(target: Fleet, url: str, now_s: float = 0.0, **said: Any) -> list[int]:
    target.connected(url, now_s)
    return target.described(url, who(1, **said), now_s)


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        ({"fingerprint": "f2"}, "decoder", r"decodes with 'f2', this run with 'f1'.*or set allow_mixed_decoders"),
        ({"dataset": "d2"}, "dataset", r"serves data set 'd2', this run reads 'd1'"),
        ({"max_clip_bytes": 999}, "room", r"room for clips of 999 bytes, this run's have 1000"),
    ],
)
def test_a_server_that_does_not_fit_is_shunned_named_once_and_asked_again(
    said: dict[str, Any], reason: str, words: str
) -> None:
    ledger = Ledger()
    identity = RunIdentity(fingerprint="f1", dataset="d1", clip_bytes=1000)
    target = fleet(identity=identity, ledger=ledger)
    up(target, A, dataset="d1", max_clip_bytes=1000)
    for _ in range(3):
        described(target, B, **said)
    assert target.servers[B].state is State.SHUNNED
    assert target.up == [A]
    assert ledger.shunned == {reason: 1}
    (line,) = target.tidings()
    assert re.search(rf"server {B} is not used \({reason}: .*{words}", line)
    assert re.search(words, str(target.servers[B])), "it is in the situation"
    assert target.probes(29.0) == []
    assert target.probes(30.0) == [B]
    target.described(B, who(2, dataset="d1"), 30.1)  # it was upgraded
    assert target.up == [A, B]
    assert target.unfit(1e9) is None


def test_what_was_asked_of_a_server_is_lost_when_it_turns_out_to_be_another() -> None:
    target = fleet(A, identity=RunIdentity(fingerprint="f1", dataset="d1"))
    up(target, A, dataset="d1")
    target.sent(A, attempt=1, clip_bytes=10)
    target.ask_again(A, 1.0)
    assert target.up == [A], "it is used meanwhile"
    assert target.probes(1.0) == [A]
    assert target.described(A, who(2, dataset="d2"), 1.1) == [1]
    assert (target.up, target.inflight_bytes) == ([], 0)


def test_mixed_decoders_may_be_allowed_mixed_data_sets_never() -> None:
    target = fleet(identity=RunIdentity(allow_mixed_decoders=True))
    described(target, A, dataset="d1")
    described(target, B, dataset="d1", fingerprint="f2")
    assert target.up == [A, B]
    described(target, B, dataset="d2")
    assert target.up == [A]


TEN = tuple(f"tcp://s{i}:1" for i in range(10))


@pytest.mark.parametrize("odd", [{"fingerprint": "f0"}, {"dataset": "d0"}, {"fingerprint": "f9", "dataset": "d9"}])
def test_the_first_to_answer_does_not_win_over_most(odd: dict[str, Any]) -> None:
    ledger = Ledger()
    target = fleet(*TEN, settle_s=1.0, ledger=ledger)
    first = TEN[4]
    described(target, first, **{"dataset": "d1", **odd})
    assert target.up == [], "nine others may say otherwise"
    for url in TEN:
        if url != first:
            described(target, url, 0.5, dataset="d1")
    assert (target.identity.fingerprint, target.identity.dataset) == ("f1", "d1")
    assert sorted(target.up) == sorted(set(TEN) - {first})
    assert ledger.shunned.total() == 1


def test_servers_that_do_not_answer_are_waited_for_only_so_long() -> None:
    target = fleet(*TEN, settle_s=0.75)
    described(target, TEN[0], 5.0)
    target.probes(5.0)
    assert target.wake_s(5.0) == 5.75
    target.settle(5.7)
    assert target.up == []
    target.settle(5.75)
    assert target.up == [TEN[0]]
    starting = fleet(*TEN, settle_s=1.0)
    described(starting, TEN[0], 5.0)
    for url in TEN[1:]:
        described(starting, url, 5.0, state="starting", fingerprint="")
    starting.settle(14.9)
    assert starting.up == [], "those that are starting are waited for longer"
    starting.settle(15.0)
    assert starting.up == [TEN[0]]


def test_one_of_one_and_most_of_all_begin_at_once() -> None:
    target = fleet(A, settle_s=1.0)
    described(target, A)
    assert target.up == [A]
    target = fleet(*TEN, settle_s=1.0)
    for count, url in enumerate(TEN[:6], 1):
        described(target, url)
        assert len(target.up) == (6 if count == 6 else 0)


def test_ranks_that_see_a_draw_choose_alike() -> None:
    for order in (TEN, TEN[::-1]):
        target = fleet(*TEN, settle_s=1.0)
        for url in order:
            described(target, url, fingerprint=f"f{TEN.index(url) % 2}")
        assert target.identity.fingerprint == "f0"


def test_the_run_ends_when_all_that_is_left_does_not_fit_and_not_before() -> None:
    target = fleet(identity=RunIdentity(fingerprint="f0", dataset="d0"), member_grace_s=30.0)
    described(target, A, 1.0, dataset="d0")
    assert target.unfit(1e9) is None, "the other may fit, and nobody asked for its clips to end the run"
    target.disconnected(A, 2.0)
    described(target, A, 3.0, fingerprint="f0", dataset="d0")
    described(target, B, 4.0, fingerprint="f2")
    assert target.unfit(1e9) is None
    described(target, A, 5.0, fingerprint="f2")  # the last one was replaced
    assert target.unfit(34.9) is None
    assert target.wake_s(34.9) == pytest.approx(34.0, abs=1.1)
    said = target.unfit(35.0)
    assert said is not None
    assert re.fullmatch(rf"no server fits this run: {A} \(decoder: .*\); {B} \(decoder: .*\)", said)
    assert sum("the run ends in 30 s unless one comes" in line for line in target.tidings()) == 1
    target.joined("tcp://c:1", 35.0)
    assert target.unfit(1e9) is None, "a member that was not heard of yet may fit"


def test_a_server_whose_answers_cannot_be_read_is_of_another_version() -> None:
    target = fleet(A, B)
    up(target, A)
    target.connected(B, 0.0)
    for count in range(3):
        assert target.servers[B].state is State.PROBING, count
        assert target.unread(B, "no CRC", 1.0) == []
    assert target.servers[B].state is State.SHUNNED
    assert str(target.servers[B].misfit) == "version: no CRC"
    for _ in range(9):
        target.unread(A, "a bit fell over", 1.0)
    assert target.up == [A], "of one that has said who it is they are accidents"


def test_members_that_are_away_are_awaited_for_a_while() -> None:
    target = fleet(A, B, member_grace_s=30.0)
    up(target, A)
    assert target.awaited(10.0, since_s=10.0) == [B]
    assert target.awaited(29.0, since_s=0.0) == [B]
    assert target.awaited(31.0, since_s=10.0) == [], "it has been away for longer than that"
    target.connected(B, 50.0)
    assert target.awaited(60.0, since_s=20.0) == [], "one that comes and goes is waited for once"
    assert target.awaited(60.0, since_s=55.0) == [B]
    target.shun(B, Misfit("version", "old"), 60.0)
    assert target.awaited(60.0, since_s=60.0) == []


EVENTS = ("connect", "disconnect", "ready", "starting", "draining", "foreign", "send", "serve", "fail", "busy", "odd")


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.sampled_from([A, B])), max_size=60))
def test_requests_go_only_where_they_are_taken_and_what_is_kept_is_what_a_search_finds(
    events: list[tuple[str, str]],
) -> None:
    target = fleet(identity=RunIdentity(fingerprint="f1", dataset="d1"))
    open_: dict[int, str] = {}
    for number, (event, url) in enumerate(events):
        now_s, server = float(number), target.servers[url]
        mine = [attempt for attempt, of in open_.items() if of == url]
        before, lost = server.state, []
        if event == "connect":
            lost = target.connected(url, now_s)
        elif event == "disconnect":
            lost = target.disconnected(url, now_s)
        elif event in ("ready", "starting", "draining"):
            lost = target.described(url, who(1, state=event), now_s)
        elif event == "foreign":
            lost = target.described(url, who(1, dataset="d2"), now_s)
        elif event == "odd":
            lost = target.shun(url, Misfit("version", "odd"), now_s)
        elif event == "send" and server.has_room:
            target.sent(url, attempt=number, clip_bytes=1)
            open_[number] = url
        elif event in ("serve", "fail", "busy") and mine:
            del open_[mine[0]]
            if event == "serve":
                target.served(url, mine[0], now_s)
            elif event == "busy":
                target.busy(url, attempt=mine[0], now_s=now_s)
            else:
                lost = target.failed(url, attempt=mine[0], now_s=now_s)
        for attempt in lost:
            del open_[attempt]
        assert Counter(open_.values()) == {u: len(s.attempts) for u, s in target.servers.items() if s.attempts}
        assert target.inflight_bytes == len(open_)
        assert sorted(target.up) == sorted(u for u, s in target.servers.items() if s.state in TAKES_REQUESTS)
        assert target.has_room(1e9) == any(s.has_room for s in target.servers.values())
        assert set(target.probes(1e9)) == {u for u, s in target.servers.items() if s.state in ASKED_WHO}
        for other in target.servers.values():
            other.probe_at_s = 0.0
            assert other.state in (State.UP, State.TRIAL, State.DRAINING) or not other.attempts
        if before not in TAKES_REQUESTS and server.state is State.UP:
            assert event == "ready"
        if before is State.TRIAL and server.state is State.UP:
            assert event == "serve"


def test_a_state_is_left_only_as_the_table_says() -> None:
    for state in State:
        for event in Event:
            server = Server(url=A, since_s=0.0, state=state)
            server.move(event, 5.0)
            assert server.state is NEXT.get((state, event), state)
            assert server.since_s == (0.0 if server.state is state else 5.0)
    assert {state for (state, _), _ in NEXT.items()} == set(State), "there is a way out of each"


def test_it_stops_after_so_many_failures_in_a_row_and_not_before() -> None:
    server = Server(url=A, since_s=0.0, state=State.UP)
    assert [server.failed(failures_to_stop=3) for _ in range(2)] == [False, False]
    server.served()
    assert [server.failed(failures_to_stop=3) for _ in range(3)] == [False, False, True]
    server.move(Event.FAILING, 1.0)
    assert not server.failed(failures_to_stop=1), "it is stopped already"
    server.move(Event.RECOVERING, 2.0)
    assert server.state is State.TRIAL
    assert server.failed(failures_to_stop=3), "on trial one is enough"


def test_probes_become_rarer_with_each_stop_up_to_a_bound() -> None:
    server, waits_s = Server(url=A, since_s=0.0, state=State.UP), []
    for _ in range(8):
        server.failed(failures_to_stop=1)
        server.move(Event.FAILING, 0.0)
        waits_s.append(server.probe_every_s(1.0))
        server.move(Event.RECOVERING, 0.0)
    assert waits_s == [1, 2, 4, 8, 16, 30, 30, 30]
    server.served()
    assert server.probe_every_s(1.0) == 1


@pytest.mark.parametrize("state", list(State))
def test_a_new_connection_begins_anew(state: State) -> None:
    target = fleet(A, failures_to_down=1)
    up(target, A)
    server = target.servers[A]
    server.state, server.failures, server.stops = state, 2, 4
    target.connected(A, 9.0)
    assert (server.state, server.failures, server.stops) == (State.PROBING, 0, 0)
    target.described(A, who(1), 9.0)
    assert server.state is State.UP


def test_the_less_loaded_of_two_is_picked_by_worker() -> None:
    target = fleet()
    up(target, A, workers=8)
    up(target, B, workers=2)
    target.sent(A, attempt=1, clip_bytes=30)
    target.sent(B, attempt=2, clip_bytes=10)
    assert target.pick(0.0) == A
    assert target.pick(0.0, Asked(avoid=[A])) == B
    assert target.pick(0.0, Asked(avoid=[A, B])) is None


@given(st.integers(2, 9))
def test_the_same_history_gives_the_same_picks(servers: int) -> None:
    def picks() -> list[str]:
        urls = [f"tcp://s{i}:1" for i in range(servers)]
        target = fleet(*urls)
        for url in urls:
            up(target, url)
        chosen = []
        for attempt in range(4 * servers):
            picked = target.pick(0.0)
            assert picked is not None
            target.sent(picked, attempt=attempt, clip_bytes=1)
            chosen.append(picked)
        return chosen

    assert picks() == picks()
    assert len(set(picks())) > 1


def test_a_lost_connection_hands_back_what_was_asked() -> None:
    target = fleet(A)
    up(target, A)
    target.sent(A, attempt=1, clip_bytes=10)
    assert target.disconnected(A, 1.0) == [1]
    assert target.inflight_bytes == 0
    up(target, A, now_s=2.0)
    target.sent(A, attempt=2, clip_bytes=10)
    assert target.connected(A, 3.0) == [2], "a new connection says that the old one is gone"


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="failures_to_down is 0"):
        FleetLimits(failures_to_down=0)
    with pytest.raises(BadInput, match="probe_s is 0"):
        FleetLimits(probe_s=0)


def test_a_server_that_joins_is_used_once_it_said_who_it_is() -> None:
    target = fleet(A)
    target.joined(B, 0.0)
    assert target.pick(0.0) is None
    up(target, B)
    assert target.pick(0.0) == B
    target.joined(B, 1.0)
    assert target.pick(1.0) == B, "joining twice changes nothing"


def test_what_a_server_that_left_held_is_asked_of_others() -> None:
    target = fleet(A)
    up(target, A)
    target.sent(A, attempt=1, clip_bytes=10)
    assert target.left(A, 1.0) == [1]
    assert A not in target.servers
    assert (target.inflight_bytes, target.pick(1.0), target.left(A, 1.0)) == (0, None, [])
    assert target.up == []
    assert (target.connected(A, 2.0), target.disconnected(A, 2.0)) == ([], []), "its connection may outlive it"
    target.described(A, who(9, fingerprint="foreign"), 2.0)
    target.leaving(A, attempt=None, now_s=2.0)


@pytest.mark.parametrize("end", ["answers", "fails", "disconnects", "connects anew", "rejoins"])
def test_a_draining_server_that_left_keeps_what_it_has_until_it_ends(end: str) -> None:
    target = fleet(A, failures_to_down=1)
    up(target, A)
    target.sent(A, attempt=1, clip_bytes=10)
    target.leaving(A, attempt=None, now_s=1.0)
    assert target.left(A, 1.0) == []
    assert target.probes(9.0) == []
    assert A in target.servers
    if end == "answers":
        target.served(A, 1, 2.0)
    elif end == "fails":
        assert target.failed(A, attempt=1, now_s=2.0) == []
    elif end == "disconnects":
        assert target.disconnected(A, 2.0) == [1]
    elif end == "connects anew":
        assert target.connected(A, 2.0) == [1]
    else:
        target.joined(A, 2.0)
        assert target.probes(9.0) == [A]
    assert (A in target.servers) == (end == "rejoins")
