"""The glue between what is seen of servers and the fleet: connections are had to its servers and to no others."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from framefeed.errors import BadInput, ResourceExhausted
from tests.unit.client.clips import error, request, who
from trainer_client.fleet.discovery import Discovery, Members
from trainer_client.fleet.dispatch import Dispatch
from trainer_client.fleet.dispatch_limits import DispatchLimits
from trainer_client.fleet.fleet import Fleet, FleetLimits
from trainer_client.fleet.membership import Candidate, Discovered
from trainer_client.measures.stats import Ledger

A, B = "tcp://a:1", "tcp://b:1"


class Wire:
    """Connections that are only noted."""

    def __init__(self, *, refused: str = "") -> None:
        self.now: list[str] = []
        self.ever = 0
        self.room = 99
        self._refused = refused

    def trouble(self, url: str) -> str:
        assert url in self.now
        return f"{url} has its reasons"

    def connect(self, url: str) -> None:
        if url == self._refused:
            raise BadInput(f"server address {url!r}: a token would travel in the clear")
        assert url not in self.now
        if len(self.now) == self.room:
            raise ResourceExhausted(f"server {url} cannot be connected to now: Too many open files")
        self.now.append(url)
        self.ever += 1

    def disconnect(self, url: str) -> None:
        self.now.remove(url)


class Feed:
    """Members, and all that they act upon."""

    def __init__(self, *, refused: str = "") -> None:
        self.now_s = 100.0
        self.wire = Wire(refused=refused)
        self.fleet = Fleet((), limits=FleetLimits(), seed=1, now_s=self.now_s)
        self.ledger = Ledger()
        self.dispatch = Dispatch(self.fleet, DispatchLimits(), ledger=self.ledger)
        self.discovery = Discovery((), every_s=1.0, on_report=lambda: None)
        self.members = Members(self.discovery, fleet=self.fleet, dispatch=self.dispatch, ledger=self.ledger)

    def saw(self, *urls: str) -> None:
        seen = tuple(Candidate(name=url, urls=(url,)) for url in urls)
        self.discovery._discovered.append(Discovered(source="s", seen=seen))
        self.tend()

    def tend(self, after_s: float = 1.0) -> None:
        self.now_s += after_s
        self.members.tend(self.wire, lock=threading.Lock(), now_s=self.now_s)

    def up(self, url: str, **said: Any) -> None:
        self.dispatch.connected(url, now_s=self.now_s)
        self.dispatch.replied(url, who(1, **said), pixel_bytes=0, now_s=self.now_s)


def test_who_joins_is_connected_and_who_leaves_is_let_go() -> None:
    feed = Feed()
    feed.saw(A, B)
    assert feed.wire.now == list(feed.fleet.servers) == [A, B]
    feed.saw(B)
    assert feed.wire.now == list(feed.fleet.servers) == [B]


def test_a_draining_server_that_left_is_let_go_when_it_has_answered_and_may_come_back() -> None:
    feed = Feed()
    feed.saw(A)
    feed.up(A)
    feed.dispatch.want(0, request(0), now_s=feed.now_s)
    (send,) = feed.dispatch.tick(feed.now_s)
    feed.dispatch.replied(A, error(999, "draining"), pixel_bytes=0, now_s=feed.now_s)
    feed.saw()
    feed.tend(31.0)
    assert feed.wire.now == [A], "it owes a clip"
    feed.dispatch.replied(A, error(send.call.attempt, "busy"), pixel_bytes=0, now_s=feed.now_s)
    feed.saw(A)
    assert feed.wire.now == [A]
    assert feed.wire.ever == 2, "on a new connection: the fleet knows of none"


def test_one_address_that_cannot_be_used_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed(refused=A)
    feed.saw(A, B)
    feed.tend()
    assert feed.wire.now == [B]
    assert len([record for record in caplog.records if "is not used" in record.getMessage()]) == 1
    feed.saw(B)
    feed.saw(B, A)
    assert len([record for record in caplog.records if "is not used" in record.getMessage()]) == 2


def test_when_no_address_can_be_used_that_is_the_error() -> None:
    with pytest.raises(BadInput, match="in the clear"):
        Feed(refused=A).saw(A)


def test_where_there_is_no_room_for_all_it_is_said_once_and_they_take_turns(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    feed.wire.room = 1
    feed.saw(A, B)
    had = [list(feed.wire.now)]
    for _ in range(20):
        feed.tend(0.6)
        had.append(list(feed.wire.now))
    assert list(feed.fleet.servers) == [A, B]
    assert [A] in had
    assert [B] in had
    assert "server tcp://b:1 cannot be connected to now: Too many open files" in str(feed.members)
    assert (
        len([record for record in caplog.records if "1 servers have a connection, 1 take turns" in record.message]) == 1
    )
    feed.wire.room = 2
    for _ in range(20):
        feed.tend()
    assert sorted(feed.wire.now) == [A, B]
    assert "Too many" not in str(feed.members)


def test_no_room_for_a_single_one_is_an_error_when_it_lasts() -> None:
    feed = Feed()
    feed.wire.room = 0
    feed.saw(A)
    feed.tend(9.0)
    with pytest.raises(ResourceExhausted, match="no server has been connected to for 10 s: server tcp://a:1"):
        feed.tend(2.0)


def test_nothing_is_done_without_news_or_time() -> None:
    feed = Feed()
    feed.saw(A)
    feed.fleet.servers.clear()
    feed.tend(0.4)
    assert feed.wire.now == [A]
    feed.tend(0.2)
    assert feed.wire.now == []
