"""Who is a member: what sources saw, leases by the reader's clock, connections as the better witness; a fake clock."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer_client.fleet.membership import Candidate, Change, Discovered, MemberLimits, Membership

REGISTRY = "registry:///run/servers"
LIMITS = MemberLimits(linger_s=30.0, try_s=5.0)


def leased(name: str, beat: int = 1, *urls: str) -> Candidate:
    return Candidate(name=name, urls=urls or (f"tcp://{name}:1",), beat=beat, lease_s=90.0)


def plain(name: str) -> Candidate:
    return Candidate(name=name, urls=(f"tcp://{name}:1",))


class Run:
    """A membership, its clock, and which of its members are connected."""

    def __init__(self) -> None:
        self.membership = Membership(LIMITS)
        self.now_s = 1000.0
        self.connected: set[str] = set()

    def saw(self, *candidates: Candidate, source: str = REGISTRY) -> Change:
        self.membership.saw(Discovered(source=source, seen=candidates), self.now_s)
        return self.decide()

    def missed(self) -> Change:
        self.membership.saw(Discovered(source=REGISTRY, seen=None, why="cannot be looked at (hung)"), self.now_s)
        return self.decide()

    def after(self, seconds: float) -> Change:
        self.now_s += seconds
        return self.decide()

    def decide(self) -> Change:
        return self.membership.decide(self.now_s, connected=self.connected)

    def connect(self, *urls: str) -> None:
        self.connected.update(urls)


NOTHING = Change(joined=(), left=())


def test_servers_join_and_leave_as_they_are_seen() -> None:
    run = Run()
    assert run.decide() == NOTHING
    assert run.saw(plain("a"), plain("b")) == Change(joined=("tcp://a:1", "tcp://b:1"), left=())
    assert run.saw(plain("b"), plain("a")) == NOTHING
    assert run.saw(plain("b"), plain("c")) == Change(joined=("tcp://c:1",), left=("tcp://a:1",))
    assert run.membership.members == ("tcp://b:1", "tcp://c:1")


def test_a_server_that_is_not_named_any_more_may_finish_while_it_is_connected() -> None:
    run = Run()
    run.saw(plain("a"))
    run.connect("tcp://a:1")
    assert run.saw() == NOTHING, "it may be draining"
    assert run.after(29.0) == NOTHING
    run.connected.clear()
    assert run.after(0.1) == Change(joined=(), left=("tcp://a:1",)), "it ended"


def test_a_connected_server_that_is_not_named_for_long_was_meant_to_leave() -> None:
    run = Run()
    run.saw(plain("a"))
    run.connect("tcp://a:1")
    run.saw()
    run.after(20.0)
    assert run.saw() == NOTHING, "a further look does not start the time anew"
    assert run.after(10.0) == Change(joined=(), left=("tcp://a:1",))


def test_a_server_that_is_named_again_in_time_never_left() -> None:
    run = Run()
    run.saw(plain("a"))
    run.connect("tcp://a:1")
    run.saw()
    run.after(20.0)
    assert run.saw(plain("a")) == NOTHING
    assert run.after(20.0) == NOTHING


def test_a_source_that_cannot_look_changes_nothing() -> None:
    run = Run()
    run.saw(leased("a"))
    run.now_s += 1000.0
    assert run.missed() == NOTHING
    assert "registry:///run/servers cannot be looked at (hung)" in str(run.membership)


def test_a_lease_runs_out_by_this_clock_when_nobody_renews_it() -> None:
    run = Run()
    run.saw(leased("a", 5), leased("b", 8))
    run.now_s += 60.0
    assert run.saw(leased("a", 6), leased("b", 8)) == NOTHING
    run.now_s += 60.0
    assert run.saw(leased("a", 7), leased("b", 8)) == Change(joined=(), left=("tcp://b:1",))
    assert run.saw(leased("a", 7), leased("b", 9)) == Change(joined=("tcp://b:1",), left=()), "it came back"


def test_a_connection_is_better_evidence_than_a_lease() -> None:
    run = Run()
    run.saw(leased("a", 5))
    run.connect("tcp://a:1")
    run.now_s += 1000.0
    assert run.saw(leased("a", 5)) == NOTHING
    run.connected.clear()
    assert run.decide() == Change(joined=(), left=("tcp://a:1",))


def test_a_connection_of_someone_else_at_its_address_does_not_bring_a_dead_one_back() -> None:
    run = Run()
    run.saw(leased("a", 5))
    run.now_s += 1000.0
    run.saw(leased("a", 5))
    run.connect("tcp://a:1")
    assert run.saw(leased("a", 5)) == NOTHING


def test_the_next_endpoint_is_tried_when_one_does_not_connect() -> None:
    run = Run()
    both = leased("a", 1, "shm://@a", "tcp://a:1")
    assert run.saw(both).joined == ("shm://@a",)
    assert run.after(4.9) == NOTHING
    assert run.after(0.1) == Change(joined=("tcp://a:1",), left=("shm://@a",))
    run.connect("tcp://a:1")
    assert run.after(500.0) == NOTHING, "it stays with what works"
    run.connected.clear()
    assert run.after(4.0) == NOTHING
    assert run.after(2.0).joined == ("shm://@a",), "and tries on when it does not"


def test_an_endpoint_that_waits_for_its_turn_is_not_passed_over() -> None:
    run = Run()
    run.saw(leased("a", 1, "shm://@a", "tcp://a:1"))
    run.now_s += 500.0
    assert run.membership.decide(run.now_s, connected=(), waiting=["shm://@a"]) == NOTHING
    assert run.after(4.9) == NOTHING, "its time begins when it is tried"
    assert run.after(0.1).joined == ("tcp://a:1",)


def test_one_server_that_two_sources_name_leaves_when_neither_does() -> None:
    run = Run()
    assert run.saw(plain("a"), source="list").joined == ("tcp://a:1",)
    assert run.saw(leased("a")) == NOTHING
    assert run.saw() == NOTHING
    assert run.saw(source="list") == Change(joined=(), left=("tcp://a:1",))


def test_a_server_that_moves_is_followed() -> None:
    run = Run()
    run.saw(leased("a", 1, "tcp://old:1"))
    run.connect("tcp://old:1")
    assert run.saw(leased("a", 2, "tcp://new:1")) == Change(joined=("tcp://new:1",), left=("tcp://old:1",))


def test_it_says_where_servers_come_from_and_what_is_wrong_there() -> None:
    run = Run()
    run.saw()
    run.saw(plain("a"), source="dns+tcp://decode:5555")
    assert str(run.membership) == "registry:///run/servers names no server; dns+tcp://decode:5555"


NAMES = st.sets(st.sampled_from("abcde"), max_size=5)
STEPS = st.tuples(
    st.sampled_from(["look", "miss", "wait", "connect"]), NAMES, st.integers(0, 3), st.floats(0, 60, allow_nan=False)
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_joining_and_leaving_alternate_and_only_what_was_seen_is_a_member(
    steps: list[tuple[str, set[str], int, float]],
) -> None:
    run, members, ever = Run(), set[str](), set[str]()
    for kind, names, beat, seconds in steps:
        if kind == "look":
            ever |= {f"tcp://{name}:1" for name in names}
            change = run.saw(*(leased(name, beat) for name in sorted(names)))
        elif kind == "miss":
            change = run.missed()
        elif kind == "wait":
            change = run.after(seconds)
        else:
            run.connected = {f"tcp://{name}:1" for name in names} & members
            change = run.decide()
        assert not members & set(change.joined)
        assert set(change.left) <= members
        assert not set(change.left) & set(change.joined)
        members = (members | set(change.joined)) - set(change.left)
        run.connected &= members
        assert members == set(run.membership.members)
        assert members <= ever


@given(st.lists(st.floats(0, 1e6, allow_nan=False), max_size=10))
def test_a_given_address_stays_for_ever(waits: list[float]) -> None:
    run = Run()
    run.saw(Candidate(name="a", urls=("tcp://a:1",), lease_s=math.inf))
    for wait_s in waits:
        assert run.after(wait_s) == NOTHING


@pytest.mark.parametrize("connected", [False, True])
def test_nothing_is_kept_of_servers_that_are_gone(connected: bool) -> None:
    run = Run()
    for number in range(100):
        run.saw(leased(f"server-{number}"))
        if connected:
            run.connect(f"tcp://server-{number}:1")
        run.after(40.0)
    run.saw()
    run.connected.clear()
    run.after(1.0)
    assert run.membership._known == {}
