"""Several listeners as one, over fakes whose descriptors are pipes."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator

import pytest

from decode_server.service.listeners.listener import Delivery, Listeners, ReaderGone


class FakeListener:
    """Its descriptor is readable while `shown` messages lie in it; others are `pending`, as ZeroMQ's may be."""

    def __init__(self, name: str) -> None:
        self.url = f"fake://{name}"
        self.messages: deque[tuple[bytes, list[bytes]]] = deque()
        self.sent: list[tuple[bytes, bytes]] = []
        self.closed_s: list[float] = []
        self.cuts: list[bytes] = []
        self.flushes = 0
        self.pending = False
        self._read_end, self._write_end = os.pipe()

    @property
    def clients(self) -> int | None:
        return None if self.url.endswith("b") else 3

    @property
    def clients_limit(self) -> int | None:
        return None if self.url.endswith("b") else 10

    def put(self, client: bytes, frame: bytes, *, shown: bool = True) -> None:
        self.messages.append((client, [frame]))
        if shown:
            os.write(self._write_end, b"x")
        else:
            self.pending = True

    def fileno(self) -> int:
        return self._read_end

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        if self.messages:
            return self.messages.popleft()
        self.pending = False
        os.set_blocking(self._read_end, False)
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_end, 100)
        return None

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> Delivery | None:
        if client == b"gone":
            raise ReaderGone
        self.sent.append((client, header))
        return None

    def flush(self) -> None:
        self.flushes += 1

    def principal(self, client: bytes) -> str:
        return f"{client.decode()} of {self.url}"

    def cut(self, client: bytes) -> None:
        self.cuts.append(client)

    def close(self, *, linger_s: float) -> None:
        self.closed_s.append(linger_s)

    def drop(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)


@pytest.fixture
def three() -> Iterator[list[FakeListener]]:
    fakes = [FakeListener(name) for name in "abc"]
    yield fakes
    for fake in fakes:
        fake.drop()


def receive_all(listeners: Listeners) -> list[tuple[bytes, list[bytes]]]:
    found = []
    while (message := listeners.receive()) is not None:
        found.append(message)
    return found


def test_the_same_client_of_two_listeners_is_two_clients(three: list[FakeListener]) -> None:
    listeners = Listeners(three)
    three[0].put(b"me", b"one")
    three[2].put(b"me", b"two")
    listeners.wait(10)
    (one, frames_one), (two, frames_two) = receive_all(listeners)
    assert one != two
    assert (frames_one, frames_two) == ([b"one"], [b"two"])
    listeners.send(two, b"to two", None)
    listeners.send(one, b"to one", None)
    assert [fake.sent for fake in three] == [[(b"me", b"to one")], [], [(b"me", b"to two")]]


def test_a_talkative_listener_does_not_keep_the_others_waiting(three: list[FakeListener]) -> None:
    listeners = Listeners(three)
    for number in range(50):
        three[0].put(b"loud", str(number).encode())
    three[1].put(b"quiet", b"now")
    listeners.wait(10)
    assert [listeners.receive() for _ in range(3)][1] == (b"\1quiet", [b"now"])
    assert len(receive_all(listeners)) == 48


def test_what_a_descriptor_does_not_show_ends_a_wait(three: list[FakeListener]) -> None:
    listeners = Listeners(three)
    three[1].put(b"me", b"hidden", shown=False)
    listeners.wait(3600)
    assert receive_all(listeners) == [(b"\1me", [b"hidden"])]


def test_what_was_left_in_one_turn_is_found_in_the_next(three: list[FakeListener]) -> None:
    listeners = Listeners(three)
    for number in range(5):
        three[0].put(b"me", str(number).encode())
    listeners.wait(3600)
    assert listeners.receive() is not None
    listeners.wait(3600)
    assert len(receive_all(listeners)) == 4
    listeners.wait(0)
    assert listeners.receive() is None


def test_a_watched_descriptor_ends_a_wait(three: list[FakeListener]) -> None:
    listeners = Listeners(three)
    read_end, write_end = os.pipe()
    listeners.watch(read_end)
    os.write(write_end, b"x")
    listeners.wait(3600)
    assert listeners.receive() is None
    assert [fake.flushes for fake in three] == [1, 1, 1], "what was gathered is handed on before it waits"
    os.close(read_end)
    os.close(write_end)


def test_errors_and_the_end_are_passed_on(three: list[FakeListener]) -> None:
    listeners = Listeners(three)
    with pytest.raises(ReaderGone):
        listeners.send(b"\1gone", b"x", None)
    assert listeners.principal(b"\1idle") == "idle of fake://b"
    listeners.cut(b"\1idle")
    assert [fake.cuts for fake in three] == [[], [b"idle"], []]
    listeners.close(linger_s=2.0)
    assert [fake.closed_s for fake in three] == [[2.0]] * 3


def test_messages_gather_until_a_watched_descriptor_ends_it_or_its_time_is_up(three: list[FakeListener]) -> None:
    listeners = Listeners(three)
    read_end, write_end = os.pipe()
    listeners.watch(read_end)
    three[0].put(b"me", b"one")
    began_s = time.monotonic()
    listeners.wait(3600, gather_s=0.05)
    assert time.monotonic() >= began_s + 0.05, "a message alone ended it"
    assert receive_all(listeners) == [(b"\0me", [b"one"])]
    three[0].put(b"me", b"two")
    os.write(write_end, b"x")
    listeners.wait(3600, gather_s=3600)
    assert receive_all(listeners) == [(b"\0me", [b"two"])]
    os.read(read_end, 1)
    listeners.wait(0, gather_s=3600)
    assert receive_all(listeners) == []
    os.close(read_end)
    os.close(write_end)
