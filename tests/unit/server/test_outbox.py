"""The outbox over a fake transport with slow, gone and quick readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from decode_server.service.buffer_pool import BufferPool
from decode_server.service.listeners.listener import ReaderFull, ReaderGone
from decode_server.service.outbox import MAX_UNREAD, MAX_UNREAD_BYTES, Outbox, Outgoing, Pixels
from decode_server.service.range_allocator import ALIGN_BYTES

PAGES = 16
LEASE_S = 10.0


class QueuedReply:
    done = False


class FakeTransport:
    """Sends to readers that are neither full nor gone; queued replies are done when a test says so."""

    def __init__(self) -> None:
        self.full: set[bytes] = set()
        self.gone: set[bytes] = set()
        self.sent: list[tuple[bytes, bytes]] = []
        self.queued_replies: list[QueuedReply] = []
        self.cuts: list[bytes] = []
        self.can_cut = True

    def cut(self, client: bytes) -> None:
        """As the transports do that can: what the client was sent is done, and the next send finds it gone."""
        self.cuts.append(client)
        if not self.can_cut:
            return
        self.gone.add(client)
        for (to, _), queued_reply in zip(self.sent, self.queued_replies, strict=True):
            queued_reply.done = queued_reply.done or to == client

    def send(self, client: bytes, header: bytes, pixels: memoryview | None) -> QueuedReply | None:
        if client in self.full:
            raise ReaderFull
        if client in self.gone:
            raise ReaderGone
        self.sent.append((client, header))
        if pixels is None:
            return None
        self.queued_replies.append(QueuedReply())
        return self.queued_replies[-1]


class Tally:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def replied(self, outcome: str, sent_bytes: int) -> None:
        self.counts[outcome] += 1

    def dropped(self, reason: str) -> None:
        self.counts[reason] += 1

    def wasted(self, reason: str) -> None:
        self.counts[f"wasted, {reason}"] += 1


class Desk:
    """An outbox with everything around it."""

    def __init__(self) -> None:
        self.transport, self.buffer_pool, self.tally = FakeTransport(), BufferPool(PAGES * ALIGN_BYTES), Tally()
        self.outbox = Outbox(self.transport, self.buffer_pool, self.tally, lease_s=LEASE_S)

    def clip(self, name: str, *, client: bytes = b"a", pages: int = 1, due_s: float = 100.0) -> Outgoing:
        buffer = self.buffer_pool.ranges.allocate(pages * ALIGN_BYTES)
        assert buffer is not None
        return Outgoing(
            client=client,
            outcome="clip",
            header=name.encode(),
            pixels=Pixels(buffer=buffer, clip_bytes=10, due_s=due_s),
            late=lambda: Outgoing(client=client, outcome="late", header=f"{name} late".encode()),
        )


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.buffer_pool.close()


def test_a_buffer_is_free_only_once_its_clip_is_delivered(desk: Desk) -> None:
    desk.outbox.put(desk.clip("one"), now_s=0)
    desk.outbox.tend(0)
    assert desk.buffer_pool.ranges.used_bytes == ALIGN_BYTES
    assert (desk.outbox.waiting, desk.outbox.in_transit) == (0, 1)
    desk.transport.queued_replies[0].done = True
    desk.outbox.tend(0)
    assert desk.buffer_pool.ranges.used_bytes == 0
    assert desk.tally.counts == {"clip": 1}


def test_a_slow_reader_gets_everything_later_and_in_order(desk: Desk) -> None:
    desk.transport.full = {b"a"}
    for name in ("one", "two", "three"):
        desk.outbox.put(desk.clip(name), now_s=0)
    desk.outbox.put(Outgoing(client=b"b", outcome="busy", header=b"other"), now_s=0)
    assert desk.outbox.blocks(b"a")
    assert not desk.outbox.blocks(b"b")
    desk.outbox.tend(desk.outbox.next_timer_s())
    assert desk.transport.sent == [(b"b", b"other")]
    desk.transport.full.clear()
    desk.outbox.tend(desk.outbox.next_timer_s())
    assert [header for _, header in desk.transport.sent] == [b"other", b"one", b"two", b"three"]
    assert not desk.outbox.blocks(b"a")
    assert desk.tally.counts == {"clip": 3, "busy": 1}


def test_retries_come_less_often_while_nothing_is_read(desk: Desk) -> None:
    desk.transport.full = {b"a"}
    desk.outbox.put(desk.clip("one"), now_s=0)
    times_s = [desk.outbox.next_timer_s()]
    for _ in range(10):
        desk.outbox.tend(times_s[-1])
        times_s.append(desk.outbox.next_timer_s())
    gaps_s = [round(b - a, 6) for a, b in pairwise(times_s)]
    assert gaps_s == sorted(gaps_s)
    assert gaps_s[-1] == pytest.approx(0.05)


def test_a_clip_nobody_reads_in_time_becomes_a_small_error_and_frees_its_buffer(desk: Desk) -> None:
    desk.transport.full = {b"a"}
    desk.outbox.put(desk.clip("one", due_s=5.0), now_s=0)
    desk.outbox.tend(5.0)
    assert desk.buffer_pool.ranges.used_bytes == 0
    desk.transport.full.clear()
    desk.outbox.tend(6.0)
    assert desk.transport.sent == [(b"a", b"one late")]
    assert desk.tally.counts == {"late": 1, "wasted, late": 1}


def test_replies_to_a_client_that_is_gone_are_dropped_and_counted(desk: Desk) -> None:
    desk.transport.full = {b"a"}
    desk.outbox.put(desk.clip("one"), now_s=0)
    desk.outbox.put(desk.clip("two"), now_s=0)
    desk.transport.full, desk.transport.gone = set(), {b"a"}
    assert desk.outbox.tend(1.0) == {b"a"}
    assert desk.outbox.tend(2.0) == set()
    assert desk.tally.counts == {"client_gone": 2, "wasted, client_gone": 2}
    assert (desk.buffer_pool.ranges.used_bytes, desk.outbox.waiting) == (0, 0)


def test_a_client_that_never_reads_has_a_bound(desk: Desk) -> None:
    desk.transport.full = {b"a"}
    for _ in range(MAX_UNREAD + 3):
        desk.outbox.put(Outgoing(client=b"a", outcome="busy", header=b"x"), now_s=0)
    assert desk.outbox.waiting == MAX_UNREAD
    assert desk.tally.counts == {"unread": 3}


def test_unread_replies_are_bounded_in_bytes_for_all_connections_of_a_principal(desk: Desk) -> None:
    clients = [b"%d" % number for number in range(100)]
    desk.transport.full = {*clients, b"honest"}
    for _ in range(100):
        for client in clients:
            desk.outbox.put(Outgoing(client=client, outcome="server", header=bytes(2000), principal="flood"), now_s=0)
    assert desk.outbox.unread_bytes <= MAX_UNREAD_BYTES
    assert desk.tally.counts["unread"] == 10_000 - desk.outbox.waiting > 5000
    desk.outbox.put(Outgoing(client=b"honest", outcome="server", header=bytes(2000), principal="honest"), now_s=0)
    assert desk.tally.counts["unread"] == 10_001 - desk.outbox.waiting, "another's is kept"
    desk.transport.full.clear()
    desk.outbox.tend(1.0)
    assert (desk.outbox.unread_bytes, desk.outbox.waiting) == (0, 0)
    desk.outbox.put(desk.clip("one"), now_s=2.0)
    assert desk.tally.counts["clip"] == 1


def test_who_gives_nothing_back_for_the_lease_is_cut_off_and_who_does_is_not(desk: Desk) -> None:
    for client in (b"stopped", b"slow"):
        for name in ("one", "two"):
            desk.outbox.put(desk.clip(name, client=client), now_s=0)
    assert desk.outbox.next_timer_s() == LEASE_S
    desk.transport.queued_replies[2].done = True
    desk.outbox.tend(6.0)
    desk.outbox.tend(9.9)
    assert desk.transport.cuts == []
    desk.outbox.tend(LEASE_S)
    assert desk.transport.cuts == [b"stopped"]
    assert desk.buffer_pool.ranges.used_bytes == ALIGN_BYTES, "what the stopped one held is free, and only that"
    assert desk.outbox.next_timer_s() == 16.0
    desk.transport.queued_replies[3].done = True
    desk.outbox.tend(16.0)
    assert desk.transport.cuts == [b"stopped"]
    assert (desk.buffer_pool.ranges.used_bytes, desk.outbox.in_transit) == (0, 0)


def test_a_transport_that_cannot_cut_is_asked_again_and_not_at_every_turn(desk: Desk) -> None:
    desk.transport.can_cut = False
    desk.outbox.put(desk.clip("one"), now_s=0)
    for now_s in range(25):
        desk.outbox.tend(float(now_s))
    assert desk.transport.cuts == [b"a", b"a"]
