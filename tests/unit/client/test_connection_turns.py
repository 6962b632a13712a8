"""Connection turns, over a fake clock and a box with room for so many connections."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer_client.fleet.connection_turns import ConnectionTurns


class Box:
    """A machine with `room` connections, some servers, and those of them that live."""

    def __init__(self, room: int, *servers: str, living: str = "") -> None:
        self.turns, self.room = ConnectionTurns(), room
        self.servers, self.living = list(servers), set(living)
        self.now_s = 0.0
        self.open: set[str] = set()
        self.ever: set[str] = set()

    def turn(self, after_s: float = 0.5) -> None:
        self.now_s += after_s
        change = self.turns.decide(self.servers, there=self.open & self.living, now_s=self.now_s)
        assert len(set(change.joined)) == len(change.joined)
        assert not set(change.joined) & set(change.left)
        self.open.difference_update(change.left)
        for url in change.joined:
            assert url not in self.open
            if len(self.open) == self.room:
                self.turns.refused(self.now_s)
                break
            self.open.add(url)
            self.ever.add(url)
            self.turns.made(url, self.now_s)
        assert set(self.turns.connected) == self.open
        assert set(self.turns.waiting) == set(self.servers) - self.open


def test_where_there_is_room_all_are_connected_at_once_and_stay() -> None:
    box = Box(9, *"abcd")
    box.turn()
    assert box.open == set("abcd")
    box.turn(1000.0)
    assert box.open == set("abcd"), "whether they are there or not"
    box.servers.remove("b")
    box.turn()
    assert box.open == set("acd")


def test_those_that_are_there_keep_their_connection_and_the_others_take_turns() -> None:
    box = Box(2, *"abcdefgh", living="g")
    seen = []
    while "g" not in box.open:
        box.turn()
        seen.append("".join(sorted(box.open)))
    assert seen == ["ab", "cd", "ef", "gh"]
    for _ in range(20):
        box.turn()
        assert "g" in box.open
    assert box.ever == set("abcdefgh")


def test_turns_in_vain_grow_and_a_new_server_has_its_turn_before_them() -> None:
    box = Box(1, *"ab")
    held = []
    for _ in range(100):
        box.turn()
        held.append(next(iter(box.open)))
    changes = [at for at in range(1, 100) if held[at] != held[at - 1]]
    gaps = [later - at for at, later in itertools.pairwise(changes)]
    assert gaps == sorted(gaps)
    assert 2 * gaps[0] < gaps[-1] <= 16
    box.servers.append("c")
    while "c" not in box.open:
        assert box.now_s < 100
        box.turn()
    assert held[-1] != "c"


def test_a_server_that_goes_gives_its_place_up() -> None:
    box = Box(1, *"ab", living="a")
    for _ in range(50):
        box.turn()
    assert box.open == {"a"}
    box.living = {"b"}
    for _ in range(50):
        box.turn()
    assert box.open == {"b"}


def test_how_long_there_was_no_room_at_all() -> None:
    box = Box(0, "a")
    box.turn()
    assert box.turns.none_for_s(box.now_s) == 0
    box.turn(7.0)
    assert box.turns.none_for_s(box.now_s) == 7
    box.room = 1
    box.turn(10.0)
    assert (box.open, box.turns.none_for_s(box.now_s)) == ({"a"}, 0)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(6, 30), st.data())
def test_every_living_server_is_found_however_little_room_there_is(room: int, count: int, data: st.DataObject) -> None:
    servers = [chr(ord("a") + number) for number in range(count)]
    living = data.draw(st.sets(st.sampled_from(servers), min_size=1, max_size=room))
    box = Box(room, *servers, living="".join(living))
    spare = room - len(living)
    for _ in range(2000):
        box.turn()
    assert living <= box.open
    assert not spare or box.ever == set(servers)
