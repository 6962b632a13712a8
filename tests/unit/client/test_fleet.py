"""Servers appear, are busy, fail, leave and come back; who gets a request follows from that and the seed alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefeed.errors import BadInput
from tests.unit.client.clips import who
from trainer_client.fleet.fleet import Fleet, FleetLimits, State

A, B = "tcp://a:1", "tcp://b:1"


def fleet(*urls: str, fingerprint: str | None = None, **limits: object) -> Fleet:
    return Fleet(urls or (A, B), limits=FleetLimits(**limits), seed=3, fingerprint=fingerprint, now_s=0.0)  # type: ignore[arg-type]


def up(target: Fleet, url: str, *, now_s: float = 0.0, workers: int = 4) -> None:
    target.connected(url, now_s)
    assert url in target.probes(now_s)
    target.described(url, who(1, workers=workers), now_s)


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
    assert target.fingerprint == "f1"
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
    target.served(A, 2)
    target.failed(A, attempt=3, now_s=1.0)
    assert target.servers[A].state is State.UP


def test_the_window_grows_with_clips_and_halves_once_per_rest() -> None:
    target = fleet(A, busy_rest_s=0.1)
    up(target, A, workers=4)
    assert target.servers[A].window_clips == 8
    for attempt in range(1, 9):
        target.sent(A, attempt=attempt, clip_bytes=1)
    assert not target.has_room(0.0)
    for attempt in range(1, 5):
        target.served(A, attempt)
    assert target.servers[A].window_clips == 12
    target.busy(A, attempt=5, now_s=1.0)
    target.busy(A, attempt=6, now_s=1.0)
    assert target.servers[A].window_clips == 6
    assert not target.has_room(1.05)
    assert target.has_room(1.1)
    assert target.wake_s(1.05) == pytest.approx(1.1)
    target.busy(A, attempt=7, now_s=1.1)
    assert not target.has_room(1.25), "still busy: it rests twice as long"
    target.served(A, 8)
    assert target.servers[A].window_clips == pytest.approx(3 + 1 / 3)


def test_a_foreign_decoder_is_refused_unless_allowed() -> None:
    for target, first in ((fleet(), A), (fleet(fingerprint="f1"), None)):
        if first:
            up(target, first)
        target.connected(B, 0.0)
        with pytest.raises(BadInput, match=r"tcp://b:1 decodes with 'f2', this run with 'f1'.*allow_mixed_decoders"):
            target.described(B, who(2, fingerprint="f2"), 0.0)
    target = fleet(allow_mixed_decoders=True)
    up(target, A)
    target.connected(B, 0.0)
    target.described(B, who(2, fingerprint="f2"), 0.0)
    assert target.up == [A, B]


def test_the_less_loaded_of_two_is_picked_by_worker() -> None:
    target = fleet()
    up(target, A, workers=8)
    up(target, B, workers=2)
    target.sent(A, attempt=1, clip_bytes=30)
    target.sent(B, attempt=2, clip_bytes=10)
    assert target.pick(0.0) == A
    assert target.pick(0.0, avoid=[A]) == B
    assert target.pick(0.0, avoid=[A, B]) is None


@given(st.integers(2, 9))
def test_the_same_history_gives_the_same_picks(servers: int) -> None:
    def picks() -> list[str | None]:
        urls = [f"tcp://s{i}:1" for i in range(servers)]
        target = fleet(*urls)
        for url in urls:
            up(target, url)
        chosen = []
        for attempt in range(4 * servers):
            url = target.pick(0.0)
            assert url is not None
            target.sent(url, attempt=attempt, clip_bytes=1)
            chosen.append(url)
        return chosen

    assert picks() == picks()
    assert len(set(picks())) > 1


def test_time_without_any_server_is_summed() -> None:
    target = fleet()
    assert target.absent_s(3.0) == 3.0
    up(target, A, now_s=4.0)
    up(target, B, now_s=5.0)
    target.disconnected(A, 6.0)
    assert target.absent_s(7.0) == 4.0
    target.disconnected(B, 8.0)
    assert target.absent_s(10.0) == 6.0


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
    assert target.absent_s(3.0) == 2.0
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
        target.served(A, 1)
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
