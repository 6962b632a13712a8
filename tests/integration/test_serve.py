"""A server over real processes and sockets, with fake engines: every request gets one reply, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import zmq
from msgspec.msgpack import encode
from msgspec.structs import replace

from framefeed.request import ClipRequest
from framefeed.wire import (
    CancelCall,
    ClipReply,
    DecodeCall,
    DescribeCall,
    ErrorReply,
    Load,
    ServerReply,
    pack_call,
    seal,
)
from tests.integration.serving import (
    FAKE_SERVE,
    PATIENCE_S,
    SERVE,
    Client,
    Gate,
    Server,
    gone,
    outcome,
    request,
    total,
    wait_until,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the tests that leave it as it was: two workers of two threads."""
    with Server(tmp_path_factory.mktemp("server"), "/videos", "--workers", "2") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.endpoint) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


def run_and_fail(*args: str, program: tuple[str, ...] = FAKE_SERVE) -> tuple[int, str]:
    """(exit code, last line of stderr) of a server that cannot start."""
    ended = subprocess.run(
        [sys.executable, *program, *args], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return ended.returncode, ended.stderr.splitlines()[-1]


def test_a_clip_and_all_that_is_said_of_it(server: Server, client: Client) -> None:
    reply, pixels = client.decode(request(seed=77), attempt=5)
    assert isinstance(reply, ClipReply)
    assert (reply.attempt, reply.server) == (5, server.name)
    assert pixels == bytes([77]) * request().clip_bytes
    assert set(reply.info.stage_s) == {"queue", "read", "decode", "scale"}


def test_large_clips_leave_the_buffer_pool_whole_and_unmixed(server: Server, client: Client) -> None:
    """Large enough to be sent without a copy, many at a time: a span freed too early would show."""
    for seed in range(60):
        client.send(DecodeCall(attempt=seed, deadline_s=PATIENCE_S, request=request(seed=seed, side_px=256, frames=8)))
    for _ in range(60):
        reply, pixels = client.receive()
        assert isinstance(reply, ClipReply)
        assert pixels == bytes([reply.attempt]) * (256 * 256 * 3 * 8)
    wait_until("the pool is empty again", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)


def test_describe(server: Server, client: Client) -> None:
    wait_until("both workers are up", lambda: server.get("/readyz")[1].startswith("ready, 2 of 2 workers"))
    client.send(DescribeCall(attempt=3))
    reply, _ = client.receive()
    assert isinstance(reply, ServerReply)
    assert reply.load.credits >= 5, "four at a time, and one more"
    assert len(reply.instance) == 16
    assert server.metrics_url == f"http://127.0.0.1:{reply.metrics_port}/metrics"
    assert replace(reply, load=Load(), instance="", metrics_port=0) == ServerReply(
        attempt=3,
        server=server.name,
        fingerprint="fake-1",
        videos=3,
        workers=4,
        state="ready",
        dataset="v1-fake",
        max_clip_bytes=256 << 20,
        software=version("framefeed"),
    )


@pytest.mark.parametrize(
    ("frames", "attempt", "code"),
    [
        ((b"",), 0, "bad_request"),
        ((seal(b"\xc1 not msgpack"),), 0, "bad_request"),
        ((b"x" * 70_000,), 0, "bad_request"),
        ((seal(encode([99, {"kind": "decode", "attempt": 4}])),), 4, "wrong_version"),
        ((seal(encode({"v": 1, "kind": "decode", "attempt": 4})),), 4, "wrong_version"),
        ((seal(encode([2, {"kind": "exec", "attempt": 4}])),), 4, "bad_request"),
        ((seal(encode([2, {"kind": "decode", "attempt": 4}])),), 4, "bad_request"),
        ((seal(encode([2, {"kind": "describe", "attempt": 0}])),), 0, "bad_request"),
        ((pack_call(DescribeCall(attempt=4)), b"more"), 4, "bad_request"),
        ((b"", pack_call(DescribeCall(attempt=4))), 0, "bad_request"),
        ((b"a", b"b", b"c", b"d"), 0, "bad_request"),
    ],
)
def test_every_malformed_message_gets_its_reply(
    client: Client, frames: tuple[bytes, ...], attempt: int, code: str
) -> None:
    client.send_raw(*frames)
    reply, _ = client.receive()
    assert isinstance(reply, ErrorReply)
    assert (reply.code, reply.attempt) == (code, attempt)
    assert client.silent()


def test_a_cancel_has_no_reply(client: Client) -> None:
    client.send(CancelCall(attempt=3))
    client.send(DescribeCall(attempt=4))
    reply, _ = client.receive()
    assert (type(reply), reply.attempt) == (ServerReply, 4)
    assert client.silent()


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
def test_a_request_without_time_left_is_refused_at_once(client: Client, deadline_s: float) -> None:
    reply, _ = client.decode(request(), deadline_s=deadline_s)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "deadline_exceeded"


@pytest.mark.parametrize("deadline_s", [float("nan"), float("inf")])
def test_a_deadline_that_is_no_number_is_a_bad_request(client: Client, deadline_s: float) -> None:
    reply, _ = client.decode(request(), deadline_s=deadline_s)
    assert isinstance(reply, ErrorReply)
    assert reply.code == "bad_request"


def test_what_the_engine_raises_is_what_the_client_gets(client: Client) -> None:
    reply, _ = client.decode(request("corrupt"))
    assert isinstance(reply, ErrorReply)
    assert (reply.code, reply.message) == ("corrupt_media", "corrupt: nothing decodes at 1.5 s")


def test_a_bug_in_the_engine_costs_its_request_and_nothing_else(server: Server, client: Client) -> None:
    before = server.workers()
    reply, _ = client.decode(request("bug"))
    assert isinstance(reply, ErrorReply)
    assert (reply.code, reply.message) == ("permanent", "bug: RuntimeError: an oversight")
    assert server.workers() == before


def test_pages_and_books_while_requests_come_and_go(server: Server, client: Client) -> None:
    assert server.get("/healthz")[0] == 200
    ready = (200, "ready, 2 of 2 workers up, 0 requests in flight\n")
    wait_until("both workers are up after the tests before", lambda: server.get("/readyz") == ready)
    assert server.get("/nothing")[0] == 404
    before = server.metrics()
    for round_ in range(10):
        for _ in range(20):
            client.send(DecodeCall(attempt=1, deadline_s=PATIENCE_S, request=request(frames=1 + round_)))
        server.metrics()  # checks the conservation law amid the traffic
    for _ in range(200):
        client.receive()
    wait_until("all is counted", lambda: outcome(server.metrics(), "clip") == outcome(before, "clip") + 200)
    after = server.metrics()
    codec = 'framefeed_server_clips_total{codec="fake",socket="0"}'
    assert after[codec] == before.get(codec, 0) + 200
    assert after['framefeed_server_stage_duration_seconds_count{stage="decode"}'] == after[codec]
    assert after["framefeed_server_read_bytes_total"] == 1000 * after[codec]
    assert after["framefeed_server_workers"] == 2
    assert after['framefeed_server_state{framefeed_server_state="ready"}'] == 1
    assert (
        after[f'framefeed_build_info{{dataset="v1-fake",fingerprint="fake-1",version="{version("framefeed")}"}}'] == 1
    )
    assert (
        after['framefeed_server_run_requests_total{run=""}']
        == before['framefeed_server_run_requests_total{run=""}'] + 200
    )
    assert after["framefeed_server_front_busy_seconds_total"] > before["framefeed_server_front_busy_seconds_total"]
    assert after['framefeed_server_thread_busy_seconds_total{socket="0"}'] > 0
    assert after["framefeed_server_workers_memory_bytes"] > 0


def test_a_full_queue_is_busy_at_once_and_waiting_ends_at_the_deadline(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--threads", "1", "--queue", "2")
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client, Client(server.endpoint) as other:
        for attempt in (1, 2):  # one that runs, one that its worker keeps to go on with
            client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=request(gate.video), alone=True))
        wait_until("the worker is at the gate", gate.entered)
        late, _ = other.decode(request(), deadline_s=0.1)
        assert isinstance(late, ErrorReply)
        assert (late.code, "waited in the queue" in late.message) == ("deadline_exceeded", True)
        for attempt in (3, 4):
            client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=request()))
        wait_until("two wait", lambda: server.metrics()["framefeed_server_queue_depth_requests"] == 2)
        client.send(DecodeCall(attempt=5, deadline_s=60.0, request=request()))
        wait_until("three wait", lambda: server.metrics()["framefeed_server_queue_depth_requests"] == 3)
        refused, _ = client.decode(request(), attempt=6)
        assert isinstance(refused, ErrorReply)
        assert (refused.code, refused.attempt) == ("busy", 6)
        other.send(DecodeCall(attempt=1, deadline_s=60.0, request=request()))
        wait_until("a place is another's", lambda: server.metrics()["framefeed_server_queue_depth_requests"] == 4)
        gate.open()
        assert all(isinstance(client.receive()[0], ClipReply) for _ in range(5))
        assert isinstance(other.receive()[0], ClipReply)


def test_a_crash_costs_its_request_and_the_worker_is_replaced(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", "--workers", "1") as server, Client(server.endpoint) as client:
        before = server.workers()
        reply, _ = client.decode(request("crash"))
        assert isinstance(reply, ErrorReply)
        assert reply.code == "server_lost"
        assert f"worker {before[0]} died by signal 11" in reply.message
        assert "while decoding crash [1, 2) s" in reply.message
        wait_until("it is ready again", lambda: server.has_replaced(before) and server.get("/readyz")[0] == 200)
        assert isinstance(client.decode(request())[0], ClipReply)
        assert server.metrics()["framefeed_server_worker_restarts_total"] == 1


def test_a_killed_worker_loses_what_it_held_and_the_others_go_on(tmp_path: Path, gate: Gate) -> None:
    with Server(tmp_path, "/videos", "--workers", "2", "--threads", "1") as server, Client(server.endpoint) as client:
        wait_until("both are up", lambda: server.metrics()["framefeed_server_workers"] == 2)
        client.send(DecodeCall(attempt=1, deadline_s=PATIENCE_S, request=request(gate.video)))
        wait_until("a worker is at the gate", gate.entered)
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        reply, _ = client.receive()
        assert isinstance(reply, ErrorReply)
        assert (reply.code, reply.attempt) == ("server_lost", 1)
        assert "died by signal 9" in reply.message
        wait_until("both are replaced", lambda: server.metrics()["framefeed_server_workers"] == 2)
        assert isinstance(client.decode(request())[0], ClipReply)


def test_a_hung_decode_is_answered_in_time_and_its_worker_killed(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--hang-s", "0.1")
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client:
        before = server.workers()
        reply, _ = client.decode(request(gate.video), deadline_s=0.2)
        assert isinstance(reply, ErrorReply)
        assert reply.code == "deadline_exceeded"
        wait_until("it is replaced", lambda: server.has_replaced(before) and server.get("/readyz")[0] == 200)
        assert isinstance(client.decode(request())[0], ClipReply)
        assert server.metrics()["framefeed_server_buffer_pool_used_bytes"] < 2 * (1 << 20)
        assert "past its deadline" in server.log()


def test_a_reader_that_stops_reading_loses_nothing_takes_bounded_memory_and_harms_nobody(tmp_path: Path) -> None:
    clip = request(side_px=512, frames=3)  # 2.4 MB
    with (
        Server(tmp_path, "/videos", "--buffer-pool-mib", "32") as server,
        Client(server.endpoint, receive_limit=1) as slow,
        Client(server.endpoint) as other,
    ):
        for attempt in range(45):
            slow.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=clip))
        wait_until("the server holds on", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] > 8 << 20)
        for _ in range(5):
            assert isinstance(other.decode(clip)[0], ClipReply)
        values = server.metrics()
        assert values["framefeed_server_queue_depth_requests"] > 0, "the slow reader was sent all of it"
        assert values["process_resident_memory_bytes"] < (32 + 150) << 20
        replies = [slow.receive() for _ in range(45)]
        assert sorted(reply.attempt for reply, _ in replies) == list(range(45))
        assert all(isinstance(reply, ClipReply) and len(pixels) == clip.clip_bytes for reply, pixels in replies)
        assert total(server.metrics(), "replies_dropped_total") == 0


def ask_behind_gates(server: Server, client: Client, folder: Path, wanted: list[ClipRequest]) -> None:
    """Have the one thread of the only worker end attempt 0 and take 1 while the wanted wait: they are next.

    Attempt 0 is received here, 1 is let through.
    """
    gates = [Gate(folder / name) for name in ("first", "second")]
    for attempt, gate in enumerate(gates):
        client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=request(gate.video)))
        wait_until("the first is at its gate", gates[0].entered)
    for attempt, clip in enumerate(wanted, 2):
        client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=clip))
    received = "framefeed_server_requests_received_total"
    wait_until("all are in", lambda: server.metrics()[received] == 2 + len(wanted))
    gates[0].open()
    assert client.receive()[0].attempt == 0
    server.metrics()  # waits for the end of that turn
    gates[1].open()


ONE_THREAD = ("/videos", "--workers", "1", "--threads", "1")


def test_clips_of_one_span_are_decoded_together(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        ask_behind_gates(server, client, tmp_path, [request("a", seed=2), request("b", seed=3), request("a", seed=4)])
        for _ in range(4):
            reply, pixels = client.receive()
            assert isinstance(reply, ClipReply)
            assert reply.attempt == 1 or pixels == bytes([reply.attempt]) * request().clip_bytes
        values = server.metrics()
        assert values["framefeed_server_clips_together_total"] == 2
        decode_s = values['framefeed_server_stage_duration_seconds_sum{stage="decode"}']
        assert decode_s == pytest.approx(4 * 0.002), "the time of the two is counted once"
        assert values['framefeed_server_requests_total{outcome="clip"}'] == 5
        wait_until("the pool is empty", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)


def test_what_fails_together_is_decoded_one_by_one(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        ask_behind_gates(server, client, tmp_path, [request("odd", seed=seed) for seed in (2, 3, 4, 5)])
        outcomes = {}
        for _ in range(5):
            reply, pixels = client.receive()
            outcomes[reply.attempt] = reply.code if isinstance(reply, ErrorReply) else pixels[:1]
        assert [outcomes[attempt] for attempt in range(2, 6)] == [b"\2", "corrupt_media", b"\4", "corrupt_media"]
        assert server.metrics()["framefeed_server_clips_together_total"] == 4


def test_storage_that_fails_clips_together_is_not_asked_for_each(tmp_path: Path) -> None:
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        ask_behind_gates(server, client, tmp_path, [request("fault", seed=seed) for seed in (2, 3, 4)])
        codes = sorted(getattr(client.receive()[0], "code", "clip") for _ in range(4))
        assert codes == ["clip", *["storage_fault"] * 3]
        assert server.metrics()['framefeed_server_storage_faults_total{kind="io"}'] == 1


def test_a_crash_costs_all_that_were_together_and_alone_only_the_cause(tmp_path: Path) -> None:
    wanted = [request("crash", seed=seed) for seed in (0, 1)]
    with Server(tmp_path, *ONE_THREAD) as server, Client(server.endpoint) as client:
        before = server.workers()
        ask_behind_gates(server, client, tmp_path, wanted)
        replies = {reply.attempt: reply for reply, _ in (client.receive() for _ in range(3))}
        assert [getattr(replies[attempt], "code", "clip") for attempt in (1, 2, 3)] == ["clip"] + ["server_lost"] * 2
        wait_until("it is replaced", lambda: server.has_replaced(before) and server.get("/readyz")[0] == 200)
        client.send(DecodeCall(attempt=9, deadline_s=60.0, request=wanted[1], alone=True))
        assert isinstance(client.receive()[0], ClipReply)


def test_a_hung_read_costs_all_that_were_together_and_one_thread(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--threads", "2", "--read-s", "0.2")
    hung = request(gate.video.replace("wait:", "read:"))
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client:
        gates = [Gate(tmp_path / name) for name in "abc"]  # two for the threads, one for what the worker keeps ready
        for number, other in enumerate(gates):
            client.send(DecodeCall(attempt=number, deadline_s=60.0, request=request(other.video)))
            wait_until("a thread is at its gate", other.entered if number < 2 else lambda: True)
        for attempt in (3, 4, 5):
            client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=hung))
        wait_until("three wait", lambda: server.metrics()["framefeed_server_queue_depth_requests"] == 3)
        gates[0].open()
        assert client.receive()[0].attempt == 0
        wait_until(
            "the next three are together", lambda: server.metrics()["framefeed_server_clips_together_total"] == 3
        )
        gates[2].open()
        replies = [client.receive()[0] for _ in range(4)]
        assert {r.attempt for r in replies if isinstance(r, ErrorReply) and r.code == "storage_fault"} == {3, 4, 5}
        assert {r.attempt for r in replies if isinstance(r, ClipReply)} == {2}
        assert server.metrics()["framefeed_server_stuck_reads"] == 1
        gates[1].open()
        assert isinstance(client.receive()[0], ClipReply)
        assert isinstance(client.decode(request())[0], ClipReply)
        for other in gates:
            other.close()


def test_a_client_that_leaves_is_counted_and_its_requests_with_it(tmp_path: Path, gate: Gate) -> None:
    with Server(tmp_path, "/videos", "--workers", "1", "--threads", "1") as server:
        with Client(server.endpoint) as client:
            for attempt in range(6):
                client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=request(gate.video)))
            wait_until("they are all there", lambda: server.metrics()["framefeed_server_requests_in_flight"] == 6)
            wait_until("a worker is at the gate", gate.entered)
        gate.open()
        wait_until("all are dropped", lambda: total(server.metrics(), "replies_dropped_total") == 6)
        wait_until("the pool is empty", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)


def test_sigterm_drains_finishes_what_is_in_flight_and_ends_with_0(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--threads", "1")
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client:
        for attempt in range(4):  # one at the gate, one behind it, two in the queue
            wanted = request(gate.video if attempt == 0 else "clip")
            client.send(DecodeCall(attempt=attempt, deadline_s=60.0, request=wanted))
        wait_until("all are in", lambda: server.metrics()["framefeed_server_requests_in_flight"] == 4)
        wait_until("the worker is at the gate", gate.entered)
        server.signal(signal.SIGTERM)
        wait_until("it says so", lambda: server.get("/readyz")[0] == 503)
        assert server.get("/readyz")[1].startswith("draining, ")
        assert server.get("/healthz")[0] == 200
        wait_until("it is announced no more", lambda: not server.announced)
        notice, _ = client.receive()
        assert isinstance(notice, ServerReply)
        assert (notice.attempt, notice.state) == (0, "draining")
        refused, _ = client.decode(request(), attempt=9)
        assert isinstance(refused, ErrorReply)
        assert (refused.code, refused.attempt) == ("draining", 9)
        gate.open()
        replies = [client.receive()[0] for _ in range(4)]
        assert all(isinstance(reply, ClipReply) for reply in replies)
        assert sorted(reply.attempt for reply in replies) == [0, 1, 2, 3]
        assert server.wait() == 0
        assert "drained: every request was answered" in server.log()


def test_a_drain_that_takes_too_long_tells_the_clients_and_ends_with_1(tmp_path: Path, gate: Gate) -> None:
    with Server(tmp_path, "/videos", "--drain-s", "0.2") as server, Client(server.endpoint) as client:
        client.send(DecodeCall(attempt=1, deadline_s=60.0, request=request(gate.video)))
        wait_until("a worker is at the gate", gate.entered)
        server.signal(signal.SIGINT)
        assert isinstance(client.receive()[0], ServerReply)
        reply, _ = client.receive()
        assert isinstance(reply, ErrorReply)
        assert reply.code == "draining"
        assert server.wait() == 1
        assert "drain: 1 requests were unfinished after 0.2 s" in server.log()


def test_a_second_signal_forces_and_leaves_no_worker(tmp_path: Path, gate: Gate) -> None:
    with Server(tmp_path, "/videos") as server, Client(server.endpoint) as client:
        client.send(DecodeCall(attempt=1, deadline_s=60.0, request=request(gate.video)))
        wait_until("a worker is at the gate", gate.entered)
        workers = [os.pidfd_open(pid) for pid in server.workers()]
        server.signal(signal.SIGTERM)
        wait_until("it drains", lambda: server.get("/readyz")[0] == 503)
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        assert "stopped at once by a second signal, with 1 requests in flight" in server.log()
        assert all(gone(pidfd) for pidfd in workers)
        for pidfd in workers:
            os.close(pidfd)


def _shared_memory() -> list[str]:
    """What lies in the system's shared memory, but for locks of multiprocessing: tests beside this one have those."""
    return sorted(name for name in os.listdir("/dev/shm") if not name.startswith("sem.mp-"))


def test_kill_9_leaves_no_process_no_shared_memory_and_no_port(tmp_path: Path, gate: Gate) -> None:
    """Even with a worker that is stuck in a read, and so never looks at its socket."""
    before = _shared_memory()
    with Server(tmp_path, "/videos", "--threads", "1") as server, Client(server.endpoint) as client:
        for _ in range(4):
            client.send(DecodeCall(attempt=1, deadline_s=60.0, request=request(gate.video)))
        wait_until("a worker is at the gate", gate.entered)
        workers = [os.pidfd_open(pid) for pid in server.workers()]
        endpoint = server.endpoint
        server.signal(signal.SIGKILL)
        server.wait()
        assert all(gone(pidfd) for pidfd in workers)
        for pidfd in workers:
            os.close(pidfd)
    assert _shared_memory() == before
    with Server(tmp_path, "/videos", "--bind", endpoint) as again, Client(again.endpoint) as client:
        assert again.endpoint == endpoint
        assert isinstance(client.decode(request())[0], ClipReply)


def test_a_port_in_use_is_one_line_and_2(server: Server) -> None:
    code, line = run_and_fail("/videos", "--bind", server.endpoint, "--metrics-port", "0")
    assert (code, line) == (2, f"framefeed: bind: {server.endpoint} is in use; choose another with --bind")
    port = server.url.rpartition(":")[2]
    code, line = run_and_fail("/videos", "--bind", "tcp://127.0.0.1:0", "--metrics-port", port)
    assert code == 2
    assert line == f"framefeed: metrics: metrics_port {port} of 127.0.0.1 is in use; wanted a free port, or 0 for any"


@pytest.mark.slow
def test_workers_that_refuse_or_cannot_start_end_the_server_in_one_line() -> None:
    free = ("--bind", "tcp://127.0.0.1:0", "--metrics-port", "0")
    assert run_and_fail("/refuses", *free) == (2, "framefeed: root refuses: wanted another")
    code, line = run_and_fail("/dies", *free)
    assert code == 1
    assert line.startswith("framefeed: no worker can be started, 3 tries each; the last: worker ")
    assert line.endswith("exited with code 7")


def test_a_worker_that_would_make_other_bytes_is_not_let_in(tmp_path: Path) -> None:
    with Server(tmp_path, "/differs", "--workers", "2") as server, Client(server.endpoint) as client:
        wait_until("one is turned away", lambda: "this server decodes with fake-" in server.log())
        assert server.metrics()["framefeed_server_workers"] == 1
        assert isinstance(client.decode(request())[0], ClipReply)


def test_a_worker_of_another_data_set_is_not_let_in(tmp_path: Path) -> None:
    with Server(tmp_path, "/other-data", "--workers", "2") as server, Client(server.endpoint) as client:
        wait_until("one is turned away", lambda: "this server decodes with fake-1 of data set v1-" in server.log())
        assert server.metrics()["framefeed_server_workers"] == 1
        assert isinstance(client.decode(request())[0], ClipReply)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--sockets", "77"), "framefeed: --sockets: '77' is no CPU socket this process may use; it may use "),
        (("--bind", "tcp://0.0.0.0:0"), "framefeed: --bind: tcp://0.0.0.0:0 lets anyone"),
        (
            ("--buffer-pool-mib", "99999999999"),
            "framefeed: --buffer-pool-mib: 99999999999 MiB of shared memory cannot be had",
        ),
        (("--threads", "0"), "framefeed: --threads is 0, wanted at least 1"),
        (
            ("--bind", "tcp://192.0.2.1:0", "--public", "--insecure"),
            "framefeed: bind: tcp://192.0.2.1:0 is no address of this machine",
        ),
        (
            ("--bind", "tcp://127.0.0.1:0", "--bind", "tcp://192.0.2.1:0", "--public"),
            "framefeed: --bind: tcp://192.0.2.1:0 lets anyone who can reach it in; give credentials (--curve-key ",
        ),
        (("--metrics-host", "decode-box"), "framefeed: --metrics-host: 'decode-box' is no IP address"),
        (("--lease-s", "1e9"), "framefeed: --lease-s is 1e+09, wanted at most 2.592e+06"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line_and_2(args: tuple[str, ...], line: str) -> None:
    code, seen = run_and_fail("/videos", "--metrics-port", "0", *args)
    assert code == 2
    assert seen.startswith(line)


def test_a_root_that_is_not_there_is_one_line_and_2(tmp_path: Path) -> None:
    """The real verb, which says nothing of clips that might need an index before it."""
    free = ("--bind", "tcp://127.0.0.1:0", "--metrics-port", "0")
    code, line = run_and_fail(str(tmp_path / "nowhere"), *free, program=SERVE)
    assert (code, line.startswith(f"framefeed: root {tmp_path}/nowhere is not a folder")) == (2, True)
    options = [sys.executable, *SERVE, str(tmp_path / "nowhere"), *free]
    ended = subprocess.run(options, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.stderr.count("\n") == 1
    code, line = run_and_fail(str(tmp_path), *free, program=SERVE)
    assert (code, "has no framefeed.manifest.jsonl; run 'framefeed index" in line) == (2, True)


def test_a_message_beyond_all_bounds_cuts_its_sender_off_and_nobody_else(server: Server, client: Client) -> None:
    context = zmq.Context()
    rude = context.socket(zmq.DEALER)
    monitor = rude.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    rude.setsockopt(zmq.LINGER, 0)
    rude.connect(server.endpoint)
    rude.send(b"x" * (1 << 20))
    assert monitor.poll(int(PATIENCE_S * 1000)), "a message of 1 MiB was taken"
    rude.disable_monitor()
    monitor.close()
    rude.close()
    context.term()
    assert isinstance(client.decode(request())[0], ClipReply)


def test_a_hung_read_costs_its_thread_and_not_the_server(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--threads", "2", "--read-s", "0.2")
    hung = request(gate.video.replace("wait:", "read:"))
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client:
        (worker,) = server.workers()
        reply, _ = client.decode(hung, deadline_s=60.0)
        assert isinstance(reply, ErrorReply)
        assert reply.code == "storage_fault"
        assert "a read of nfs/clip.mp4 has not returned for 0.2 s" in reply.message
        for _ in range(3):
            assert isinstance(client.decode(request())[0], ClipReply), "the other thread goes on"
        values = server.metrics()
        assert values["framefeed_server_stuck_reads"] == 1
        assert values['framefeed_server_storage_faults_total{kind="hung"}'] == 1
        assert values["framefeed_server_buffer_pool_used_bytes"] > 0, "the stuck thread may still write its buffer"
        assert server.get("/readyz") == (200, "ready, 1 of 1 workers up, 0 requests in flight, 1 reads hang\n")
        gate.open()
        wait_until("the read returned", lambda: server.metrics()["framefeed_server_stuck_reads"] == 0)
        wait_until("its buffer is free", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)
        assert server.workers() == [worker]
        assert client.silent(), "the late clip went nowhere"


def test_when_all_threads_hang_the_server_is_unready_until_they_return(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--threads", "2", "--read-s", "0.2")
    hung = request(gate.video.replace("wait:", "read:"))
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client:
        (worker,) = server.workers()
        for _ in range(2):
            assert client.decode(hung, deadline_s=60.0)[0].code == "storage_fault"
        wait_until("it is unready", lambda: server.get("/readyz")[0] == 503)
        assert "2 reads hang" in server.get("/readyz")[1]
        reply, _ = client.decode(request())
        assert isinstance(reply, ErrorReply)
        assert reply.code == "busy"
        gate.open()
        wait_until("it is ready again", lambda: server.get("/readyz")[0] == 200)
        assert isinstance(client.decode(request())[0], ClipReply)
        assert server.workers() == [worker], "nobody was killed for it"


def test_what_waits_behind_hung_reads_goes_elsewhere_at_once(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--threads", "1", "--read-s", "0.2")
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client:
        client.send(DecodeCall(attempt=1, deadline_s=60.0, request=request(gate.video.replace("wait:", "read:"))))
        wait_until("it reads", gate.entered)
        client.send(DecodeCall(attempt=2, deadline_s=60.0, request=request()))
        replies = {reply.attempt: reply.code for reply, _ in (client.receive(), client.receive())}
        assert replies == {1: "storage_fault", 2: "server_lost"}
        gate.open()
        wait_until("it is ready again", lambda: server.get("/readyz")[0] == 200)
        assert isinstance(client.decode(request())[0], ClipReply)


@pytest.mark.slow
def test_a_worker_whose_threads_all_hang_for_long_is_replaced(tmp_path: Path, gate: Gate) -> None:
    args = ("/videos", "--workers", "1", "--threads", "2", "--read-s", "0.2", "--hang-s", "0.3")
    hung = request(gate.video.replace("wait:", "read:"))
    with Server(tmp_path, *args) as server, Client(server.endpoint) as client:
        before = server.workers()
        for _ in range(2):
            assert client.decode(hung, deadline_s=60.0)[0].code == "storage_fault"
        wait_until("it is replaced", lambda: server.has_replaced(before) and server.get("/readyz")[0] == 200)
        assert isinstance(client.decode(request())[0], ClipReply)
        assert "its threads were stuck in reads for" in server.log()
        wait_until("the pool is whole again", lambda: server.metrics()["framefeed_server_buffer_pool_used_bytes"] == 0)


def test_faults_that_a_retry_made_good_are_counted(tmp_path: Path) -> None:
    with Server(tmp_path, "/videos", "--workers", "1") as server, Client(server.endpoint) as client:
        assert isinstance(client.decode(request("stale"))[0], ClipReply)
        values = server.metrics()
        assert values['framefeed_server_storage_faults_total{kind="stale"}'] == 1
        assert values["framefeed_server_storage_retries_total"] == 1
