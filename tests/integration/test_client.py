"""The loader over real sockets against small servers that are late, busy, hung, killed, doubled or wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from framefeed.crops import ResizedCentreCrop
from framefeed.errors import BadInput, CorruptMedia
from framefeed.sampling import Segments
from tests.clip_servers import ClipServer, Manner, ServerProcess, pixels_of
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.fleet.watchdog import Stalled
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

POLICY = ClipPolicy(
    sampling=Segments(frames=2), crop=ResizedCentreCrop(), width_px=8, height_px=8, hflip_probability=0.5
)
DATASET = [Sample(video=f"video{i % 7}", start_s=float(i), end_s=i + 1.0) for i in range(50)]
BATCH = 4


def loader(*urls: str, dataset: Any = DATASET, registry: CollectorRegistry | None = None, **options: Any) -> ClipLoader:
    chosen = {"batch_clips": BATCH, "steps": 25, "run_seed": 11, "stall_s": 30.0, "attempt_s": 5.0, **options}
    return ClipLoader(dataset, POLICY, LoaderOptions(servers=urls, **chosen), registry=registry)


def check(batch: Batch) -> None:
    """The batch is the plan's, its clips are the right ones, and nothing of it moved."""
    assert batch.positions.tolist() == list(range(batch.step * BATCH, (batch.step + 1) * BATCH))
    assert [DATASET[i] for i in batch.indices.tolist()] == list(batch.samples)
    for row, sample in enumerate(batch.samples):
        request = POLICY.request(sample, int(batch.seeds[row]))
        assert np.array_equal(batch.pixels[row], pixels_of(request))
        assert batch.infos[row].flipped == request.flipped


def check_run(run: ClipLoader, *, steps: int = 25) -> None:
    """Every step came once, in order, as the plan says, and every request is accounted for."""
    held = list(run)
    assert [batch.step for batch in held] == list(range(steps))
    for batch in held:
        check(batch)
    stats = run.stats
    assert stats.conserved
    assert stats.used == steps * BATCH
    assert sum(stats.wait_ns.values()) == stats.blocked_ns


def take_until(run: ClipLoader, seen: Callable[[], object], *, at_least: int = 25) -> None:
    """Check batch after batch of an endless run until something was seen; its order makes the run's."""
    for count in range(100_000):
        if count >= at_least and seen():
            return
        check(next(run))
    raise AssertionError("not seen in 100,000 batches")


@contextlib.contextmanager
def servers(*manners: Manner) -> Iterator[list[ClipServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ClipServer(manner)) for manner in manners]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_servers_gives_the_plan(count: int) -> None:
    with servers(*[Manner()] * count) as some, loader(*[s.url for s in some]) as run:
        check_run(run)
        assert sum(s.decode_calls for s in some) == 25 * BATCH
        assert run.stats.received_bytes == 25 * BATCH * POLICY.clip_bytes
        assert run.stats.read_bytes_per_clip == 1000


@pytest.mark.parametrize(
    ("manner", "count"),
    [
        (Manner(busy_every=3), "busy"),
        (Manner(copies=2), "duplicate"),
        (Manner(draining_after=10), "draining"),
        (Manner(misshaped_every=4), "malformed"),
        (Manner(misshaped_every=20, misshaped_bytes=1 << 17), "server_lost"),
        (Manner(refuse=(("video3", "storage_fault"), ("video5", "unknown_video"))), "storage_fault"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_that_misbehaves_changes_no_batch(manner: Manner, count: str) -> None:
    with servers(manner, Manner()) as (odd, good), loader(odd.url, good.url, steps=None, prefetch_batches=2) as run:
        take_until(run, lambda: {**run.stats.retries, **run.stats.dropped_replies}.get(count))
        assert run.stats.conserved


def test_a_server_of_version_1_is_told_by_it_and_changes_no_batch() -> None:
    with servers(Manner(old=True), Manner()) as (old, good), loader(old.url, good.url, steps=None) as run:
        take_until(run, lambda: run.stats.dropped_replies.get("malformed"))
        assert run.stats.conserved
    says = pytest.raises(Stalled, match="wire: version is 1, wanted 2")
    with servers(Manner(old=True)) as (old,), loader(old.url, stall_s=1.0) as run, says:
        next(run)


def test_answers_in_any_order_make_the_plan() -> None:
    with servers(Manner(held=3), Manner()) as (late, good), loader(late.url, good.url, attempt_s=0.3) as run:
        check_run(run)


def test_a_busy_server_alone_serves_the_plan() -> None:
    with servers(Manner(busy_every=3)) as (only,), loader(only.url) as run:
        check_run(run)


def test_a_hung_server_costs_its_deadline_only() -> None:
    hung_one = Manner(silent_after=10)
    with servers(hung_one, Manner()) as (hung, good), loader(hung.url, good.url, attempt_s=0.2, steps=None) as run:
        take_until(run, lambda: run.stats.retries.get("deadline_exceeded"))


def test_kill_9_of_a_server_changes_no_batch() -> None:
    with ServerProcess() as doomed, servers(Manner()) as (good,), loader(doomed.url, good.url, steps=None) as run:
        take_until(run, lambda: run.stats.requests.get((doomed.url, "ok")))
        doomed.process.kill()
        take_until(run, lambda: run.stats.servers == {doomed.url: "offline", good.url: "up"})
        assert run.stats.conserved


def test_a_stopped_process_is_survived_and_its_late_replies_harmless() -> None:
    with (
        ServerProcess() as frozen,
        servers(Manner()) as (good,),
        loader(frozen.url, good.url, attempt_s=0.2, steps=None, prefetch_batches=2) as run,
    ):
        take_until(run, lambda: run.stats.requests.get((frozen.url, "ok")))
        os.kill(frozen.process.pid, signal.SIGSTOP)
        take_until(run, lambda: run.stats.requests.get((frozen.url, "deadline_exceeded")))
        os.kill(frozen.process.pid, signal.SIGCONT)
        take_until(run, lambda: run.stats.dropped_replies.get("late") or run.stats.retries.get("server_lost"))
        assert run.stats.conserved


def test_a_server_that_dies_and_comes_back_is_used_again() -> None:
    port = free_port()
    with servers(Manner()) as (good,), loader(good.url, f"tcp://127.0.0.1:{port}", steps=None) as run:
        check(next(run))
        for _ in range(2):
            with ClipServer(port=port) as back:
                while back.decode_calls < 8:
                    check(next(run))
        assert run.stats.conserved


def test_the_trainer_may_start_before_its_servers() -> None:
    port = free_port()
    with loader(f"tcp://127.0.0.1:{port}") as run, ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, run)
        while run.stats.servers != {f"tcp://127.0.0.1:{port}": "offline"}:
            assert not first.done()
        with ClipServer(port=port):
            check(first.result(20))
            assert [b.step for b in run] == list(range(1, 25))
        waits_ns = run.stats.wait_ns
        assert waits_ns["first_batch"] > 0
        assert waits_ns["no_server"] == 0, "the start of a run is its own cause"


def test_all_servers_gone_is_an_error_that_names_who_waits() -> None:
    with servers(Manner(silent_after=40)) as (only,), loader(only.url, steps=None, stall_s=1.0) as run:
        with pytest.raises(Stalled, match=rf"no clip for .*video\d \[\d+, \d+\) s at {only.url} since") as first:
            take_until(run, lambda: False)
        with pytest.raises(Stalled) as again:
            next(run)
        assert again.value is first.value
        assert run.stats.conserved
        only.manner = Manner()
        run.load_state_dict(run.state_dict())
        take_until(run, lambda: True)


def test_no_server_at_all_is_an_error_too() -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    with loader(url, stall_s=0.5) as run, pytest.raises(Stalled, match=f"{url} offline"):
        next(run)


def test_a_clip_that_no_server_can_give_fails_at_its_batch() -> None:
    bad = Manner(refuse=(("video3", "corrupt_media"),))
    with servers(bad, bad) as (one, two), loader(one.url, two.url) as run:
        batches = []
        with pytest.raises(CorruptMedia, match=r"clip of video3 \[\d+, \d+\) s: .*server fake at tcp://127") as failed:
            batches += [next(run) for _ in range(25)]
        for _ in range(3):
            with pytest.raises(CorruptMedia) as again:
                next(run)
            assert (type(again.value), again.value.args) == (type(failed.value), failed.value.args)
        with servers(Manner()) as (healed,), loader(healed.url) as later:
            later.load_state_dict(run.state_dict())
            batch = next(later)
            check(batch)
            assert any(sample.video == "video3" for sample in batch.samples)
            assert batch.step == later.state_dict()["position"] // BATCH - 1  # type: ignore[operator]


@pytest.mark.parametrize("done", [0, 1, 12, 13, 25])
def test_a_resumed_run_goes_on_as_if_never_stopped(done: int) -> None:
    with servers(Manner(), Manner()) as (one, two):
        with loader(one.url, two.url) as run:
            for _ in range(done):
                next(run)
            state = run.state_dict()
        with loader(two.url) as later:
            later.load_state_dict(state)
            rest = list(later)
    assert [batch.step for batch in rest] == list(range(done, 25))
    for batch in rest:
        check(batch)


def test_loading_a_state_in_the_middle_discards_what_was_prefetched() -> None:
    with servers(Manner()) as (only,), loader(only.url) as run:
        start = run.state_dict()
        first = [next(run) for _ in range(5)]
        run.load_state_dict(start)
        assert run.stats.conserved
        again = [next(run) for _ in range(5)]
        for before, after in zip(first, again, strict=True):
            assert np.array_equal(before.pixels, after.pixels)
        assert run.stats.used == 10 * BATCH


def test_two_ranks_take_the_halves_of_one_rank_s_batches() -> None:
    with servers(Manner()) as (only,):
        with loader(only.url) as alone:
            whole = list(alone)
        with (
            loader(only.url, rank=0, world_size=2, batch_clips=BATCH // 2) as left,
            loader(only.url, rank=1, world_size=2, batch_clips=BATCH // 2) as right,
        ):
            left.load_state_dict(alone.state_after(10))
            right.load_state_dict(alone.state_after(10))
            halves = list(zip(left, right, strict=True))
    assert len(halves) == 15
    for batch, (low, high) in zip(whole[10:], halves, strict=True):
        assert np.array_equal(batch.pixels, np.concatenate([low.pixels, high.pixels]))


def test_a_slow_consumer_bounds_what_is_asked_for() -> None:
    with servers(Manner()) as (only,), loader(only.url, steps=None, prefetch_batches=3) as run:
        for step in range(5):
            check(next(run))
            only.wait_for_calls((step + 1 + 3) * BATCH)
            assert run.stats.requested == only.decode_calls == (step + 1 + 3) * BATCH


def test_prefetch_is_bounded_by_bytes() -> None:
    batch_bytes = BATCH * POLICY.clip_bytes
    with servers(Manner()) as (only,), loader(only.url, steps=None, prefetch_bytes=3 * batch_bytes - 1) as run:
        check(next(run))
        only.wait_for_calls(3 * BATCH)
        assert run.stats.requested == 3 * BATCH


def test_a_mixed_fleet_is_not_used_unless_allowed() -> None:
    with servers(Manner(), Manner(fingerprint="fake-2")) as (one, two):
        with loader(one.url, two.url) as run:
            check_run(run)
            assert run.stats.shunned == {"decoder": 1}
            assert sorted(run.stats.servers.values()) == ["shunned", "up"]
        with loader(one.url, two.url, allow_mixed_decoders=True) as run:
            check_run(run)
            assert run.stats.shunned == {}
        with loader(one.url) as run:
            next(run)
            state = run.state_dict()
            assert (state["decoder_fingerprint"], state["dataset"]) == ("fake-1", "data-1")
        with loader(two.url, member_grace_s=0.5) as later:
            later.load_state_dict(state)
            with pytest.raises(
                BadInput, match=r"no server fits this run: .*decodes with 'fake-2', this run with 'fake-1'"
            ):
                next(later)
        with servers(Manner(dataset="data-2")) as (three,), loader(three.url, member_grace_s=0.5) as later:
            later.load_state_dict(state)
            with pytest.raises(BadInput, match="serves data set 'data-2', this run reads 'data-1'"):
                next(later)


def test_odd_servers_among_ten_are_named_and_change_no_byte(caplog: pytest.LogCaptureFixture) -> None:
    """One of an old version, one with other chunks, one that decodes otherwise, one without room."""
    odd = (
        Manner(old=True),
        Manner(dataset="data-0", other_pixels=True),
        Manner(fingerprint="fake-0", other_pixels=True),
        Manner(max_clip_bytes=POLICY.clip_bytes - 1),
    )
    with servers(*odd, *[Manner()] * 6) as some, loader(*[s.url for s in some], steps=None) as run:
        take_until(run, lambda: run.stats.shunned == {"version": 1, "dataset": 1, "decoder": 1, "room": 1})
        stats = run.stats
        assert stats.conserved
        assert [stats.servers[server.url] for server in some] == ["shunned"] * 4 + ["up"] * 6
        assert not any(server.decode_calls for server in some[:4])
    named = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
    assert sorted(line.split()[1] for line in named) == sorted(server.url for server in some[:4])


def test_an_upgrade_of_all_servers_one_by_one_goes_on_or_says_why_not() -> None:
    """To one of the same bytes: nothing is lost. To one of other bytes: each is named, and the last ends the run."""
    ports = [free_port() for _ in range(3)]
    urls = [f"tcp://127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(ClipServer(port=port)) for port in ports]
        run = stack.enter_context(loader(*urls, steps=None, member_grace_s=1.0))
        for fingerprint in ("fake-1", "fake-2"):
            for i, port in enumerate(ports):
                running[i].stop()
                running[i] = stack.enter_context(ClipServer(Manner(fingerprint=fingerprint), port=port))
                if fingerprint == "fake-1":
                    take_until(run, lambda new=running[i]: new.decode_calls)  # type: ignore[misc]
                elif i < 2:
                    take_until(run, lambda url=urls[i]: run.stats.servers[url] == "shunned")  # type: ignore[misc]
        with pytest.raises(BadInput, match=r"no server fits this run: .*run one version everywhere"):
            take_until(run, lambda: False)
        assert run.stats.shunned == {"decoder": 3}
        assert run.stats.conserved


def test_closing_ends_the_thread_and_who_waits_for_it() -> None:
    run = loader(f"tcp://127.0.0.1:{free_port()}")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, run)
        while not run.stats.servers:
            assert not waiting.done()
        run.close()
        run.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(20)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("framefeed-feed")]
    with pytest.raises(RuntimeError, match="closed"):
        next(run)
    assert run.stats.conserved


def test_the_death_of_the_thread_is_raised_at_the_consumer() -> None:
    def nowhere(nbytes: int) -> memoryview:
        raise OSError(12, "no memory to be had")

    options = LoaderOptions(servers=[f"tcp://127.0.0.1:{free_port()}"], batch_clips=BATCH)
    with ClipLoader(DATASET, POLICY, options, allocate=nowhere) as run:
        with pytest.raises(RuntimeError, match=r"thread died: OSError: \[Errno 12\] no memory to be had") as died:
            next(run)
        assert isinstance(died.value.__cause__, OSError)


def test_the_end_of_the_plan_is_the_end() -> None:
    with servers(Manner()) as (only,), loader(only.url, steps=None, epochs=1) as run:
        assert run.steps == run.steps_per_epoch == 13
        assert len(list(run)) == 13
        assert list(run) == []
        with loader(only.url, steps=0) as none:
            assert list(none) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"servers": []}, "servers is empty"),
        ({"servers": "tcp://a:1"}, "wanted a list"),
        ({"servers": ["a:5555"]}, "'a:5555' names no transport"),
        ({"servers": ["http://a:1"]}, "unknown transport .http.; wanted one of tcp://HOST:PORT, shm://@NAME"),
        ({"servers": ["ipc://@x"]}, "unknown transport .ipc."),
        ({"servers": ["shm://@"]}, "names no local socket; wanted shm://@NAME"),
        ({"servers": ["tcp://a"]}, "names no port"),
        ({"servers": ["tcp://a:0"]}, "names no port"),
        ({"servers": ["tcp://a:99999"]}, "names no port"),
        ({"servers": ["tcp://a b:1"]}, "names no host"),
        ({"servers": ["tcp://*:5555"]}, "names no host"),
        ({"servers": ["tcp://[::1:5555"]}, "is no address"),
        ({"servers": ["tcp://a:1/x"]}, "says more than a host and a port"),
        ({"servers": ["tcp://a:1", "tcp://a:1"]}, "given twice"),
        ({"batch_clips": 0}, "batch_clips is 0"),
        (
            {"prefetch_bytes": 1000},
            r"prefetch_bytes is 1000 bytes \(1 MiB\) for 1 rank, less than one batch of 4 clips of 384 bytes for each:",
        ),
        ({"inflight_bytes": 100}, r"inflight_bytes is 100 bytes \(1 MiB\) for 1 rank, less than one clip of 384 bytes"),
        ({"prefetch_batches": 0}, "prefetch_batches is 0"),
        ({"rank": 3, "world_size": 2}, "rank is 3 of 2"),
        ({"order": "window:4", "rank": 1, "world_size": 2}, "order is 'window:4' and world_size is 2, wanted 'strict'"),
        ({"steps": -1}, "steps is -1"),
        ({"epochs": float("inf")}, "epochs is inf, wanted a finite number or None"),
        ({"steps": 5, "epochs": 1.0}, "wanted at most one"),
        ({"stall_s": 0.0}, "stall_s is 0"),
        ({"dataset": []}, "0 samples"),
    ],
)
def test_bad_input_is_one_clear_line(options: dict[str, Any], says: str) -> None:
    chosen: dict[str, Any] = {"dataset": DATASET, "servers": ["tcp://a:1"], **options}
    with pytest.raises(BadInput, match=says) as refused:
        ClipLoader(chosen.pop("dataset"), POLICY, LoaderOptions(**{"batch_clips": BATCH, **chosen}))
    assert "\n" not in str(refused.value)


def test_metrics_are_the_stats_and_leave_with_the_loader() -> None:
    registry = CollectorRegistry()
    with servers(Manner(busy_every=5)) as (only,), loader(only.url, registry=registry, rank=0) as run:
        for _ in run:
            pass
        stats = run.stats
        value = registry.get_sample_value
        assert value("framefeed_trainer_clips_total", {"rank": "0"}) == 100
        assert value("framefeed_client_requests_total", {"rank": "0", "server": only.url, "outcome": "ok"}) == 100
        assert value("framefeed_client_retries_total", {"rank": "0", "reason": "busy"}) == stats.retries["busy"]
        assert value("framefeed_client_request_duration_seconds_count", {"rank": "0"}) == 100
        assert value("framefeed_client_inflight_bytes", {"rank": "0"}) == 0
        assert value("framefeed_client_receive_cpu_seconds_total", {"rank": "0"}) > 0
        assert value("framefeed_client_requested_total", {"rank": "0"}) == stats.requested
        assert value("framefeed_client_dropped_total", {"rank": "0", "reason": "busy"}) == stats.requested - 100
        assert value("framefeed_client_inflight_requests", {"rank": "0"}) == 0
        assert value("framefeed_client_held_clips", {"rank": "0"}) == 0
        for cause, seconds in stats.wait_s.items():
            assert value("framefeed_trainer_data_wait_seconds_total", {"rank": "0", "cause": cause}) == seconds
        with pytest.raises(ValueError, match="Duplicated"):
            loader(only.url, registry=registry)
    assert not list(registry.collect())


def test_torch_sees_the_same_memory() -> None:
    torch = pytest.importorskip("torch")
    from trainer_client.training.torch_batches import torch_batches  # noqa: PLC0415

    with servers(Manner()) as (only,), loader(only.url) as run:
        kept = []
        for step, batch in enumerate(torch_batches(run)):
            assert batch.pixels.dtype == torch.uint8
            assert batch.pixels.data_ptr() == batch.batch.pixels.ctypes.data
            assert batch.indices.tolist() == batch.batch.indices.tolist()
            kept.append((step, batch.pixels, batch.batch))
    for step, pixels, batch in kept:
        assert batch.step == step
        assert np.array_equal(pixels.numpy(), batch.pixels)
        check(batch)


def test_the_client_needs_no_torch() -> None:
    code = "import sys, trainer_client.loader; sys.exit('torch' in sys.modules or 'decode_server' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
