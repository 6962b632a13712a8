"""A real server and one client that wants all of it, with an honest one beside: the budgets hold, and are counted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from decode_server.indexing.index import build_index
from framefeed.wire import (
    ClipReply,
    DecodeCall,
    DescribeCall,
    ErrorReply,
    pack_call,
    pack_reply,
    seal,
)
from tests.clip_servers import Manner
from tests.integration.serving import PATIENCE_S, SERVE, Client, Server, request, wait_until
from tests.integration.test_client import check, loader, servers
from tests.unit.contract.test_wire import CALL, REPLIES
from tests.videos import make_numbered_video

pytestmark = pytest.mark.slow
CONNECTIONS, UNREAD = 50, 10_000
GROWTH_BYTES = 64 << 20
LOG_BYTES = 1 << 20
ESCAPES = "\x1b[2J\x1b]0;owned\x07\n2026-01-01 INFO ready\n\u202e" * 40


def own_bytes(server: Server) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


@contextlib.contextmanager
def connections(endpoint: str, count: int, *, source: str) -> Iterator[list[zmq.Socket[bytes]]]:
    """Connections from another loopback address, which is another principal's."""
    context = zmq.Context()
    dealers = [context.socket(zmq.DEALER) for _ in range(count)]
    for dealer in dealers:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVHWM, 1)
        dealer.connect(endpoint.replace("tcp://", f"tcp://{source}:0;"))
    yield dealers
    for dealer in dealers:
        dealer.close()
    context.term()


def refused(server: Server, reason: str) -> float:
    return server.metrics()[f'framefeed_server_refused_total{{reason="{reason}"}}']


def is_unharmed(server: Server, grew_from_bytes: int) -> None:
    assert server.process.poll() is None, server.log()
    assert own_bytes(server) - grew_from_bytes < GROWTH_BYTES
    log = server.log()
    assert len(log) < LOG_BYTES
    assert all(line.isprintable() for line in log.split("\n"))
    assert "is a bug" not in log


def test_fifty_connections_of_one_principal_beside_an_honest_client(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", "--workers", "1", "--threads", "2") as server, Client(server.endpoint) as honest:
        assert isinstance(honest.decode(request("pattern"))[0], ClipReply)
        before_bytes = own_bytes(server)
        with connections(server.endpoint, CONNECTIONS, source="127.0.0.2") as dealers:
            for number in range(20):
                for dealer in dealers:  # two of them hold the threads, and nobody reads
                    video = "pattern" if number else "endless"
                    call = DecodeCall(attempt=number, deadline_s=3.0, request=request(video, seed=number))
                    dealer.send(pack_call(call), zmq.NOBLOCK)
            wait_until("a full queue", lambda: server.metrics()["framefeed_server_queue_depth_requests"] >= 256)
            for seed in range(25):  # less than a share of nine
                honest.send(DecodeCall(attempt=seed, deadline_s=PATIENCE_S, request=request("pattern", seed=seed)))
            answers = [honest.receive(patience_s=3 * PATIENCE_S)[0] for _ in range(25)]
            assert all(isinstance(answer, ClipReply) for answer in answers)
            assert refused(server, "queue_share") > 0
            is_unharmed(server, before_bytes)


def test_ten_thousand_unread_replies(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", "--workers", "1") as server, Client(server.endpoint) as honest:
        assert isinstance(honest.decode(request())[0], ClipReply)
        before_bytes = own_bytes(server)
        with connections(server.endpoint, 3, source="127.0.0.2") as dealers:
            for number in range(UNREAD):
                for dealer in dealers:
                    assert dealer.poll(int(PATIENCE_S * 1000), zmq.POLLOUT)
                    dealer.send(pack_call(DescribeCall(attempt=number + 1)))
                if number % 500 == 0:
                    assert isinstance(honest.decode(request(seed=number % 7), attempt=number)[0], ClipReply)
            wait_until("all calls", lambda: server.metrics()["framefeed_server_requests_received_total"] > 3 * UNREAD)
            assert isinstance(honest.decode(request())[0], ClipReply)
            is_unharmed(server, before_bytes)


@pytest.mark.parametrize("option", ["--max-read-mib", "--max-decode-mpx"])
def test_a_giant_clip_costs_its_plan(tmp_path: Path, option: str) -> None:
    options = {"preset": "ultrafast", "qp": "0", "g": "1000"} if option == "--max-read-mib" else {"g": "1000"}
    root = tmp_path / "videos"
    make_numbered_video(root / "long.mp4", frames=300, width_px=640, height_px=360, options=options)
    build_index(root)
    with (
        Server(tmp_path, str(root), "--workers", "1", option, "1", program=SERVE) as server,
        Client(server.endpoint) as client,
    ):
        giant = msgspec.structs.replace(request("long", frames=8), start_s=0.0, end_s=9.0)
        reply, _ = client.decode(giant)
        assert isinstance(reply, ErrorReply)
        assert reply.code == "too_costly"
        assert option in reply.message
        assert "wanted at most 1 " in reply.message
        values = server.metrics()
        assert refused(server, "too_costly") == 1
        assert values["framefeed_server_read_bytes_total"] == 0
        honest = msgspec.structs.replace(request("long", frames=2), start_s=0.0, end_s=0.1)
        assert isinstance(client.decode(honest)[0], ClipReply)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: list[Any] = [
    ESCAPES, "x" * 60_000, nested(900), {ESCAPES: nested(100)}, 2**64 - 1, -(2**63), float("nan"), float("inf"), None,
    b"\x1b[2J" * 1000, [ESCAPES] * 50,
]  # fmt: skip


def spoilt(body: Any) -> Iterator[Any]:
    """The message with each hostile value in the place of each of its values, and as the name of one more."""
    if isinstance(body, dict):
        for name, value in body.items():
            yield from ({**body, name: other} for other in (*HOSTILE, *spoilt(value)))
        yield {**body, ESCAPES: 1}
    elif isinstance(body, list | tuple):
        for at, value in enumerate(body):
            yield from ([*body[:at], other, *body[at + 1 :]] for other in (*HOSTILE, *spoilt(value)))


def envelopes(packed: bytes) -> list[bytes]:
    whole = msgspec.msgpack.decode(packed[:-4])
    headers = [seal(msgspec.msgpack.encode(each)) for each in spoilt(whole)]
    return [header for header in headers if len(header) < 1 << 16]


def test_hostile_values_in_every_field_of_every_call(tmp_path: Path) -> None:
    calls = envelopes(pack_call(CALL)) + envelopes(pack_call(DescribeCall(attempt=1)))
    assert len(calls) > 100
    with (
        Server(tmp_path, "/videos", "--workers", "1") as server,
        Client(server.endpoint) as honest,
        Client(server.endpoint) as hostile,
    ):
        assert isinstance(honest.decode(request())[0], ClipReply)
        before_bytes = own_bytes(server)
        for number, header in enumerate(calls):
            hostile.send_raw(header)
            reply, _ = hostile.receive()
            assert not isinstance(reply, ErrorReply) or len(reply.message) <= 300
            if number % 50 == 0:
                assert isinstance(honest.decode(request(), attempt=number)[0], ClipReply)
        assert isinstance(honest.decode(request())[0], ClipReply)
        assert refused(server, "bad_request") > 0
        assert refused(server, "internal") == 0
        is_unharmed(server, before_bytes)


def test_hostile_values_in_every_field_of_every_reply_leave_a_feed_its_clips() -> None:
    """A server that says to its first call what none would, and says it on and on."""
    replies = [(header, isinstance(reply, ClipReply)) for reply in REPLIES for header in envelopes(pack_reply(reply))]
    assert len(replies) > 300
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    over, sent = threading.Event(), 0

    def answer() -> None:
        nonlocal sent
        client = b""
        while not over.is_set():
            if router.poll(5):
                client = router.recv_multipart()[0]
            for header, has_pixels in replies[sent:][:8] if client else ():
                router.send_multipart([client, header, *([b"p" * 384] if has_pixels else [])])
                sent += 1

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with servers(Manner()) as (good,), loader(f"tcp://127.0.0.1:{port}", good.url, steps=None) as run:
            for count in range(100_000):
                check(next(run))
                if count > 25 and sent >= len(replies):
                    break
            assert sent >= len(replies)
            assert run.stats.dropped_replies["malformed"] > 0
            assert "internal" not in run.stats.dropped_replies
            assert run.stats.conserved
    finally:
        over.set()
        thread.join(PATIENCE_S)
        router.close()
        context.term()
