"""Streams between two threads: bounded, nothing kept for who is gone, and no wake-up lost."""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import Iterator

import pytest

from decode_server.service.listeners.gateway.grpc_streams import CALLS_PER_STREAM, Streams
from decode_server.service.listeners.listener import ReaderFull, ReaderGone

PIXELS = memoryview(b"pixels")


@pytest.fixture
def streams() -> Iterator[Streams]:
    streams = Streams()
    yield streams
    streams.close()
    streams.close()


def rings(streams: Streams) -> bool:
    return bool(select.select([streams.fileno()], [], [], 0)[0])


def test_calls_ring_and_come_in_order(streams: Streams) -> None:
    async def ask() -> bytes:
        stream = streams.open("somebody")
        streams.ask(stream, b"one")
        streams.ask(stream, b"two")
        return stream.name

    assert streams.receive() is None
    name = asyncio.run(ask())
    assert rings(streams)
    assert streams.pending
    assert [streams.receive(), streams.receive(), streams.receive()] == [(name, [b"one"]), (name, [b"two"]), None]
    assert not rings(streams)


def test_calls_without_a_reply_are_bounded_by_what_the_front_has_taken(streams: Streams) -> None:
    async def run() -> None:
        stream = streams.open("somebody")
        async with asyncio.timeout(20):
            for number in range(CALLS_PER_STREAM):
                await streams.tell(stream, number.to_bytes(2))
            more = asyncio.create_task(streams.tell(stream, b"more"))
            await asyncio.sleep(0)
            assert not more.done()
            assert streams.receive() == (stream.name, [(0).to_bytes(2)])
            await more
        assert not stream.credits.locked(), "they take no credit from calls that have one"
        taken = [streams.receive() for _ in range(CALLS_PER_STREAM)]
        assert taken[-1] == (stream.name, [b"more"])

    asyncio.run(run())
    assert streams.receive() is None


def test_a_call_without_a_reply_is_taken_after_its_loop_has_ended(streams: Streams) -> None:
    async def run() -> bytes:
        stream = streams.open("somebody")
        await streams.tell(stream, b"cancel")
        return stream.name

    assert streams.receive() is None
    name = asyncio.run(run())
    assert streams.receive() == (name, [b"cancel"])


def test_a_slow_stream_is_full_and_one_that_ended_is_gone(streams: Streams) -> None:
    async def run() -> None:
        slow, other = streams.open("somebody"), streams.open("somebody")
        sent = [streams.send(slow.name, b"h", PIXELS) for _ in range(16)]
        with pytest.raises(ReaderFull):
            streams.send(slow.name, b"h", PIXELS)
        assert streams.send(other.name, b"h", None) is None
        taken = await slow.take()
        assert (taken.header, taken.pixels, taken.done) == (b"h", PIXELS, False)
        taken.deliver()
        assert [one.done for one in sent if one] == [True] + [False] * (len(sent) - 1)
        assert not streams.idle
        streams.end(slow)
        assert all(one.done and one.pixels is None for one in sent if one)
        with pytest.raises(ReaderGone):
            streams.send(slow.name, b"h", PIXELS)
        with pytest.raises(ReaderGone):
            slow.put(b"h", PIXELS)
        assert streams.open("somebody").name not in (slow.name, other.name)

    asyncio.run(run())


def test_no_reply_is_overslept(streams: Streams) -> None:
    """A thread sends as fast as the stream takes; the loop must see each of them, in order."""
    count = 5000

    def send(name: bytes) -> None:
        number = 0
        while number < count:
            try:
                streams.send(name, number.to_bytes(2), None)
            except ReaderFull:
                continue
            number += 1

    async def run() -> list[int]:
        stream = streams.open("somebody")
        sender = threading.Thread(target=send, args=(stream.name,))
        sender.start()
        async with asyncio.timeout(60):
            taken = [int.from_bytes((await stream.take()).header) for _ in range(count)]
        sender.join()
        return taken

    assert asyncio.run(run()) == list(range(count))
