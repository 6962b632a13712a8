"""One suite over every transport: real servers (fake engine), the client's own connections and loader."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from framefeed.crops import RandomResizedCrop
from framefeed.errors import BadInput
from framefeed.sampling import Segments
from framefeed.wire import MAX_HEADER_BYTES, ClipReply, DescribeCall, ErrorReply, Load, Reply, ServerReply, pack_call
from tests.integration.fake_worker import pattern_of
from tests.integration.serving import FAKE_SERVE, PATIENCE_S, Server, outcome, request, wait_until
from tests.integration.talker import MAX_CLIP_BYTES, Talker
from tests.integration.ways import OPEN, SECURED, Way, new_bind, way
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.fleet.addresses import FORMS
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.transports.connection import TRANSPORTS, Connections
from trainer_client.transports.transport import Kind, TransportLimits

LARGE = {"side_px": 224, "frames": 4}  # 602,112 bytes
SLEEPY_SERVE = ("-m", "tests.integration.sleepy_server", "tests.integration.fake_worker")
POOL_MIB = 16
MIB = 1 << 20
POLICY = ClipPolicy(sampling=Segments(frames=4), crop=RandomResizedCrop(), width_px=224, height_px=224)
DATASET = [Sample(video="pattern", start_s=i, end_s=i + 1) for i in range(40)]

# Takes a server's address, a number, what to read and, as pickle's bytes in hex, secrets; asks for so many large clips
# and reads none, until it is killed.
HOLDER = """
import pickle, sys
from tests.integration.serving import request
from tests.integration.talker import Talker
url, clips, holds, *secrets = sys.argv[1:]
with Talker(url, **{"secrets": pickle.loads(bytes.fromhex(word)) for word in secrets}) as talker:
    for attempt in range(int(clips)):
        talker.ask(request("pattern", side_px=224, frames=4, seed=attempt), attempt=attempt)
    if holds == "headers":
        while not talker.wire.header(talker.url):
            talker.wire.wait(1.0)
    print("asked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(
    scope="module", params=[*OPEN, *(pytest.param(name, marks=pytest.mark.slow, id=name) for name in SECURED)]
)
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Way:
    return way(request.param, tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def server(spoken: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with spoken.start(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def talker(spoken: Way, server: Server) -> Iterator[Talker]:
    with spoken.talker(server.endpoint) as talker:
        yield talker


def pool_bytes(server: Server) -> float:
    return server.metrics()["framefeed_server_buffer_pool_used_bytes"]


def rss_bytes(pid: int) -> int:
    """Memory of a process that is its own: what it shares, the buffer pool above all, is bounded by itself."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def test_bytes_are_the_ones_that_were_decoded(server: Server, talker: Talker) -> None:
    """Large ones, many at a time, so that a place in the buffer pool that is used again too early would show."""
    wanted = {seed: request("pattern", seed=seed, **LARGE) for seed in range(80)}
    for seed, one in wanted.items():
        talker.ask(one, attempt=seed)
    seen = set()
    for _ in wanted:
        reply, pixels = talker.receive()
        assert isinstance(reply, ClipReply)
        assert pixels == pattern_of(wanted[reply.attempt]).tobytes()
        assert (reply.server, len(reply.info.pts_s)) == (server.name, 4)
        seen.add(reply.attempt)
    assert seen == set(wanted)
    talker.turn()
    wait_until("the buffer pool is empty", lambda: pool_bytes(server) == 0)


@pytest.mark.parametrize("side_px", [2, 32, 256])
def test_clips_of_any_size(talker: Talker, side_px: int) -> None:
    wanted = request("pattern", side_px=side_px, frames=3, seed=side_px)
    reply, pixels = talker.decode(wanted)
    assert isinstance(reply, ClipReply)
    assert pixels == pattern_of(wanted).tobytes()


def test_errors_come_as_errors(talker: Talker) -> None:
    for attempt, (video, code) in enumerate((("corrupt", "corrupt_media"), ("bug", "permanent"))):
        reply, pixels = talker.decode(request(video), attempt=attempt)
        assert isinstance(reply, ErrorReply)
        assert (reply.attempt, reply.code, pixels) == (attempt, code, b"")


def test_a_server_says_who_it_is(server: Server, talker: Talker) -> None:
    talker.send(DescribeCall(attempt=3))
    reply, _ = talker.receive()
    assert isinstance(reply, ServerReply)
    assert reply.load.credits >= 3, "two at a time, and one more"
    assert len(reply.instance) == 16, "what tells this process from another at its address"
    assert reply.metrics_port > 0
    assert replace(reply, load=Load(), instance="", metrics_port=0) == ServerReply(
        attempt=3,
        server=server.name,
        fingerprint="fake-1",
        videos=3,
        workers=2,
        state="ready",
        dataset="v1-fake",
        max_clip_bytes=POOL_MIB << 20,
        software=version("framefeed"),
    )


def test_each_of_several_clients_gets_its_own(spoken: Way, server: Server) -> None:
    with (
        spoken.talker(server.endpoint) as one,
        spoken.talker(server.endpoint) as two,
        spoken.talker(server.endpoint) as three,
    ):
        talkers = (one, two, three)
        for attempt in range(20):
            for number, talker in enumerate(talkers):
                talker.ask(request("pattern", seed=100 * number + attempt), attempt=attempt)
        for number, talker in enumerate(talkers):
            for _ in range(20):
                reply, pixels = talker.receive()
                assert pixels == pattern_of(request("pattern", seed=100 * number + reply.attempt)).tobytes()


def test_an_attempt_that_comes_twice_is_answered_twice(talker: Talker) -> None:
    for _ in range(2):
        talker.ask(request("pattern", seed=5), attempt=9)
    replies = [talker.receive() for _ in range(2)]
    assert [reply.attempt for reply, _ in replies] == [9, 9]
    assert replies[0][1] == replies[1][1] == pattern_of(request("pattern", seed=5)).tobytes()


@pytest.mark.parametrize("header", [b"", b"\xc1 no msgpack", b"\0" * 100, os.urandom(1000)], ids=len)
def test_a_malformed_message_is_answered(talker: Talker, header: bytes) -> None:
    talker.send_raw(header)
    reply, _ = talker.receive()
    assert isinstance(reply, ErrorReply)
    assert (reply.attempt, reply.code) == (0, "bad_request")
    assert isinstance(talker.decode(request())[0], ClipReply)


@pytest.mark.parametrize("length_bytes", [MAX_HEADER_BYTES + 1, 100_000, 1 << 20])
def test_an_oversize_message_harms_its_sender_at_most(
    spoken: Way, server: Server, talker: Talker, length_bytes: int
) -> None:
    """It is not sent, is refused in a reply, or cuts its sender off; who is cut off may come again."""
    with spoken.talker(server.endpoint) as rude:
        if rude.wire.send(rude.url, b"x" * length_bytes):
            wait_until(
                "an answer", lambda: Kind.LOST in {s.kind for s in rude.wire.wait(0.1)} or rude.wire.header(rude.url)
            )
        assert isinstance(talker.decode(request())[0], ClipReply)
    with spoken.talker(server.endpoint) as again:
        assert isinstance(again.decode(request())[0], ClipReply)


def test_who_does_not_read_costs_bounded_memory_and_loses_nothing(tmp_path: Path, spoken: Way) -> None:
    """Asked for four pools of clips: while nothing is read the server holds one pool and what the transport has."""
    clips = 4 * POOL_MIB * MIB // request(**LARGE).clip_bytes
    with (
        spoken.start(tmp_path) as server,
        spoken.talker(server.endpoint) as slow,
        spoken.talker(server.endpoint) as quick,
    ):
        quick.decode(request("pattern", **LARGE))
        before_bytes = rss_bytes(server.pid)
        for attempt in range(clips):
            slow.ask(request("pattern", seed=attempt, **LARGE), attempt=attempt)
        seen: list[float] = []

        def at_rest() -> bool:
            assert isinstance(quick.decode(request())[0], ClipReply)
            seen.append(server.metrics()['framefeed_server_requests_total{outcome="clip"}'])
            return len(seen) > 10 and seen[-1] - seen[-10] == 9  # none but ours

        wait_until("it is sent no more", at_rest)
        assert pool_bytes(server) <= POOL_MIB * MIB
        assert rss_bytes(server.pid) - before_bytes < 2 * POOL_MIB * MIB
        replies = {}
        for _ in range(clips):
            reply, pixels = slow.receive()
            assert isinstance(reply, ClipReply)
            assert pixels == pattern_of(request("pattern", seed=reply.attempt, **LARGE)).tobytes()
            replies[reply.attempt] = reply
        assert len(replies) == clips


@pytest.mark.parametrize("holds", ["messages", "headers"])
def test_what_a_killed_client_held_comes_back(tmp_path: Path, spoken: Way, holds: str) -> None:
    with spoken.start(tmp_path) as server:
        secrets = pickle.dumps(spoken.credentials.read()).hex()
        command = [sys.executable, "-c", HOLDER, server.endpoint, "40", holds, secrets]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "asked\n"
            wait_until("it holds clips", lambda: outcome(server.metrics(), "clip") and pool_bytes(server) > 0)
        finally:
            holder.kill()
            holder.communicate(timeout=PATIENCE_S)
        wait_until("they come back", lambda: pool_bytes(server) == 0)
        wait_until("nothing is in flight", lambda: server.metrics()["framefeed_server_requests_in_flight"] == 0)
        with spoken.talker(server.endpoint) as talker:
            assert isinstance(talker.decode(request(**LARGE))[0], ClipReply)


@pytest.mark.slow
def test_a_killed_server_is_lost_and_found_again_at_its_address(tmp_path: Path, spoken: Way) -> None:
    with spoken.start(tmp_path) as server, spoken.talker(server.endpoint) as talker:
        for seed in range(3):
            wanted = request("pattern", seed=seed, **LARGE)
            assert talker.decode(wanted)[1] == pattern_of(wanted).tobytes()
            server.signal(signal.SIGKILL)
            server.wait()
            talker.await_kind(Kind.LOST)
            # Its gateway, which ends as well, may be met once more.
            while talker.wire.send(talker.url, pack_call(DescribeCall(attempt=1))):
                talker.await_kind(Kind.LOST)
            server.restart()
            talker.await_kind(Kind.CONNECTED)


def test_a_drain_loses_no_reply_in_transit(tmp_path: Path, spoken: Way) -> None:
    with spoken.start(tmp_path) as server, spoken.talker(server.endpoint) as talker:
        for attempt in range(20):
            talker.ask(request("pattern", seed=attempt, **LARGE), attempt=attempt)
        wait_until("all are taken", lambda: server.metrics()["framefeed_server_requests_received_total"] == 20)
        server.signal(signal.SIGTERM)
        replies: list[tuple[Reply, bytes]] = []
        while len(replies) < 20:
            reply, pixels = talker.receive()
            if not isinstance(reply, ServerReply):  # the notice of the drain
                replies.append((reply, pixels))
        for reply, pixels in replies:
            assert isinstance(reply, ClipReply)
            assert pixels == pattern_of(request("pattern", seed=reply.attempt, **LARGE)).tobytes()
        assert sorted(reply.attempt for reply, _ in replies) == [*range(20)]
        talker.turn()
        assert server.wait() == 0
        talker.wire.header(talker.url)  # the notice, if it came last: what was said is read before the loss is told
        talker.await_kind(Kind.LOST)


def test_who_leaves_is_not_heard_of_again_and_may_come_back(server: Server, talker: Talker) -> None:
    for attempt in range(5):
        talker.ask(request("pattern", **LARGE), attempt=attempt)
    talker.wire.disconnect(talker.url)
    assert talker.wire.wait(0.2) == []
    talker.wire.connect(talker.url)
    talker.await_kind(Kind.CONNECTED)
    assert isinstance(talker.decode(request())[0], ClipReply)
    talker.turn()
    wait_until("what it left is free", lambda: pool_bytes(server) == 0)


def check(batch: Batch) -> None:
    for row, sample in enumerate(batch.samples):
        wanted = POLICY.request(sample, int(batch.seeds[row]))
        assert np.array_equal(batch.pixels[row].reshape(-1), pattern_of(wanted))


def run_loader(server: Server, spoken: Way, *, after_first: Callable[[ClipLoader], None] = lambda run: None) -> None:
    options = LoaderOptions(
        servers=[server.endpoint],
        batch_clips=4,
        steps=20,
        run_seed=3,
        prefetch_batches=3,
        stall_s=60.0,
        credentials=spoken.credentials,
    )
    with ClipLoader(DATASET, POLICY, options) as run:
        batches = [next(run)]
        after_first(run)
        batches += list(run)
        assert run.stats.conserved
        assert run.stats.requested == run.stats.used == 80
    assert [batch.step for batch in batches] == list(range(20))
    for batch in batches:
        check(batch)


@pytest.mark.slow
def test_no_wake_up_is_lost(tmp_path: Path, spoken: Way) -> None:
    """A server without a periodic turn, and more asked for than the transport takes at once."""
    samples = [Sample(video="seed", start_s=i, end_s=i + 1) for i in range(40)]
    with spoken.start(tmp_path, program=SLEEPY_SERVE) as server:
        options = LoaderOptions(
            servers=[server.endpoint],
            batch_clips=4,
            steps=100,
            run_seed=3,
            prefetch_batches=16,
            stall_s=30.0,
            credentials=spoken.credentials,
        )
        with ClipLoader(samples, POLICY, options) as run:
            for batch in run:
                assert (batch.pixels.reshape(4, -1) == (batch.seeds[:, None] % 256).astype(np.uint8)).all()
            assert run.stats.requested == run.stats.used == 400


def test_a_loader_gets_its_plan(spoken: Way, server: Server) -> None:
    run_loader(server, spoken)


def test_a_trainer_that_stops_reading_asks_for_no_more(spoken: Way, server: Server) -> None:
    def rest(run: ClipLoader) -> None:
        wait_until("its slots are full", lambda: run.stats.held == 12 and run.stats.in_flight == 0)
        assert run.stats.requested == 16
        assert run.stats.inflight_bytes == 0

    run_loader(server, spoken, after_first=rest)


def test_one_server_serves_all_transports_at_once(tmp_path: Path) -> None:
    binds = [word for transport in ("tcp", "shm", "grpc") for word in ("--bind", new_bind(transport))]
    with Server(tmp_path, "/videos", *binds) as server:
        assert [url.partition("://")[0] for url in server.endpoints] == ["tcp", "shm", "grpc"]
        assert all(url in server.first_line for url in server.endpoints)
        with contextlib.ExitStack() as stack:  # a loader uses one of the addresses of a server
            options = [LoaderOptions(servers=[url], batch_clips=4, steps=20, run_seed=3) for url in server.endpoints]
            runs = [stack.enter_context(ClipLoader(DATASET, POLICY, one)) for one in options]
            for _ in range(20):
                for run in runs:
                    check(next(run))
            assert all(run.stats.requests[url, "ok"] for run, url in zip(runs, server.endpoints, strict=True))


def test_every_form_of_address_has_its_transport() -> None:
    assert set(FORMS) == set(TRANSPORTS)
    with pytest.raises(BadInput, match=r"unknown transport 'carrier'; wanted one of .*shm://@NAME"):
        LoaderOptions(servers=["carrier://pigeon:1"], batch_clips=1)


def test_what_is_written_to_the_wake_socket_ends_a_wait() -> None:
    wake, waker = socket.socketpair()
    with wake, waker, Connections(TransportLimits(clip_bytes=MAX_CLIP_BYTES), wake=wake) as wire:
        wake.setblocking(False)
        waker.send(b"\0")
        assert wire.wait(PATIENCE_S) == []
        with pytest.raises(BlockingIOError):
            wake.recv(1)


def test_a_local_address_in_use_is_one_line_and_2(spoken: Way, server: Server, tmp_path: Path) -> None:
    command = [
        sys.executable,
        *FAKE_SERVE,
        "/videos",
        "--bind",
        server.endpoint,
        "--metrics-port",
        "0",
        *spoken.options,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    line = f"framefeed: bind: {server.endpoint} is in use; choose another with --bind"
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (2, line)
