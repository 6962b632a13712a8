"""Streams of gRPC's gateway: replies in order, none overslept, and nothing lost in silence when a stream is over."""

from __future__ import annotations

import asyncio

from decode_server.service.listeners.gateway.gateway_messages import Reply
from decode_server.service.listeners.gateway.grpc_streams import Stream, Streams


def reply(stream: Stream, number: int) -> Reply:
    return Reply(number, stream.name, b"header", 0, 0)


def test_replies_come_in_order_and_none_is_overslept() -> None:
    count = 500

    async def run() -> list[int]:
        streams = Streams()
        stream = streams.open()

        async def send() -> None:
            for number in range(count):
                assert streams.send(reply(stream, number))
                if number % 3:  # the reader has taken all there was, or has not
                    await asyncio.sleep(0)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(send())
            return [(await stream.take()).number for _ in range(count)]

    assert asyncio.run(run()) == list(range(count))


def test_what_nobody_took_is_told_and_a_stream_that_is_over_takes_nothing() -> None:
    streams = Streams()
    one, other = streams.open(), streams.open()
    assert one.name != other.name
    for number in (1, 2):
        assert streams.send(reply(one, number))
    assert (one.idle, other.idle, streams.idle, len(streams)) == (False, True, False, 2)
    assert streams.end(one) == [1, 2]
    assert not streams.send(reply(one, 3))
    streams.cut(one.name)
    assert (streams.idle, len(streams)) == (True, 1)
    assert streams.open().name not in (one.name, other.name)


def test_a_stream_that_writes_is_not_idle() -> None:
    async def run() -> None:
        streams = Streams()
        stream = streams.open()
        streams.send(reply(stream, 1))
        await stream.take()
        stream.sending += 1
        assert not streams.idle
        stream.sending -= 1
        assert streams.idle

    asyncio.run(run())


def test_a_stream_learns_that_it_is_cut() -> None:
    async def run() -> None:
        streams = Streams()
        stream, other = streams.open(), streams.open()
        waits = asyncio.create_task(stream.was_cut())
        streams.cut(other.name)
        await asyncio.sleep(0)
        assert not waits.done()
        streams.cut(stream.name)
        async with asyncio.timeout(20):
            await waits

    asyncio.run(run())
