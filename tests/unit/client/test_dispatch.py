"""What the dispatch asks of whom, case by case, on a clock of its own."""

from __future__ import annotations

import re

import pytest

from framefeed.errors import BadInput, CorruptMedia, Permanent, StorageFault
from framefeed.wire import CancelCall, DecodeCall, DescribeCall, Load, Reply
from tests.unit.client.clips import CLIP_BYTES, clip, error, request, who
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet, FleetLimits
from trainer_client.fleet.messages import Failed, Got, Send
from trainer_client.fleet.server import State
from trainer_client.fleet.timeout_estimator import TimeoutLimits
from trainer_client.fleet.watchdog import Stalled
from trainer_client.measures.stats import Ledger

A, B, C = "tcp://a:1", "tcp://b:1", "tcp://c:1"


QUICK = TimeoutLimits(enough=10, attempt_min_s=0.1)


class Desk:
    """A dispatch, its clock and its counts."""

    def __init__(
        self, *urls: str, limits: DispatchLimits | None = None, failures_to_down: int = 3, member_grace_s: float = 30.0
    ) -> None:
        self.now_s = 100.0
        self.ledger = Ledger()
        fleet_limits = FleetLimits(failures_to_down=failures_to_down, settle_s=0.0, member_grace_s=member_grace_s)
        self.fleet = Fleet(urls, limits=fleet_limits, seed=1, now_s=self.now_s, ledger=self.ledger)
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

    def asked(self, after_s: float = 0.0) -> list[Send]:
        """The clips that are asked for, of all that is sent."""
        return [send for send in self.tick(after_s) if isinstance(send.call, DecodeCall)]

    def one(self, after_s: float = 0.0) -> Send:
        (send,) = self.asked(after_s)
        return send

    def ended(self) -> Got | Failed:
        (end,) = self.dispatch.finished()
        return end


def other(url: str) -> str:
    return {A: B, B: A}[url]


def test_a_clip_is_asked_for_and_comes() -> None:
    desk = Desk(A)
    (send,) = desk.want(7)
    assert isinstance(send.call, DecodeCall)
    assert (send.url, send.call.request, desk.dispatch.deadline_s) == (A, request(7), 10.0)
    assert send.call.deadline_s == 21.0, "a pause of the client's own, of 10 s, lets nobody decode in vain"
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
    assert desk.one().url == A


def test_a_silent_server_costs_its_deadline_and_its_late_reply_is_dropped() -> None:
    desk = Desk(A, B)
    (send,) = desk.want(0)
    assert desk.tick(9.9) == []
    again = desk.one(0.1)
    assert again.url == other(send.url)
    assert desk.asked(1.0) == [], "its last word is awaited no longer"
    assert desk.dispatch.in_flight == 1
    desk.reply(again.url, clip(again.call.attempt))
    (got,) = desk.dispatch.finished()
    assert isinstance(got, Got)
    assert got.life.parts[0] == ("no_server", 110.0), "a server that never answered is no server"
    desk.reply(send.url, clip(send.call.attempt))
    assert desk.dispatch.finished() == []
    assert desk.ledger.dropped_replies == {"late": 1}
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
    again = desk.asked(10.0)
    assert {s.url for s in again} == {B}
    for send in again:
        desk.reply(B, clip(send.call.attempt))
    later = desk.tick(1.0)
    assert desk.fleet.servers[A].state is State.PROBING
    assert [s.url for s in later if isinstance(s.call, DescribeCall)] == [A]
    assert desk.ledger.outcomes[A, "deadline_exceeded"] == sum(send.url == A for send in sends)


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


def test_the_second_opinion_is_waited_for_when_the_other_is_away() -> None:
    desk = Desk(A, B)
    (first,) = desk.want(0)
    desk.reply(first.url, error(first.call.attempt, "corrupt_media"))
    away = other(first.url)
    desk.dispatch.disconnected(away, now_s=desk.now_s)
    for _ in range(10):
        assert desk.tick(2.0) == [], "whoever called it bad is not asked again"
    assert desk.dispatch.finished() == []
    desk.up(away)
    again = desk.one(5.0)
    assert again.url == away
    desk.reply(away, clip(again.call.attempt))
    assert isinstance(desk.ended(), Got)


@pytest.mark.parametrize("ends", ["grace", "left"])
def test_the_second_opinion_is_not_waited_for_for_ever(ends: str) -> None:
    desk = Desk(A, B)
    (first,) = desk.want(0)
    desk.reply(first.url, error(first.call.attempt, "corrupt_media"))
    away = other(first.url)
    desk.dispatch.disconnected(away, now_s=desk.now_s)
    assert desk.tick(24.9) == []
    assert desk.dispatch.finished() == []
    if ends == "left":
        desk.dispatch.left(away, now_s=desk.now_s)
    assert desk.tick(10.0) == []
    end = desk.ended()
    assert isinstance(end, Failed)
    assert isinstance(end.error, CorruptMedia)


def test_a_server_that_has_not_got_a_clip_says_nothing_against_it_and_is_asked_who_it_is() -> None:
    desk = Desk(A, B, C)
    (send,), tried = desk.want(0), set[str]()
    while len(tried) < 2:
        tried.add(send.url)
        desk.reply(send.url, error(send.call.attempt, "not_here"))
        send = desk.one()
        assert desk.dispatch.finished() == []
    assert send.url not in tried
    desk.reply(send.url, clip(send.call.attempt))
    assert isinstance(desk.ended(), Got)
    assert {s.url for s in desk.tick(1.0) if isinstance(s.call, DescribeCall)} == tried


def test_a_clip_that_nobody_has_is_an_error_once_those_that_are_away_had_their_time() -> None:
    desk = Desk(A, B, C, member_grace_s=20.0)
    desk.dispatch.disconnected(C, now_s=desk.now_s)
    sends, began_s = desk.want(0), desk.now_s
    while not (ends := desk.dispatch.finished()):
        for send in sends:
            if isinstance(send.call, DecodeCall):
                desk.reply(send.url, error(send.call.attempt, "not_here"))
            elif isinstance(send.call, DescribeCall) and send.url != C:
                desk.reply(send.url, who(send.call.attempt))
        sends = desk.tick(0.5)
    (end,) = ends
    assert isinstance(end, Failed)
    assert type(end.error) is Permanent
    assert re.fullmatch(
        r"clip of video0 \[0, 1\) s: no server has it; the last one said: .*not_here it is.*", str(end.error)
    )
    assert 20 <= desk.now_s - began_s <= 26


@pytest.mark.parametrize("code", ["resource_exhausted", "wrong_version", "not_here", "busy", "deadline_exceeded"])
def test_what_is_a_server_s_own_trouble_never_speaks_against_a_clip(code: str) -> None:
    """However often, of however many servers; resource errors rest the server as being busy does."""
    desk = Desk(A, B, limits=DispatchLimits(stall_s=1e9), member_grace_s=1e9)
    desk.dispatch.joined(C, now_s=desk.now_s)  # and one that never comes up
    sends = desk.want(0)
    for _ in range(300):
        for send in sends:
            if isinstance(send.call, DecodeCall):
                desk.reply(send.url, error(send.call.attempt, code))
            elif isinstance(send.call, DescribeCall) and send.url != C:
                desk.reply(send.url, who(send.call.attempt))
        assert desk.dispatch.finished() == []
        sends = desk.tick(0.5)
    assert desk.ledger.requested >= (8 if code == "wrong_version" else 30)
    assert desk.dispatch.wanted == [0]


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


def test_before_anything_is_wanted_nobody_is_said_to_have_stood_still() -> None:
    desk = Desk()
    desk.tick(1000.0)
    assert desk.dispatch.situation(desk.now_s) == "no clip is asked for; servers: none yet"


def test_a_foreign_decoder_is_not_used_and_ends_the_run_only_when_no_other_is_left() -> None:
    desk = Desk(A, B)
    held = [send for send in desk.want(*range(6)) if send.url == B]
    desk.reply(B, who(50, fingerprint="f2"))
    assert held
    assert {send.url for send in desk.asked()} <= {A}
    assert desk.dispatch.expects(B, held[0].call.attempt) is None, "its clips could be others"
    (said,) = desk.fleet.tidings()
    assert said.startswith(f"server {B} is not used (decoder: it decodes with 'f2', this run with 'f1'")
    assert f"{B} shunned, 0 in flight, decoder: it decodes with 'f2'" in desk.dispatch.situation(desk.now_s)
    desk.reply(A, who(51, fingerprint="f2"))
    assert desk.asked(29.9) == []
    assert "the run ends in 30 s unless one comes that does" in desk.fleet.tidings()[-1]
    with pytest.raises(BadInput, match=rf"no server fits this run: {A} \(decoder: .*\); {B} \(decoder: "):
        desk.tick(0.1)


@pytest.mark.parametrize("says", ["to a call", "to a question", "in its own version"])
def test_a_server_of_another_version_is_not_used(says: str) -> None:
    desk = Desk(A, B)
    (send,) = desk.want(0)
    url = send.url
    if says == "to a call":
        desk.reply(url, error(send.call.attempt, "wrong_version"))
    elif says == "to a question":
        desk.reply(url, error(999, "wrong_version"))
    else:
        desk.dispatch.foreign(url, "version is 1, wanted 2", now_s=desk.now_s)
    assert desk.one().url == other(url)
    assert desk.fleet.servers[url].state is State.SHUNNED
    assert desk.ledger.shunned == {"version": 1}


def test_only_awaits_while_all_that_is_wanted_is_asked_for() -> None:
    desk = Desk(A, limits=DispatchLimits(inflight_bytes=CLIP_BYTES))
    assert not desk.dispatch.only_awaits, "nothing is wanted"
    (first,) = desk.want(0)
    assert desk.dispatch.only_awaits
    assert desk.want(1) == [], "there is no credit"
    assert not desk.dispatch.only_awaits, "an answer makes room for another clip"
    desk.reply(A, clip(first.call.attempt))
    desk.one()
    assert desk.dispatch.only_awaits


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


def hedging_desk(*urls: str, share: float = 1.0, limits: DispatchLimits | None = None, **more: float) -> Desk:
    """Its servers have answered ten clips in 0.5 s each, so a clip is hedged after that. `more` are DispatchLimits."""
    chosen = limits or DispatchLimits(timeouts=QUICK, hedge_share=share, **more)  # type: ignore[arg-type]
    desk = Desk(*urls, limits=chosen)
    for tickets in (range(5), range(5, 10)):
        sends = desk.want(*tickets)
        desk.now_s += 0.5
        for send in sends:
            desk.reply(send.url, clip(send.call.attempt))
    assert len(desk.dispatch.finished()) == 10
    return desk


def test_deadlines_follow_what_answers_took() -> None:
    desk = hedging_desk(A)
    desk.want(10)
    assert desk.dispatch.deadline_s == pytest.approx(1.5)
    assert desk.tick(1.4) == []
    (probe,) = desk.tick(0.2)
    assert isinstance(probe.call, DescribeCall)
    desk.tick(0.9)
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
        assert desk.tick() == [Send(url=lost.url, call=CancelCall(attempt=lost.call.attempt))]
        assert desk.dispatch.expects(lost.url, lost.call.attempt) is None, "its pixels go nowhere"
        assert desk.fleet.inflight_bytes == CLIP_BYTES, "but may be on their way"
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
    assert desk.fleet.servers[first.url].failures == 1
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
    desk.dispatch.disconnected(first.url, now_s=desk.now_s)
    second = desk.one()
    hedge = desk.one()
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


def storage_fails(desk: Desk, bad: int, *, for_s: float, meanwhile: str) -> list[Send]:
    """A clip's storage fails for so long. Meanwhile others come, fail as well (an outage), or nobody wants any."""
    sends, ticket, until_s = desk.want(bad), 100, desk.now_s + for_s
    while desk.now_s < until_s and bad in desk.dispatch.wanted:
        for send in sends:
            assert isinstance(send.call, DecodeCall)
            mine = send.call.request == request(bad)
            if mine or meanwhile == "outage":
                desk.reply(send.url, error(send.call.attempt, "storage_fault"))
            else:
                desk.reply(send.url, clip(send.call.attempt, seed=1000))
        desk.now_s += 0.5
        sends = desk.tick() if meanwhile == "nothing" else desk.want(ticket := ticket + 1)
    return sends


@pytest.mark.parametrize("meanwhile", ["others", "outage", "nothing"])
def test_storage_speaks_against_a_clip_only_if_it_gave_others_meanwhile(meanwhile: str) -> None:
    desk = Desk(A, limits=DispatchLimits(storage_s=20, stall_ends=False))
    began_s = desk.now_s
    storage_fails(desk, 0, for_s=60.0, meanwhile=meanwhile)
    ends = [end for end in desk.dispatch.finished() if isinstance(end, Failed)]
    if meanwhile == "others":
        (failed,) = ends
        assert isinstance(failed.error, StorageFault)
        assert "video0 [0, 1) s: storage_fault it is" in str(failed.error)
        assert 20 <= desk.now_s - began_s <= 30
    else:
        assert ends == []
        assert 0 in desk.dispatch.wanted


def test_the_first_reads_after_an_outage_poison_nothing() -> None:
    """Some clips are back while the last failures are still under way."""
    desk = Desk(A, limits=DispatchLimits(storage_s=20, stall_ends=False))
    sends = storage_fails(desk, 0, for_s=60.0, meanwhile="outage")
    while not (mine := [s for s in sends if isinstance(s.call, DecodeCall) and s.call.request == request(0)]):
        for send in sends:
            desk.reply(A, error(send.call.attempt, "storage_fault"))
        sends = desk.tick(0.5)
    for send in sends:
        if send not in mine:
            desk.reply(A, error(send.call.attempt, "storage_fault"))
    for ticket in (900, 901):
        for send in desk.want(ticket):
            desk.reply(A, clip(send.call.attempt, seed=1000))
    desk.reply(A, error(mine[0].call.attempt, "storage_fault"))  # was asked for before those came
    assert not [end for end in desk.dispatch.finished() if isinstance(end, Failed)]


# Slow is not lost.


class Slow:
    """Servers on whose clocks clips take `take_s`; they answer questions and cancels at once."""

    def __init__(self, desk: Desk, take_s: float) -> None:
        self.desk, self.take_s = desk, take_s
        self.decodes = 0
        self._work: list[tuple[float, Send]] = []

    def run(self, sends: list[Send], *, until_s: float) -> list[tuple[float, Got | Failed]]:
        """What ended, and when, until then."""
        ends = []
        while self.desk.now_s < until_s:
            for send in sends:
                self._hear(send)
            for due in [work for work in self._work if work[0] <= self.desk.now_s]:
                self._work.remove(due)
                self.desk.reply(due[1].url, clip(due[1].call.attempt))
            ends += [(self.desk.now_s, end) for end in self.desk.dispatch.finished()]
            sends = self.desk.tick(0.05)
        return ends

    def _hear(self, send: Send) -> None:
        if isinstance(send.call, DescribeCall):
            self.desk.reply(send.url, who(send.call.attempt))
        elif isinstance(send.call, DecodeCall):
            self.decodes += 1
            self._work.append((self.desk.now_s + self.take_s, send))
        else:
            work = [w for w in self._work if (w[1].url, w[1].call.attempt) == (send.url, send.call.attempt)]
            for found in work:
                self._work.remove(found)
                self.desk.reply(send.url, error(send.call.attempt, "cancelled"))


@pytest.mark.parametrize("urls", [(A,), (A, B), (A, B, C)])
@pytest.mark.parametrize("take_s", [3.0, 8.0])
def test_a_slow_clip_is_served_in_its_time_and_costs_few_decodes(urls: tuple[str, ...], take_s: float) -> None:
    """The fleet's clips take 0.5 s, a deadline is 2 s, and this one takes much longer wherever it is asked for."""
    limits = DispatchLimits(timeouts=TimeoutLimits(enough=10, attempt_min_s=2.0))
    desk = hedging_desk(*urls, limits=limits)
    began_s, slow = desk.now_s, Slow(desk, take_s)
    ((at_s, end),) = slow.run(desk.want(10), until_s=began_s + 20)
    assert isinstance(end, Got)
    assert at_s - began_s <= take_s + 0.1
    assert slow.decodes <= min(len(urls), 2)
    assert not any(desk.ledger.outcomes[url, "deadline_exceeded"] for url in urls)
    assert all(server.state is State.UP for server in desk.fleet.servers.values())
    assert desk.dispatch.in_flight == 0


def test_a_clip_that_takes_longer_than_any_may_is_cancelled_and_asked_for_again() -> None:
    desk = hedging_desk(A, limits=DispatchLimits(timeouts=TimeoutLimits(enough=10, attempt_s=5.0)))
    slow = Slow(desk, 6.0)
    assert slow.run(desk.want(10), until_s=desk.now_s + 16.0) == []
    assert slow.decodes == 4
    assert desk.ledger.outcomes[A, "deadline_exceeded"] == 3
    assert desk.fleet.servers[A].state is State.UP, "it answers, so it is no worse than slow"
    assert desk.dispatch.in_flight == 1


def test_a_cancelled_request_is_in_flight_until_the_last_word_and_a_late_clip_is_used() -> None:
    desk = Desk(A, B)
    (first,) = desk.want(0)
    desk.now_s += 9
    desk.reply(first.url, error(999, "busy"))  # it lives
    sends = desk.tick(1.0)
    assert Send(url=first.url, call=CancelCall(attempt=first.call.attempt)) in sends
    assert desk.dispatch.in_flight == 2
    assert desk.fleet.inflight_bytes == 2 * CLIP_BYTES
    assert desk.dispatch.expects(first.url, first.call.attempt) == 0
    desk.reply(first.url, clip(first.call.attempt))  # it crossed the cancel
    assert isinstance(desk.ended(), Got)
    (second,) = [send for send in sends if isinstance(send.call, DecodeCall)]
    assert desk.tick() == [Send(url=second.url, call=CancelCall(attempt=second.call.attempt))]
    desk.reply(second.url, error(second.call.attempt, "cancelled"))
    assert desk.dispatch.in_flight == 0
    assert desk.ledger.outcomes == {(first.url, "ok"): 1, (second.url, "superseded"): 1}


def test_a_late_clip_is_used_also_while_its_ticket_waits() -> None:
    desk = Desk(A, limits=DispatchLimits(timeouts=TimeoutLimits(attempt_s=5.0)))
    (first,) = desk.want(0)
    desk.tick(5.0)
    assert desk.dispatch.idle == [0]
    desk.reply(A, clip(first.call.attempt))
    assert isinstance(desk.ended(), Got)
    assert desk.dispatch.idle == desk.dispatch.wanted == []
    assert desk.asked(9.0) == []


# The client's own pauses.


@pytest.mark.parametrize("read_first", [True, False])
def test_a_pause_of_the_client_s_own_is_held_against_nobody(read_first: bool) -> None:
    """All that was in flight was answered in time, and is read after 4 s in which nobody listened."""
    desk = hedging_desk(A, B)
    sends = desk.want(*range(10, 22))
    before = (desk.ledger.requested, desk.dispatch.deadline_s)
    desk.now_s += 4.0
    if not read_first:  # what came is still on its way to the thread
        assert desk.dispatch.tick(desk.now_s, own_silence_s=4.0) == []
    for send in sends:
        desk.reply(send.url, clip(send.call.attempt))
    if read_first:
        assert desk.dispatch.tick(desk.now_s, own_silence_s=4.0) == []
    assert len(desk.dispatch.finished()) == 12
    assert (desk.ledger.requested, desk.dispatch.deadline_s) == before
    assert desk.ledger.hedged == desk.ledger.overdue == 0
    assert desk.ledger.retries == desk.ledger.dropped_replies == {}
    assert [server.failures for server in desk.fleet.servers.values()] == [0, 0]


def test_after_a_pause_deadlines_go_on_where_they_were() -> None:
    desk = hedging_desk(A, B)
    (first,) = desk.want(10)
    desk.tick(0.25)
    desk.now_s += 4.0
    assert desk.dispatch.tick(desk.now_s, own_silence_s=4.0) == []
    assert desk.asked(0.2) == []
    assert desk.one(0.1).url == other(first.url), "the p95 of 0.5 s, and not a moment later"
    assert desk.ledger.overdue == 0
    desk.tick(1.0)
    assert desk.ledger.overdue == 1


def test_a_pause_is_no_standstill() -> None:
    desk = Desk(A, limits=DispatchLimits(stall_s=15, timeouts=TimeoutLimits(attempt_s=100)))
    desk.want(0)
    desk.tick(10.0)
    desk.now_s += 300.0
    desk.dispatch.tick(desk.now_s, own_silence_s=300.0)
    desk.tick(4.9)
    with pytest.raises(Stalled):
        desk.tick(0.1)


# Hedges only where they help.


def test_only_clips_of_the_oldest_batch_are_hedged() -> None:
    desk = hedging_desk(A, B, head_clips=4)
    sends = desk.want(*range(10, 18))
    hedged = [s.call.request for s in desk.asked(0.6) if isinstance(s.call, DecodeCall)]
    assert hedged == [request(ticket) for ticket in range(10, 14)]
    for send in sends[:6]:
        desk.reply(send.url, clip(send.call.attempt))
    hedged = [s.call.request for s in desk.asked(0.6) if isinstance(s.call, DecodeCall)]
    assert hedged == [request(16), request(17)], "now they are the oldest"


def test_a_fleet_that_is_the_bottleneck_is_not_given_more_to_do() -> None:
    desk = hedging_desk(A, B)
    for url in (A, B):
        desk.fleet.heard(url, Load(queued=1), desk.now_s)
    (first,) = desk.want(10)
    assert desk.asked(0.6) == []
    desk.fleet.heard(other(first.url), Load(queued=0), desk.now_s)
    assert desk.one(0.6).url == other(first.url)


def test_what_a_server_grants_is_what_it_is_asked_for() -> None:
    desk = Desk(A)
    sends = desk.want(*range(20))
    assert len(sends) == 8, "two a worker, until it says"
    desk.reply(A, clip(sends[0].call.attempt, load=Load(credits=12)))
    assert len(desk.tick()) == 5
    assert desk.dispatch.in_flight == 12


def test_calls_say_whose_they_are() -> None:
    desk = Desk(A, limits=DispatchLimits(run="r1", work_class="eval"))
    desk.reply(A, who(90, dataset="d1"))
    (send,) = desk.want(0)
    assert isinstance(send.call, DecodeCall)
    assert (send.call.run, send.call.work_class, send.call.dataset) == ("r1", "eval", "d1")


def held_by(desk: Desk, *tickets: int) -> str:
    """What the last of these that is missing waits for."""
    life = desk.dispatch.holds.life_so_far(tickets, desk.now_s)
    assert life is not None
    return life.parts[-1][0]


def test_who_holds_back_a_clip_is_known_while_it_waits() -> None:
    desk = Desk(A, limits=DispatchLimits(inflight_bytes=2 * CLIP_BYTES))
    desk.want(0, 1, 2)
    desk.now_s += 1
    assert held_by(desk, 0, 1, 2) == "client_limit", "four threads, and two clips in flight"
    desk.dispatch.disconnected(A, now_s=desk.now_s)
    desk.tick(1.0)
    desk.now_s += 1
    assert held_by(desk, 0, 1, 2) == "no_server"


def test_a_clip_that_waits_for_room_at_servers_waits_in_their_queue() -> None:
    desk = Desk(A)
    desk.want(*range(9))
    desk.now_s += 1
    assert held_by(desk, *range(9)) == "server_queue", "eight for four threads are the most"
    assert not desk.dispatch.holds.has_spare


def test_servers_that_have_fallen_silent_are_none() -> None:
    desk = Desk(A, limits=DispatchLimits(timeouts=TimeoutLimits(attempt_s=2.0), stall_s=1e3))
    desk.want(*range(9))
    desk.tick(1.5)
    desk.now_s += 0.1
    assert held_by(desk, *range(9)) == "server_queue"
    desk.tick(0.5)
    desk.now_s += 0.1
    assert held_by(desk, *range(9)) == "no_server"


def test_servers_have_spare_threads_until_as_many_again_are_asked_for() -> None:
    desk = Desk(A)
    desk.want(0, 1)
    assert desk.dispatch.holds.has_spare
    desk.want(2)
    assert not desk.dispatch.holds.has_spare


def test_the_time_without_any_server_is_its_own_cause_of_a_clip_s_life() -> None:
    desk = Desk()
    desk.dispatch.joined(A, now_s=desk.now_s)
    desk.want(0)
    desk.now_s += 3
    desk.up(A)
    (send,) = desk.tick()
    desk.now_s += 1
    desk.reply(A, clip(send.call.attempt))
    (got,) = desk.dispatch.finished()
    assert isinstance(got, Got)
    assert got.life.parts[0] == ("no_server", 103.0)


def test_a_server_whose_storage_fails_clip_after_clip_rests_and_is_told_once() -> None:
    """It would answer quickest of all, and get the most of what it cannot read."""
    desk = Desk(A, B)
    asked: dict[str, int] = {A: 0, B: 0}
    for ticket in range(400):
        sends = desk.want(ticket)
        while sends:
            for send in sends:
                assert isinstance(send.call, DecodeCall)
                asked[send.url] += 1
                attempt = send.call.attempt
                desk.reply(send.url, error(attempt, "storage_fault") if send.url == A else clip(attempt))
            sends = desk.asked(0.001)
    assert len(desk.dispatch.finished()) == 400
    assert asked[B] == 400
    assert asked[A] <= 15, "it is asked as often as it answers"
    (line,) = desk.fleet.tidings()
    assert line == f"server {A} is asked little: clip after clip its storage fails (storage_fault it is)"
    desk.now_s += 5.0
    ticket = 1000
    while desk.fleet.servers[A].storage_faults:
        for send in desk.want(ticket):
            assert isinstance(send.call, DecodeCall)
            desk.reply(send.url, clip(send.call.attempt))
        ticket += 1
    assert desk.fleet.tidings() == [f"server {A} reads its storage again"]
