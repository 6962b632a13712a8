"""Who looks for all processes of a node, and what the others see when it goes, hangs, forks or has too much to tell."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.integration.serving import wait_until
from trainer_client.fleet.node_share import NodeShare

Make = Callable[..., tuple[NodeShare, list[bytes]]]


@pytest.fixture
def make() -> Iterator[Make]:
    """A share of this test's name, and its own looks."""
    with ExitStack() as stack:
        name = os.urandom(8).hex()

        def share(
            text: str, *, every_s: float = 0.02, of: str = name, bytes_each: int = 1
        ) -> tuple[NodeShare, list[bytes]]:
            looks: list[bytes] = []

            def look() -> bytes:
                looks.append(f"{text}{len(looks)} ".encode() * bytes_each)
                return looks[-1]

            return stack.enter_context(NodeShare(of, look, every_s=every_s)), looks

        yield share


def rounds(share: NodeShare, told: list[bytes | None]) -> threading.Thread:
    def turn() -> None:
        while (what := share.next()) is not None:
            told.append(what)

    thread = threading.Thread(target=turn)
    thread.start()
    return thread


def test_the_second_is_told_what_the_first_sees_and_looks_when_that_one_ends(make: Make) -> None:
    (first, _), (second, own) = make("a"), make("b")
    assert first.next() == b"a0 "
    told: list[bytes | None] = []
    leading = rounds(first, told)
    heard = [second.next() for _ in range(4)]
    at = int((heard[0] or b"")[1:])
    assert heard == [b"a%d " % number for number in range(at, at + 4)]
    assert (first.leads, second.leads, own) == (True, False, [])
    first.end()
    leading.join(20)
    first.close()
    while (what := second.next()) is not None and what.startswith(b"a"):  # what was on its way
        pass
    assert what == b"b0 "
    assert second.leads


def test_names_and_pauses_that_differ_are_not_shared(make: Make) -> None:
    shares = [make("a"), make("b", of="another"), make("c", every_s=0.03)]
    assert [share.next() for share, _ in shares] == [b"a0 ", b"b0 ", b"c0 "]
    assert all(share.leads for share, _ in shares)


def test_what_is_too_much_to_tell_is_looked_at_by_each(make: Make) -> None:
    (first, _), (second, own) = make("a", bytes_each=1 << 20), make("b")
    first.next()
    leading = rounds(first, [])
    assert second.next() == b"b0 "
    assert len(own) == 1
    first.end()
    leading.join(20)


def test_end_is_heard_while_waiting_in_either_role(make: Make) -> None:
    (first, _), (second, _) = make("a", every_s=600.0), make("b", every_s=600.0)
    told: list[bytes | None] = []
    assert first.next() == b"a0 "
    threads = [rounds(first, told), rounds(second, told)]
    wait_until("the second was told", lambda: told == [b"a0 "])
    for share, thread in zip((second, first), reversed(threads), strict=True):
        share.end()
        thread.join(20)
        assert not thread.is_alive()
    assert first.next() is None


def test_a_forked_child_does_not_keep_the_name(make: Make) -> None:
    (first, _), (second, _) = make("a"), make("b")
    first.next()
    assert first.leads
    ours, childs = socket.socketpair()
    child = os.fork()
    if not child:
        childs.send(b"x")
        childs.recv(1)
        os._exit(0)
    try:
        assert ours.recv(1), "it runs"
        first.close()
        assert second.next() == b"b0 "
        assert second.leads
    finally:
        ours.send(b"x")
        os.waitpid(child, 0)
        ours.close()
        childs.close()


def test_a_name_that_cannot_be_had_or_joined_is_no_hindrance(make: Make) -> None:
    share, looks = make("a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as squatter:
        squatter.bind(share._address)
        assert [share.next(), share.next()] == looks == [b"a0 ", b"a1 "]
        assert not share.leads
    assert share.next() == b"a2 "
    assert share.leads
