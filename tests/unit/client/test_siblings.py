"""A box names its other fronts: which of those addresses a client uses, and that it is led nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.test_members import Feed
from trainer_client.fleet.addresses import host_of, scheme_of, sibling_of
from trainer_client.fleet.membership import Candidate, Discovered, Membership
from trainer_client.fleet.protection import Protection
from trainer_client.fleet.siblings import SiblingLimits, Siblings

A, B, C = "tcp://box:5555", "tcp://box:5556", "tcp://box:5557"
LIMITS = SiblingLimits(try_s=10.0, rest_s=60.0, a_host=3)


@pytest.mark.parametrize(
    ("reached", "bound", "wanted"),
    [
        ("tcp://box:5555", "tcp://0.0.0.0:5556", "tcp://box:5556"),
        ("tcp://box:5555", "tcp://evil.example:05556", "tcp://box:5556"),
        ("tcp://[fe80::1]:5555", "tcp://[::]:5556", "tcp://[fe80::1]:5556"),
        ("grpcs://name@10.0.0.5:6000", "grpcs://*:6001", "grpcs://name@10.0.0.5:6001"),
        ("grpcs://10.0.0.5:6000", "grpc://*:6001", "grpcs://10.0.0.5:6001"),
        ("shm://@box-1", "shm://@box-2", "shm://@box-2"),
        ("shm:///run/here/1.sock", "shm:///srv/2.sock", "shm:///run/here/2.sock"),
        ("tcp://box:5555", "tcp://0.0.0.0:5555", None),
        ("tcp://box:5555", "grpc://0.0.0.0:5556", None),
        ("tcp://box:5555", "tcps://0.0.0.0:5556", None),
        ("tcp://box:5555", "shm://@box-2", None),
        ("tcp://box:5555", "tcp://0.0.0.0:0", None),
        ("tcp://box:5555", "tcp://0.0.0.0:65536", None),
        ("tcp://box:5555", "tcp://0.0.0.0:٥", None),
        ("tcp://box:5555", "tcp://", None),
        ("tcp://box:5555", "", None),
        ("shm://@box-1", "shm://@box 2", None),
        ("shm://@box-1", "shm:///srv/2.sock", None),
        ("shm:///run/1.sock", "shm://@box-2", None),
        ("shm:///run/1.sock", "shm:///srv/..", None),
        ("shm:///run/1.sock", "shm:///srv/", None),
    ],
)
def test_a_sibling_is_at_the_host_where_the_front_was_reached(reached: str, bound: str, wanted: str | None) -> None:
    assert sibling_of(reached, bound) == wanted


@given(
    st.sampled_from(("tcp://box:1", "grpc://[::1]:1", "grpcs://n@box:1", "shm://@a", "shm:///run/a")),
    st.one_of(st.text(max_size=30), st.from_regex(r"(tcp|grpcs?|shm)://[@/.\w:*\[\]]{0,20}")),
)
def test_no_name_leads_to_another_host_or_transport(reached: str, bound: str) -> None:
    url = sibling_of(reached, bound)
    assert url is None or (host_of(url), scheme_of(url)) == (host_of(reached), scheme_of(reached))


class Box:
    """Siblings as one client sees them, by a clock of its own."""

    def __init__(self, limits: SiblingLimits = LIMITS) -> None:
        self.siblings, self.now_s = Siblings(limits), 100.0

    def at(self, after_s: float, named: Mapping[str, tuple[str, ...]], *connected: str, waiting: str = "") -> list[str]:
        self.now_s += after_s
        return list(
            self.siblings.decide(named, given={A}, connected=connected, waiting=(waiting,), now_s=self.now_s),
        )


def test_a_named_front_belongs_and_stays_while_it_is_there_itself() -> None:
    box = Box()
    assert box.at(0, {A: (B,)}, A) == [B]
    assert box.at(1, {A: (B,)}, A, B) == [B]
    assert box.at(99, {}, B) == [B], "the front that named it is gone"
    assert box.at(1, {B: (A, C)}, B) == [B, A, C], "it names others of its box"
    assert box.at(1, {}) == []


def test_one_that_was_there_is_waited_for_while_it_is_named() -> None:
    box = Box()
    box.at(0, {A: (B,)}, A, B)
    assert box.at(999, {A: (B,)}, A) == [B]
    assert box.siblings.tidings() == []


def test_one_that_is_never_there_is_given_up_said_once_and_tried_now_and_then() -> None:
    box = Box()
    assert box.at(0, {A: (B,)}, A) == [B]
    assert box.at(9, {A: (B,)}, A) == [B]
    assert box.at(2, {A: (B,)}, A) == []
    (line,) = box.siblings.tidings()
    assert line.startswith(f"server {B}, a front that its box names, could not be reached for 10 s")
    assert box.at(60, {A: (B,)}, A) == [B]
    assert box.at(11, {A: (B,)}, A) == []
    assert box.siblings.tidings() == []


def test_time_in_which_there_was_no_room_to_try_does_not_count() -> None:
    box = Box()
    box.at(0, {A: (B,)}, A, waiting=B)
    assert box.at(50, {A: (B,)}, A, waiting=B) == [B]
    assert box.at(9, {A: (B,)}, A) == [B]


def test_a_box_may_name_so_many_and_those_that_went_make_room() -> None:
    box = Box()
    many = tuple(f"tcp://box:{port}" for port in range(6000, 6100))
    assert len(box.at(0, {A: many}, A)) == 3
    assert len(box.at(1, {A: many}, A)) == 3
    (line,) = box.siblings.tidings()
    assert "servers at tcp://box name more than 3 fronts" in line
    box.at(0, {}, A)
    assert box.at(0, {A: (B, C)}, A) == [B, C]


def test_who_is_neither_given_nor_known_names_nobody() -> None:
    assert Box().at(0, {"tcp://other:1": (B,)}, A, "tcp://other:1") == []


FRONTS = (A, B, C, "tcp://other:5555", "tcp://other:5556")


@given(
    st.lists(
        st.tuples(
            st.floats(0, 40), st.sets(st.sampled_from(FRONTS)), st.sets(st.sampled_from((A, FRONTS[3])), max_size=2)
        ),
        max_size=20,
    )
)
def test_whatever_comes_and_goes_only_siblings_of_given_boxes_belong(
    turns: list[tuple[float, set[str], set[str]]],
) -> None:
    siblings, now_s, before = Siblings(LIMITS), 0.0, set[str]()
    for after_s, there, sources in turns:
        now_s += after_s
        connected = there & (sources | before)
        named = {
            front: tuple(url for url in FRONTS if url != front and host_of(url) == host_of(front))
            for front in connected
        }
        belong = siblings.decide(named, given=sources, connected=connected, waiting=(), now_s=now_s)
        hosts = {host_of(url) for url in sources}
        assert all(host_of(url) in hosts for url in belong)
        assert len(belong) == len(set(belong))
        for url in FRONTS:
            namers = [front for front in connected & sources if url in named[front]]
            if host_of(url) in hosts and url in connected and (namers or url in before):
                assert url in belong, "who is there stays"
        if not connected:
            assert not belong
        before = set(belong)


def saw(source: str, *urls: str) -> Discovered:
    return Discovered(source=source, seen=tuple(Candidate(name=url, urls=(url,)) for url in urls))


def test_one_that_is_given_and_named_is_one_member() -> None:
    membership = Membership()
    membership.saw(saw("s", A, B), 0.0)
    assert membership.decide(0.0, connected=(), siblings={}).joined == (A, B)
    change = membership.decide(1.0, connected=(A, B), siblings={A: (B, C), B: (A, C)})
    assert (change.joined, change.left) == ((C,), ())
    assert membership.members == (A, B, C)


def test_a_box_that_its_source_forgot_leaves_with_all_its_fronts() -> None:
    membership = Membership()
    membership.saw(saw("dns+tcp://box:5555", A), 0.0)
    membership.decide(0.0, connected=(), siblings={})
    naming = {A: (B,), B: (A,)}
    assert membership.decide(1.0, connected=(A,), siblings=naming).joined == (B,)
    membership.saw(saw("dns+tcp://box:5555"), 2.0)
    assert membership.decide(31.0, connected=(A, B), siblings=naming).left == ()
    assert set(membership.decide(33.0, connected=(A, B), siblings=naming).left) == {A, B}


def test_a_registry_has_an_entry_for_each_front() -> None:
    membership = Membership()
    membership.saw(saw("registry:///nfs/servers", A), 0.0)
    membership.decide(0.0, connected=(), siblings={})
    assert membership.decide(1.0, connected=(A,), siblings={A: (B,)}).joined == ()


def test_members_connect_to_what_a_front_says_of_its_box_while_it_fits() -> None:
    feed = Feed()
    feed.saw(A)
    feed.up(A, siblings=("tcp://0.0.0.0:5556", "tcp://elsewhere:5555", "grpc://0.0.0.0:5557"))
    feed.tend()
    assert feed.wire.now == [A, B]
    feed.up(A, siblings=("tcp://0.0.0.0:5556",), dataset="another")
    feed.up(A, siblings=("tcp://0.0.0.0:5556",), dataset="a third")
    feed.tend()
    assert feed.fleet.servers[A].misfit is not None
    assert feed.wire.now == [A], "a server of another data set names nobody"


def test_members_forget_what_an_earlier_connection_said() -> None:
    feed = Feed()
    feed.saw(A)
    feed.up(A, siblings=("tcp://0.0.0.0:5556",))
    feed.tend()
    feed.dispatch.disconnected(A, now_s=feed.now_s)
    feed.tend()
    assert feed.wire.now == [A]


def test_a_front_that_credentials_do_not_protect_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed()
    feed.discovery.protection = Protection(tls=True)
    feed.saw(A)
    feed.up(A, siblings=("tcp://0.0.0.0:5556",))
    feed.tend()
    feed.tend()
    assert feed.wire.now == [A]
    assert feed.ledger.shunned["unprotected"] == 1
    assert (
        len([r for r in caplog.records if "other fronts of its box: server tcp://box:5555 is refused" in r.message])
        == 1
    )
