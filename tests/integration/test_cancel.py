"""What is not wanted any more is soon decoded no more, and is answered and counted once all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefeed.wire import CancelCall, ClipReply, DecodeCall, ErrorReply
from tests.integration.serving import Client, Server, request, wait_until

ONE_THREAD = ("/videos", "--workers", "1", "--threads", "1")
WASTED = "framefeed_server_wasted_decodes_total"


def busy_with_an_endless_clip(client: Client, server: Server, *, deadline_s: float = 60.0) -> None:
    client.send(DecodeCall(attempt=1, deadline_s=deadline_s, request=request("endless")))
    wait_until("a worker has it", lambda: server.metrics()["framefeed_server_workers_busy"] == 1)


def test_a_running_decode_stops_and_its_thread_goes_on(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        busy_with_an_endless_clip(client, server)
        client.send(CancelCall(attempt=1))
        reply, _ = client.receive()
        assert isinstance(reply, ErrorReply)
        assert (reply.attempt, reply.code) == (1, "cancelled")
        assert isinstance(client.decode(request(), attempt=2)[0], ClipReply)
        values = server.metrics()
        assert values[f'{WASTED}{{reason="cancelled"}}'] == 1
        assert values["framefeed_server_buffer_pool_used_bytes"] <= 8192, "the stopped decode keeps its buffer"
        assert values["framefeed_server_worker_restarts_total"] == 0
        assert client.silent()


def test_a_queued_request_is_answered_at_once_and_never_decoded(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        busy_with_an_endless_clip(client, server)
        for attempt in (2, 3, 4):  # one of them is the worker's to go on with
            client.send(
                DecodeCall(attempt=attempt, deadline_s=60.0, request=request("endless", seed=attempt), alone=True)
            )
        wait_until("two wait", lambda: server.metrics()["framefeed_server_queue_depth_requests"] == 2)
        for attempt in (4, 3):
            client.send(CancelCall(attempt=attempt))
            reply, _ = client.receive()
            assert isinstance(reply, ErrorReply)
            assert (reply.attempt, reply.code) == (attempt, "cancelled")
        assert server.metrics()[f'{WASTED}{{reason="cancelled"}}'] == 0
        for attempt in (2, 1):
            client.send(CancelCall(attempt=attempt))
            assert client.receive()[0].attempt == attempt
        wait_until("both are over", lambda: server.metrics()[f'{WASTED}{{reason="cancelled"}}'] == 2)
        assert server.metrics()["framefeed_server_requests_received_total"] == 4, "a cancel is no request"


def test_one_of_several_that_are_decoded_together_is_cancelled_and_the_others_come(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        busy_with_an_endless_clip(client, server)
        client.send(DecodeCall(attempt=2, deadline_s=60.0, request=request("endless", seed=9)))  # the worker's next
        for attempt in (3, 4, 5):
            client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=request(seed=attempt)))
        wait_until("three wait", lambda: server.metrics()["framefeed_server_queue_depth_requests"] == 3)
        client.send(CancelCall(attempt=1))
        assert client.receive()[0].attempt == 1
        wait_until("they are together", lambda: server.metrics()["framefeed_server_queue_depth_requests"] == 0)
        client.send(CancelCall(attempt=4))
        assert client.receive()[0].attempt == 4
        client.send(CancelCall(attempt=2))
        replies = {reply.attempt: reply for reply, _ in (client.receive() for _ in range(3))}
        assert isinstance(replies[3], ClipReply)
        assert isinstance(replies[5], ClipReply)
        wait_until("all are over", lambda: server.metrics()[f'{WASTED}{{reason="cancelled"}}'] == 3)


def test_cancels_of_what_is_over_unknown_or_another_s_change_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client, Client(server.endpoint) as other:
        assert isinstance(client.decode(request(), attempt=1)[0], ClipReply)
        busy_with_an_endless_clip(client, server)
        for attempt in (2, 77):
            client.send(CancelCall(attempt=attempt))
        other.send(CancelCall(attempt=1))
        assert server.metrics()["framefeed_server_requests_in_flight"] == 1
        client.send(CancelCall(attempt=1))
        client.send(CancelCall(attempt=1))
        assert client.receive()[0].attempt == 1
        assert isinstance(client.decode(request(), attempt=3)[0], ClipReply)
        assert client.silent()
        assert other.silent()


def test_a_decode_past_its_deadline_stops_too(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        reply, _ = client.decode(request("endless"), deadline_s=0.2)
        assert isinstance(reply, ErrorReply)
        assert reply.code == "deadline_exceeded"
        assert isinstance(client.decode(request(), attempt=2)[0], ClipReply)
        assert server.metrics()[f'{WASTED}{{reason="late"}}'] == 1
        assert server.metrics()["framefeed_server_worker_restarts_total"] == 0, "it was not stopped but killed"


def test_what_a_client_that_is_gone_had_in_work_stops(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as other:
        with Client(server.endpoint) as client:
            busy_with_an_endless_clip(client, server)
            client.send(DecodeCall(attempt=2, deadline_s=0.5, request=request()))
        assert isinstance(other.decode(request(), attempt=3)[0], ClipReply)
        values = server.metrics()
        assert values[f'{WASTED}{{reason="client_gone"}}'] >= 1
        assert values['framefeed_server_replies_dropped_total{reason="client_gone"}'] == 2


@pytest.mark.parametrize("video", ["memory", "descriptors"])
def test_a_worker_without_memory_or_descriptors_does_not_blame_the_clip(tmp_path: Path, video: str) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        reply, _ = client.decode(request(video))
        assert isinstance(reply, ErrorReply)
        assert reply.code == "resource_exhausted"
        assert reply.message.startswith(f"{video}: ")
        assert server.metrics()['framefeed_server_refused_total{reason="permanent"}'] == 0


def test_a_clip_that_has_no_room_here_may_have_it_elsewhere(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD, "--buffer-pool-mib", "1") as server, Client(server.endpoint) as client:
        reply, _ = client.decode(request(side_px=512))
        assert isinstance(reply, ErrorReply)
        assert reply.code == "not_here"
        assert "1572864 bytes, this server's buffer pool has 1048576" in reply.message
