"""What the dispatch asks of whom, case by case, on a clock of its own."""

from __future__ import annotations

import pytest

from framefeed.errors import BadInput, CorruptMedia, Permanent, StorageFault
from framefeed.wire import DecodeCall, DescribeCall, Reply
from tests.unit.client.clips import CLIP_BYTES, clip, error, request, who
from trainer_client.fleet.dispatch import Dispatch, Failed, Got, Send
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet, FleetLimits, State
from trainer_client.fleet.timeout_estimator import TimeoutLimits
from trainer_client.fleet.watchdog import Stalled
from trainer_client.measures.stats import Ledger

A, B, C = "tcp://a:1", "tcp://b:1", "tcp://c:1"


QUICK = TimeoutLimits(enough=10, attempt_min_s=0.1)


class Desk:
    """A dispatch, its clock and its counts."""

    def __init__(self, *urls: str, limits: DispatchLimits | None = None, failures_to_down: int = 3) -> None:
        self.now_s = 100.0
        self.ledger = Ledger()
        fleet_limits = FleetLimits(failures_to_down=failures_to_down)
        self.fleet = Fleet(urls, limits=fleet_limits, seed=1, fingerprint=None, now_s=self.now_s)
        self.dispatch = Dispatch(self.fleet, limits or DispatchLimits(), ledger=self.ledger)
        for url in urls:
            self.up(url)

    def up(self, url: str) -> None:
        self.dispatch.connected(url, now_s=self.now_s)
        for send in self.tick():
            if isinstance(send.call, DescribeCall):
                self.reply(send.url, who(send.call.attempt))

    def tick(self, after_s: float = 0.0) -> list[Send]:
        self.now_s += after_s
        return self.dispatch.tick(self.now_s)

    def want(self, *tickets: int) -> list[Send]:
        for ticket in tickets:
            self.dispatch.want(ticket, request(ticket), now_s=self.now_s)
        return self.tick()

    def reply(self, url: str, reply: Reply, *, pixel_bytes: int = CLIP_BYTES) -> None:
        self.dispatch.replied(url, reply, pixel_bytes=pixel_bytes, now_s=self.now_s)

    def one(self, after_s: float = 0.0) -> Send:
        (send,) = self.tick(after_s)
        return send


def other(url: str) -> str:
    return {A: B, B: A}[url]


def test_a_clip_is_asked_for_and_comes() -> None:
    desk = Desk(A)
    (send,) = desk.want(7)
    assert isinstance(send.call, DecodeCall)
    assert (send.url, send.call.request, send.call.deadline_s) == (A, request(7), 10.0)
    assert desk.dispatch.expects(A, send.call.attempt) == 7
    desk.now_s += 2
    desk.reply(A, clip(send.call.attempt))
    (got,) = desk.dispatch.finished()
    assert isinstance(got, Got)
    assert (got.ticket, got.life.wanted_s, got.life.received_s) == (7, 100.0, 102.0)
    assert desk.dispatch.finished() == []
    assert desk.dispatch.expects(A, send.call.attempt) is None
    assert desk.ledger.durations[A].sum_s == 2


def test_a_busy_server_hands_the_clip_to_another() -> None:
    desk = Desk(A, B)
    (send,) = desk.want(0)
    desk.reply(send.url, error(send.call.attempt, "busy"))
    assert desk.one().url == other(send.url)
    assert desk.ledger.retries == {"busy": 1}


def test_when_all_are_busy_it_waits_a_little() -> None:
    desk = Desk(A)
    (send,) = desk.want(0)
    desk.reply(A, error(send.call.attempt, "busy"))
    assert desk.tick() == []
    wake_s = desk.dispatch.wake_s(desk.now_s)
    assert wake_s is not None
    assert desk.one(wake_s - desk.now_s).url == A


def test_a_draining_server_is_left_alone_until_it_is_back() -> None:
    desk = Desk(A)
    (send,) = desk.want(0)
    desk.reply(A, error(send.call.attempt, "draining"))
    (probe,) = desk.tick(1.0)
    assert isinstance(probe.call, DescribeCall)
    desk.reply(A, who(probe.call.attempt))
    assert isinstance(desk.one().call, DecodeCall)


def test_a_silent_server_costs_its_deadline_and_its_late_reply_is_dropped() -> None:
    desk = Desk(A, B)
    (send,) = desk.want(0)
    assert desk.tick(10.5) == []
    again = desk.one(0.5)
    assert again.url == other(send.url)
    desk.reply(send.url, clip(send.call.attempt))
    assert desk.dispatch.finished() == []
    assert desk.ledger.dropped_replies == {"late": 1}
    desk.reply(again.url, clip(again.call.attempt))
    (got,) = desk.dispatch.finished()
    assert isinstance(got, Got)
    assert got.life.parts[0] == ("no_server", 111.0), "a server that never answered is no server"
    desk.reply(again.url, clip(again.call.attempt))
    desk.reply(again.url, clip(999))
    assert desk.ledger.dropped_replies == {"late": 1, "duplicate": 1, "unknown": 1}


def test_a_reply_by_another_server_than_the_asked_one_is_not_used() -> None:
    desk = Desk(A, B)
    (send,) = desk.want(0)
    assert desk.dispatch.expects(other(send.url), send.call.attempt) is None
    desk.reply(other(send.url), clip(send.call.attempt))
    assert desk.dispatch.finished() == []
    assert desk.dispatch.in_flight == 1


def test_a_dead_server_s_requests_go_elsewhere_at_once() -> None:
    desk = Desk(A, B)
    sends = desk.want(*range(6))
    mine = [s for s in sends if s.url == A]
    desk.dispatch.disconnected(A, now_s=desk.now_s)
    again = desk.tick()
    assert [s.url for s in again] == [B] * len(mine)
    alone = [s.call.alone for s in (*sends, *again) if isinstance(s.call, DecodeCall)]
    assert alone == [False] * len(sends) + [True] * len(mine), "one of those beside it may be what ended the server"
    assert desk.ledger.outcomes[A, "server_lost"] == len(mine) > 0


def test_a_server_that_fails_in_a_row_is_probed_and_the_rest_goes_elsewhere() -> None:
    desk = Desk(A, B, failures_to_down=2)
    sends = desk.want(*range(12))
    for send in sends:
        if send.url == B:
            desk.reply(B, clip(send.call.attempt))
    again = desk.tick(11.0)
    assert {s.url for s in again if isinstance(s.call, DecodeCall)} == {B}
    assert desk.fleet.servers[A].state is State.PROBING
    assert [s.url for s in again if isinstance(s.call, DescribeCall)] == [A]
    assert desk.ledger.outcomes[A, "deadline_exceeded"] == 2


def test_a_server_that_is_too_slow_is_not_thought_dead() -> None:
    desk = Desk(A, failures_to_down=1)
    (send,) = desk.want(0)
    desk.now_s += 10.1
    desk.reply(A, error(send.call.attempt, "deadline_exceeded"))
    assert desk.fleet.servers[A].state is State.UP
    assert isinstance(desk.one(1.0).call, DecodeCall)


def test_a_clip_that_every_server_fails_rests_longer_each_round() -> None:
    desk = Desk(A)
    (send,) = desk.want(0)
    rests = []
    for _ in range(9):
        desk.reply(A, error(send.call.attempt, "storage_fault"))
        wake_s = desk.dispatch.wake_s(desk.now_s)
        assert wake_s is not None
        rests.append(wake_s - desk.now_s)
        send = desk.one(rests[-1])
    assert rests == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5])


def test_a_permanent_error_is_believed_of_two() -> None:
    desk = Desk(A, B)
    (first,) = desk.want(3)
    desk.reply(first.url, error(first.call.attempt, "corrupt_media"))
    assert desk.dispatch.finished() == []
    second = desk.one()
    assert second.url == other(first.url)
    desk.reply(second.url, error(second.call.attempt, "corrupt_media"))
    (failed,) = desk.dispatch.finished()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, CorruptMedia)
    assert str(failed.error) == (f"clip of video3 [3, 4) s: corrupt_media it is (server s at {second.url})")


def test_a_permanent_error_of_the_only_server_is_believed() -> None:
    desk = Desk(A)
    (send,) = desk.want(3)
    desk.reply(A, error(send.call.attempt, "no_such_code"))
    (failed,) = desk.dispatch.finished()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Permanent)
    assert desk.ledger.outcomes == {(A, "permanent"): 1}, "a peer cannot make up labels"


def test_a_permanent_error_is_survived_when_another_server_has_the_clip() -> None:
    desk = Desk(A, B)
    (first,) = desk.want(0)
    desk.reply(first.url, error(first.call.attempt, "corrupt_media"))
    second = desk.one()
    desk.reply(second.url, error(second.call.attempt, "server_lost"))
    third = desk.one(1.0)
    assert third.url == second.url, "not where it was called permanent"
    desk.reply(third.url, clip(third.call.attempt))
    assert isinstance(desk.dispatch.finished()[0], Got)


def test_the_second_opinion_is_not_waited_for_when_the_other_is_gone() -> None:
    desk = Desk(A, B)
    (first,) = desk.want(0)
    desk.reply(first.url, error(first.call.attempt, "corrupt_media"))
    desk.dispatch.disconnected(other(first.url), now_s=desk.now_s)
    assert desk.tick() == []
    assert isinstance(desk.dispatch.finished()[0], Failed)


def test_a_clip_of_the_wrong_size_is_asked_for_again() -> None:
    desk = Desk(A, B)
    (send,) = desk.want(0)
    desk.reply(send.url, clip(send.call.attempt), pixel_bytes=CLIP_BYTES - 1)
    assert desk.one().url == other(send.url)
    desk.dispatch.malformed(A, 0, now_s=desk.now_s)
    assert desk.ledger.dropped_replies == {"malformed": 2}


def test_bytes_in_flight_are_bounded() -> None:
    desk = Desk(A, limits=DispatchLimits(inflight_bytes=2 * CLIP_BYTES + 1))
    sends = desk.want(*range(5))
    assert len(sends) == 2
    desk.reply(A, clip(sends[0].call.attempt))
    assert len(desk.tick()) == 1
    assert desk.fleet.inflight_bytes == 2 * CLIP_BYTES


def test_the_earliest_wanted_clip_goes_first_also_when_it_failed() -> None:
    desk = Desk(A, limits=DispatchLimits(inflight_bytes=CLIP_BYTES))
    (send,) = desk.want(0, 1, 2)
    desk.dispatch.unsent(send, now_s=desk.now_s)
    again = desk.one(0.1)
    assert isinstance(again.call, DecodeCall)
    assert again.call.request == request(0)


def test_without_servers_it_waits_and_then_says_who_waits_for_what() -> None:
    desk = Desk(limits=DispatchLimits(stall_s=30))
    assert desk.want(*range(8)) == []
    assert desk.tick(29.9) == []
    with pytest.raises(Stalled, match=r"no clip for 30\.0 s; .*8 clips wait, first: video0 \[0, 1\) s at no server"):
        desk.tick(0.1)


def test_a_stall_names_requests_servers_and_since_when() -> None:
    desk = Desk(A, B, limits=DispatchLimits(stall_s=15, timeouts=TimeoutLimits(attempt_s=100)))
    (send,) = desk.want(4)
    desk.dispatch.disconnected(other(send.url), now_s=desk.now_s + 5)
    with pytest.raises(Stalled) as stalled:
        desk.tick(15.0)
    said = str(stalled.value)
    assert f"video4 [4, 5) s at {send.url} since 15.0 s" in said
    assert f"{send.url} up, 1 in flight, since 15.0 s" in said
    assert f"{other(send.url)} offline, 0 in flight, since 10.0 s" in said


def test_idle_time_is_no_stall() -> None:
    desk = Desk(A, limits=DispatchLimits(stall_s=15))
    desk.tick(1000.0)
    (send,) = desk.want(0)
    desk.tick(9.0)
    desk.reply(A, clip(send.call.attempt))
    desk.tick(1000.0)


def test_a_foreign_decoder_ends_the_run() -> None:
    desk = Desk(A, B)
    with pytest.raises(BadInput, match="decodes with 'f2'"):
        desk.reply(B, who(50, fingerprint="f2"))


def test_closing_counts_what_was_in_flight() -> None:
    desk = Desk(A)
    desk.want(0, 1)
    desk.dispatch.close()
    assert desk.dispatch.in_flight == 0
    assert desk.ledger.outcomes == {(A, "closed"): 2}


@pytest.mark.parametrize("name", ["grace_s", "retry_rest_s", "retry_rest_max_s", "storage_s", "stall_s"])
def test_limits_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match=f"{name} is 0"):
        DispatchLimits(**{name: 0.0})  # type: ignore[arg-type]


def test_a_server_that_left_hands_its_clips_over_and_its_late_reply_is_dropped() -> None:
    desk = Desk(A, B)
    mine = [send for send in desk.want(*range(6)) if send.url == A]
    desk.dispatch.left(A, now_s=desk.now_s)
    assert [send.url for send in desk.tick()] == [B] * len(mine) != []
    desk.reply(A, clip(mine[0].call.attempt))
    desk.dispatch.malformed(A, 0, now_s=desk.now_s)
    assert desk.ledger.dropped_replies == {"late": 1, "malformed": 1}
    desk.dispatch.joined(A, now_s=desk.now_s)
    desk.up(A)
    assert set(desk.fleet.up) == {A, B}


def test_a_draining_server_that_left_may_still_answer() -> None:
    desk = Desk(A)
    (first, second) = desk.want(0, 1)
    desk.reply(A, error(first.call.attempt, "draining"))
    desk.dispatch.left(A, now_s=desk.now_s)
    assert desk.dispatch.expects(A, second.call.attempt) == 1
    desk.reply(A, clip(second.call.attempt))
    assert isinstance(desk.dispatch.finished()[0], Got)
    assert desk.fleet.servers == {}


def hedging_desk(*urls: str, share: float = 1.0, **limits: float) -> Desk:
    """Its servers have answered ten clips in 0.5 s each, so a clip is hedged after that."""
    desk = Desk(*urls, limits=DispatchLimits(timeouts=QUICK, hedge_share=share, **limits))  # type: ignore[arg-type]
    for tickets in (range(5), range(5, 10)):
        sends = desk.want(*tickets)
        desk.now_s += 0.5
        for send in sends:
            desk.reply(send.url, clip(send.call.attempt))
    assert len(desk.dispatch.finished()) == 10
    return desk


def test_deadlines_follow_what_answers_took() -> None:
    desk = hedging_desk(A)
    (send,) = desk.want(10)
    assert isinstance(send.call, DecodeCall)
    assert send.call.deadline_s == desk.dispatch.deadline_s == pytest.approx(1.5)
    desk.tick(1.5 + 0.9)
    assert desk.ledger.retries == {}
    desk.tick(0.2)
    assert desk.ledger.retries == {"deadline_exceeded": 1}


def test_a_slow_clip_is_asked_of_a_second_server_and_the_first_answer_wins() -> None:
    for winner in ("hedge", "first"):
        desk = hedging_desk(A, B)
        (first,) = desk.want(10)
        assert desk.tick(0.4) == []
        second = desk.one(0.2)
        assert isinstance(second.call, DecodeCall)
        assert (second.url, second.call.request) == (other(first.url), request(10))
        won, lost = (second, first) if winner == "hedge" else (first, second)
        assert desk.dispatch.expects(won.url, won.call.attempt) == desk.dispatch.expects(lost.url, lost.call.attempt)
        desk.reply(won.url, clip(won.call.attempt))
        (got,) = desk.dispatch.finished()
        assert isinstance(got, Got)
        assert desk.dispatch.expects(lost.url, lost.call.attempt) is None, "its pixels go nowhere"
        assert desk.fleet.inflight_bytes == CLIP_BYTES, "but they are on their way"
        desk.reply(lost.url, clip(lost.call.attempt))
        assert desk.dispatch.finished() == []
        assert (desk.dispatch.in_flight, desk.ledger.dropped_replies) == (0, {"late": 1})
        assert desk.ledger.outcomes[lost.url, "superseded"] == 1
        assert (desk.ledger.hedged, desk.ledger.hedges) == (1, {winner: 1})


@pytest.mark.parametrize("first_to_fail", [0, 1])
def test_a_hedged_clip_is_asked_for_again_only_when_both_failed(first_to_fail: int) -> None:
    desk = hedging_desk(A, B, C)
    (first,) = desk.want(10)
    both = [first, desk.one(0.6)]
    one, two = both[first_to_fail], both[1 - first_to_fail]
    desk.reply(one.url, error(one.call.attempt, "storage_fault"))
    assert [send for send in desk.tick() if isinstance(send.call, DecodeCall)] == []
    desk.dispatch.disconnected(two.url, now_s=desk.now_s)
    third = desk.one()
    assert {one.url, two.url, third.url} == {A, B, C}
    assert desk.ledger.hedges == {"neither": 1}


def test_the_loser_s_silence_still_speaks_against_its_server() -> None:
    desk = hedging_desk(A, B)
    (first,) = desk.want(10)
    second = desk.one(0.6)
    desk.reply(second.url, clip(second.call.attempt))
    desk.tick(3.0)
    assert desk.fleet.servers[first.url].breaker.failures == 1
    assert desk.ledger.retries == {}
    assert desk.dispatch.in_flight == 0


def test_hedges_keep_their_budget() -> None:
    desk = hedging_desk(A, B, share=0.1)
    desk.want(*range(10, 20))
    desk.tick(0.6)
    assert desk.ledger.hedged == 2, "20 requests and the hedges themselves allow two"
    assert hedging_desk(A, B, share=0.0).tick(0.6) == []


def test_a_clip_that_lost_an_attempt_is_hedged_whatever_the_budget() -> None:
    desk = hedging_desk(A, B, C, share=0.001)
    (first,) = desk.want(10)
    assert desk.tick(0.6) == [], "the budget allows none"
    (second,) = desk.tick(2.0)
    (hedge,) = desk.tick(0.0)
    assert len({first.url, second.url, hedge.url}) == 3
    assert desk.ledger.hedged == 1
    assert desk.tick(0.6) == [], "one for each lost attempt"
    desk.reply(hedge.url, clip(hedge.call.attempt))
    assert len(desk.dispatch.finished()) == 1


def test_a_hedge_waits_for_room_within_the_byte_bound() -> None:
    desk = hedging_desk(A, B, inflight_bytes=11 * CLIP_BYTES)
    sends = desk.want(*range(10, 21))
    assert len(sends) == 11
    assert desk.tick(0.6) == []
    for send in sends[:5]:
        desk.reply(send.url, clip(send.call.attempt))
    assert len(desk.tick(0.6)) == 5
    assert desk.fleet.inflight_bytes == 11 * CLIP_BYTES


def test_with_one_server_there_is_nobody_to_hedge_with() -> None:
    desk = hedging_desk(A)
    desk.want(10)
    assert desk.tick(1.0) == []
    assert desk.ledger.hedged == 0


def test_a_standstill_may_be_told_instead_of_ending_the_run() -> None:
    said: list[str] = []
    limits = DispatchLimits(stall_s=10, stall_ends=False, timeouts=TimeoutLimits(attempt_s=100))
    desk = Desk(A, limits=limits)
    desk.dispatch = Dispatch(desk.fleet, limits, ledger=desk.ledger, say=said.append)
    desk.want(4)
    for after_s, lines in ((9.0, 0), (1.0, 1), (9.0, 1), (1.0, 2)):
        desk.tick(after_s)
        assert len(said) == desk.ledger.stalls == lines
    assert said[1].startswith("no clip for 20.0 s; servers: tcp://a:1 up, 1 in flight")
    assert f"video4 [4, 5) s at {A} since 20.0 s" in said[1]


def test_so_many_servers_as_told_must_call_a_clip_bad() -> None:
    desk = Desk(A, B, C, limits=DispatchLimits(witnesses=3))
    (send,) = desk.want(0)
    for count in range(3):
        assert desk.dispatch.finished() == [], count
        desk.reply(send.url, error(send.call.attempt, "corrupt_media"))
        send = (desk.tick() or [send])[0]
    assert isinstance(desk.dispatch.finished()[0], Failed)


def test_a_clip_over_which_worker_after_worker_dies_is_bad_in_the_end() -> None:
    desk = Desk(A, B)
    (send,) = desk.want(0)
    for _ in range(4):
        desk.reply(send.url, error(send.call.attempt, "server_lost"))
        assert desk.dispatch.finished() == []
        send = desk.one(5.0)
    desk.reply(send.url, error(send.call.attempt, "server_lost"))
    (failed,) = desk.dispatch.finished()
    assert isinstance(failed, Failed)
    assert str(failed.error) == "clip of video0 [0, 1) s: 5 decode workers died over it"


@pytest.mark.parametrize(("name", "value"), [("hedge_share", 1.5), ("hedge_share", -0.1), ("witnesses", 0)])
def test_shares_and_counts_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(BadInput, match="wanted"):
        DispatchLimits(**{name: value})  # type: ignore[arg-type]


def test_a_clip_is_asked_of_two_servers_at_most() -> None:
    desk = hedging_desk(A, B, C)
    desk.want(10)
    assert len(desk.tick(0.6)) == 1
    assert desk.tick(0.6) == []


def test_storage_that_fails_for_too_long_makes_its_clip_bad() -> None:
    desk = Desk(A, limits=DispatchLimits(storage_s=20))
    (send,) = desk.want(0)
    began_s = desk.now_s
    while not (ends := desk.dispatch.finished()):
        desk.reply(A, error(send.call.attempt, "storage_fault"))
        again = desk.tick(5.0)
        send = again[0] if again else send
    (failed,) = ends
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, StorageFault)
    assert "video0 [0, 1) s: storage_fault it is" in str(failed.error)
    assert 20 <= desk.now_s - began_s <= 30
