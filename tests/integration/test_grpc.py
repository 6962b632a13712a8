"""DecodeService to a foreign client: the generated stubs, the standard health service and reflection."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from framefeed.proto_wire import proto_of_call
from framefeed.request import ClipRequest
from framefeed.v1 import decode_pb2 as pb
from framefeed.v1.decode_pb2_grpc import DecodeServiceStub
from framefeed.wire import MAX_HEADER_BYTES, Call, CancelCall, DecodeCall, DescribeCall, pack_call
from tests.integration.serving import PATIENCE_S, Gate, Server, outcome, request, wait_until
from tests.integration.test_transports import HOLDER

SERVICE = "framefeed.v1.DecodeService"
BIND = ("--bind", "grpc://127.0.0.1:0", "--workers", "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), "/videos", *BIND) as server:
        yield server


def channel_to(server: Server) -> grpc.Channel:
    return grpc.insecure_channel(server.endpoint.removeprefix("grpc://"))


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with channel_to(server) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> DecodeServiceStub:
    return DecodeServiceStub(channel)


def asked(wanted: ClipRequest, *, attempt: int = 1) -> pb.Call:
    return message_of(DecodeCall(attempt=attempt, deadline_s=PATIENCE_S, request=wanted))


def message_of(call: Call) -> pb.Call:
    return pb.Call.FromString(proto_of_call(pack_call(call)))


def described(stub: DecodeServiceStub) -> pb.Reply:
    (reply,) = stub.Decode(iter([message_of(DescribeCall(attempt=5))]), timeout=PATIENCE_S)
    return reply  # type: ignore[no-any-return]


def test_a_stream_that_its_client_ends_is_answered_to_the_last(stub: DecodeServiceStub) -> None:
    calls = [asked(request(seed=seed, side_px=128), attempt=seed) for seed in range(300)]
    replies = {reply.attempt: reply for reply in stub.Decode(iter(calls), timeout=PATIENCE_S)}
    assert set(replies) == set(range(300))
    for attempt, reply in replies.items():
        assert reply.pixels == bytes((attempt % 256,)) * request(side_px=128).clip_bytes
        assert len(reply.clip.pts_s) == 2


def test_describe(server: Server, stub: DecodeServiceStub) -> None:
    reply = described(stub)
    assert (reply.version, reply.attempt, reply.server) == (2, 5, server.name)
    assert len(reply.description.instance) == 16
    assert reply.description == pb.Description(
        instance=reply.description.instance,
        fingerprint="fake-1",
        videos=3,
        workers=2,
        state="ready",
        dataset="v1-fake",
        max_clip_bytes=256 << 20,
        software=version("framefeed"),
        metrics_port=reply.description.metrics_port,
    )
    assert server.metrics_url == f"http://127.0.0.1:{reply.description.metrics_port}/metrics"


def test_calls_of_all_kinds_share_a_stream_and_a_cancel_takes_no_credit_and_has_no_reply(
    stub: DecodeServiceStub,
) -> None:
    calls: list[pb.Call] = []
    for attempt in range(1, 601):  # more than twice as many of each as a stream has credits
        calls += [asked(request(seed=attempt), attempt=attempt), message_of(CancelCall(attempt=10**6 + attempt))]
        calls.append(message_of(DescribeCall(attempt=1000 + attempt)))
    replies = list(stub.Decode(iter(calls), timeout=PATIENCE_S))
    assert sorted(reply.attempt for reply in replies) == [*range(1, 601), *range(1001, 1601)]
    assert {reply.WhichOneof("outcome") for reply in replies if reply.attempt > 600} == {"description"}
    assert {reply.WhichOneof("outcome") for reply in replies if reply.attempt <= 600} == {"clip"}


def test_cancels_alone_do_not_end_or_fill_a_stream(stub: DecodeServiceStub) -> None:
    calls = [message_of(CancelCall(attempt=attempt)) for attempt in range(2000)]
    (reply,) = stub.Decode(iter([*calls, message_of(DescribeCall(attempt=7))]), timeout=PATIENCE_S)
    assert (reply.attempt, reply.description.state) == (7, "ready")


def test_a_cancel_that_is_refused_is_answered_once(stub: DecodeServiceStub) -> None:
    """So its credit is given back once: the stream would end before its clip otherwise, or never."""
    old, wide = message_of(CancelCall(attempt=3)), message_of(CancelCall(attempt=4))
    old.version = 1
    wide.cancel.MergeFromString(b"\xf8\x07\x01")
    last = asked(request(), attempt=5)
    replies = {reply.attempt: reply for reply in stub.Decode(iter([old, wide, last]), timeout=PATIENCE_S)}
    assert {attempt: reply.error.code for attempt, reply in replies.items()} == {
        3: "wrong_version",
        4: "bad_request",
        5: "",
    }


def test_a_call_of_another_version_is_told_which_is_wanted(stub: DecodeServiceStub) -> None:
    old = asked(request(), attempt=4)
    old.version = 1
    (reply,) = stub.Decode(iter([old]), timeout=PATIENCE_S)
    wanted = pb.Error(code="wrong_version", message="wire: version is 1, wanted 2")
    assert (reply.attempt, reply.error) == (4, wanted)


def test_what_is_wrong_with_a_request_is_its_answer_and_the_stream_goes_on(stub: DecodeServiceStub) -> None:
    unset, wide, good = asked(request(), attempt=1), asked(request(), attempt=2), asked(request(), attempt=3)
    unset.decode.request.ClearField("segments")
    wide.decode.request.width_px = 10**9
    corrupt = asked(request("corrupt"), attempt=4)
    calls = iter([unset, wide, corrupt, good])
    replies = {reply.attempt: reply for reply in stub.Decode(calls, timeout=PATIENCE_S)}
    assert replies[1].error.code == "bad_request"
    assert replies[1].error.message == "wire: Object missing required field `sampling` - at `$[1].request`"
    assert (replies[2].error.code, "width_px is 1000000000" in replies[2].error.message) == ("bad_request", True)
    assert replies[4].error.code == "corrupt_media"
    assert replies[3].pixels


def test_bytes_that_are_no_message_are_answered(channel: grpc.Channel) -> None:
    raw = channel.stream_stream(f"/{SERVICE}/Decode")
    good = asked(request(), attempt=7).SerializeToString()
    calls = [b"\xff" * 100, good + b"\xf8\x07\x01", b"", good]
    replies = [pb.Reply.FromString(data) for data in raw(iter(calls), timeout=PATIENCE_S)]
    refused = [(reply.error.code, reply.attempt) for reply in replies if reply.HasField("error")]
    assert sorted(refused) == [("bad_request", 0), ("bad_request", 0), ("bad_request", 7)]
    assert "100 bytes are no Call" in str(replies)
    assert "unknown field `(not in decode.proto)`" in str(replies)
    assert [reply.attempt for reply in replies if reply.HasField("clip")] == [7]


def test_an_oversize_message_ends_its_stream_and_no_other(channel: grpc.Channel, stub: DecodeServiceStub) -> None:
    raw = channel.stream_stream(f"/{SERVICE}/Decode")
    with pytest.raises(grpc.RpcError) as refused:
        list(raw(iter([bytes(MAX_HEADER_BYTES + 1)]), timeout=PATIENCE_S))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    (reply,) = stub.Decode(iter([asked(request())]), timeout=PATIENCE_S)
    assert reply.pixels


def test_health_follows_the_server(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with Server(tmp_path, "/videos", *BIND) as server, channel_to(server) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING

        def status(service: str = SERVICE) -> int:
            wanted = health_pb2.HealthCheckRequest(service=service)
            return int(health.Check(wanted, timeout=PATIENCE_S).status)

        wait_until("it serves", lambda: status() == status("") == serving)
        waiting = DecodeServiceStub(channel).Decode(iter([asked(request(gate.video))]), timeout=PATIENCE_S)
        wait_until("it decodes", gate.entered)
        watched = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE_S)
        assert next(watched).status == serving
        server.signal(signal.SIGTERM)
        assert next(watched).status == status("") == health_pb2.HealthCheckResponse.NOT_SERVING
        gate.open()
        replies = list(waiting)
        assert [reply.pixels for reply in replies if reply.HasField("clip")] == [bytes(6144)]
        notices = [(reply.attempt, reply.description.state) for reply in replies if not reply.HasField("clip")]
        assert notices == [(0, "draining")]
        assert server.wait() == 0
    gate.close()


def test_reflection_lists_the_service_and_its_messages(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asks = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    listed, described = stub.ServerReflectionInfo(iter(asks), timeout=PATIENCE_S)
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {SERVICE, "grpc.health.v1.Health"}
    assert pb.DESCRIPTOR.serialized_pb in described.file_descriptor_response.file_descriptor_proto


def test_a_client_that_cancels_is_forgotten(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with Server(tmp_path, "/videos", *BIND) as server, channel_to(server) as channel:
        stub = DecodeServiceStub(channel)
        call = stub.Decode(iter([asked(request(gate.video))]))
        wait_until("it decodes", gate.entered)
        call.cancel()
        for _ in range(2):  # on the same connection, so the server has read the cancellation before it answers
            described(stub)
        gate.open()
        gone = 'framefeed_server_replies_dropped_total{reason="client_gone"}'
        wait_until("the reply found nobody", lambda: server.metrics()[gone] == 1)
        assert outcome(server.metrics(), "clip") == 0
    gate.close()


def test_a_client_that_is_killed_is_no_error_of_the_server(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", *BIND) as server:
        command = [sys.executable, "-c", HOLDER, server.endpoint, "40", "messages"]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "asked\n"
            wait_until("clips are on their way", lambda: outcome(server.metrics(), "clip") > 0)
        finally:
            holder.kill()
            holder.communicate(timeout=PATIENCE_S)
        wait_until("it is gone", lambda: server.metrics()["framefeed_server_requests_in_flight"] == 0)
        with channel_to(server) as channel:
            assert described(DecodeServiceStub(channel)).description.state == "ready"
        assert "Traceback" not in server.log()
        assert "ERROR" not in server.log()


def test_a_gateway_that_is_told_to_end_says_nothing_of_it(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", "--workers", "1", "--bind", "grpc://127.0.0.1:0") as server:
        server.signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        assert "drained" in server.log()
        assert "Traceback" not in server.log()
