"""What users do by habit: whatever would train on other data in silence is refused, or told, in one line."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from framefeed.crops import WholeFrame
from framefeed.errors import BadInput
from framefeed.sampling import Segments
from framefeed.wire import ServerReply
from tests.clip_servers import Manner
from tests.integration.test_client import BATCH, DATASET, POLICY, check, free_port, loader, servers
from trainer_client.clip_policy import ClipPolicy
from trainer_client.fleet.fleet import Fleet, FleetLimits
from trainer_client.fleet.watchdog import Stalled
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample

ROOT = Path(__file__).parents[2]


class Labelled(list[Sample]):
    """A list that says which data set it is of."""

    def __init__(self, samples: list[Sample], identity: str) -> None:
        super().__init__(samples)
        self.identity = identity


def test_servers_of_another_data_set_than_the_samples_are_shunned_from_the_first_clip_on() -> None:
    with (
        servers(Manner(dataset="data-2", other_pixels=True), Manner(dataset="data-2", other_pixels=True), Manner()) as (
            *odd,
            right,
        ),
        loader(*(one.url for one in (*odd, right)), dataset=Labelled(DATASET, "data-1"), steps=5) as run,
    ):
        for batch in run:
            assert batch.samples
        assert run.stats.shunned["dataset"] == 2
        assert run.state_dict()["dataset"] == "data-1"
        assert [one.decode_calls for one in odd] == [0, 0]


def test_where_only_servers_of_another_data_set_are_left_the_run_ends_by_name() -> None:
    with (
        servers(Manner(dataset="data-2")) as (only,),
        loader(only.url, dataset_identity="data-1", member_grace_s=0.2) as run,
        pytest.raises(BadInput, match="serves data set 'data-2', this run reads 'data-1'"),
    ):
        next(run)


def test_samples_of_no_known_data_set_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with servers(Manner()) as (only,):
        with loader(only.url, dataset_identity="data-1", steps=1) as run:
            next(run)
        assert "takes the data set of most servers" not in caplog.text
        with loader(only.url, steps=1) as run:
            next(run)
        assert caplog.text.count("takes the data set of most servers") == 1


def test_a_second_thread_is_refused_and_no_batch_is_lost() -> None:
    used: list[int] = []
    with servers(Manner()) as (only,), loader(only.url, steps=200) as run:

        def iterate() -> str:
            try:
                for batch in run:
                    used.append(batch.step)
            except BadInput as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(4) as pool:
            refusals = [line for line in pool.map(lambda _: iterate(), range(4)) if line]
        assert all("while thread" in line and "wanted one thread at a time" in line for line in refusals)
        assert sorted(used) == list(range(len(used)))
        used += [batch.step for batch in run]
        assert sorted(used) == list(range(200))


def test_threads_may_take_turns() -> None:
    with servers(Manner()) as (only,), loader(only.url, steps=6) as run:
        steps = []
        for _ in range(6):
            with ThreadPoolExecutor(1) as pool:
                steps.append(pool.submit(next, run).result(20).step)
        assert steps == list(range(6))


def test_a_waiting_loader_refuses_another_thread_at_once() -> None:
    with loader("tcp://127.0.0.1:1") as run, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, run)
        while not run.stats.servers:
            assert not waiting.done()
        with pytest.raises(BadInput, match=f"used by thread '{threading.current_thread().name}' while thread"):
            next(run)
        run.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(20)


def test_a_run_that_is_over_says_so_once_when_it_is_iterated_again(caplog: pytest.LogCaptureFixture) -> None:
    with servers(Manner()) as (only,), loader(only.url, steps=3) as run:
        assert len(list(run)) == 3
        assert not caplog.records
        state = run.state_dict()
        for _ in range(3):
            assert list(run) == []
        assert caplog.text.count("is iterated again and gives nothing") == 1
        assert "epochs=" in caplog.text
        assert state["position"] == 3 * BATCH


class Breaks:
    """A dataset of which one sample cannot be had."""

    def __init__(self, at: int, error: BaseException) -> None:
        self._at, self._error = at, error

    def __len__(self) -> int:
        return len(DATASET)

    def __getitem__(self, index: int) -> Any:
        if index == self._at:
            raise self._error
        return DATASET[index]


@pytest.mark.parametrize(
    "error", [KeyError("x"), StopIteration(), SystemExit(3), KeyboardInterrupt(), IndexError("gone")], ids=repr
)
def test_what_a_dataset_raises_is_raised_at_its_batch(error: BaseException) -> None:
    with servers(Manner()) as (only,):
        run = loader(only.url, dataset=Breaks(2 * BATCH + 1, error), shuffle=False)
        with run:
            assert [next(run).step for _ in range(2)] == [0, 1]
            for _ in range(2):
                with pytest.raises(BadInput, match=f"sample {2 * BATCH + 1} of the dataset: ") as raised:
                    next(run)
                assert raised.value.__cause__ is error
            if isinstance(error, Exception):  # others go through the main thread, where they are a signal's
                assert run.state_dict()["position"] == 2 * BATCH


def test_a_sample_that_the_policy_has_no_view_of_is_named() -> None:
    odd = [*DATASET[:BATCH], Sample(video="video0", start_s=0.0, end_s=1.0, view=3), *DATASET[BATCH:]]
    with servers(Manner()) as (only,), loader(only.url, dataset=odd, shuffle=False) as run:
        next(run)
        with pytest.raises(BadInput, match=f"sample {BATCH} of the dataset: policy: view of .* is 3, wanted 0 to 0"):
            next(run)


def test_a_batch_larger_than_the_memory_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(BadInput, match=r"batch_clips is 10000000000: a batch of clips of 384 bytes is 3840000000000"):
        loader("tcp://127.0.0.1:1", batch_clips=10**10)


def test_what_went_wrong_first_is_not_hidden_by_a_close_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def cannot_close() -> None:
        raise RuntimeError("the feed's thread did not end within 5 s of close()")

    run = loader("tcp://127.0.0.1:1")
    really, run.close = run.close, cannot_close  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError), run:
        _ = 1 / 0
    assert "did not end" in caplog.text
    with pytest.raises(RuntimeError, match="did not end"), run:
        pass
    really()


def other_policy() -> ClipPolicy:
    return ClipPolicy(sampling=Segments(frames=POLICY.sampling.frames), crop=WholeFrame(), width_px=8, height_px=8)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": DATASET[::-1]}, "the dataset lists other samples, or in another order: samples_digest is"),
        ({"policy": other_policy()}, "the policy makes other clips: policy_digest is"),
        ({"dataset_identity": "data-2"}, "the samples are of another data set: dataset is data-1 in the state and"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
def test_a_state_of_other_samples_or_another_policy_is_refused(change: dict[str, Any], says: str) -> None:
    with servers(Manner()) as (only,):
        with loader(only.url) as run:
            next(run)
            state = run.state_dict()
        chosen: dict[str, Any] = {"dataset": DATASET, "policy": POLICY, **change}
        dataset, policy = chosen.pop("dataset"), chosen.pop("policy")
        options = LoaderOptions(servers=[only.url], batch_clips=BATCH, run_seed=11, **chosen)
        with ClipLoader(dataset, policy, options) as other, pytest.raises(BadInput, match=f"resume: {says}"):
            other.load_state_dict(state)


def test_a_state_without_digests_is_taken_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with loader("tcp://127.0.0.1:1") as run:
        state = {name: value for name, value in run.state_dict().items() if not name.endswith("_digest")}
        run.load_state_dict(state)
        assert caplog.text.count("it is not compared") == 2


@pytest.mark.parametrize("steps", [-1, 1, 10**9, 2.5, "3", None, True])
def test_a_state_of_steps_that_are_not_done_is_refused(steps: Any) -> None:
    with loader("tcp://127.0.0.1:1") as run, pytest.raises(BadInput, match="steps is asked for, wanted 0 to 0"):
        run.state_after(steps)


@pytest.mark.parametrize("state", [None, [1], "state", 3], ids=repr)
def test_what_is_no_state_is_refused(state: Any) -> None:
    with loader("tcp://127.0.0.1:1") as run, pytest.raises(BadInput, match=r"resume: the state is .*, wanted what"):
        run.load_state_dict(state)


@pytest.mark.parametrize("change", [{"policy": None}, {"policy": ClipPolicy}, {"options": {}}], ids=repr)
def test_a_loader_of_other_things_is_refused(change: dict[str, Any]) -> None:
    options = LoaderOptions(servers=["tcp://127.0.0.1:1"], batch_clips=BATCH)
    chosen: dict[str, Any] = {"policy": POLICY, "options": options, **change}
    with pytest.raises(BadInput, match=f"loader: {next(iter(change))} is .*, wanted a "):
        ClipLoader(DATASET, **chosen)


def test_ranks_are_torchrun_s_and_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with servers(Manner()) as (only,):
        with loader(only.url, batch_clips=2) as run:
            assert next(run).positions.tolist() == [2, 3]
        assert caplog.text.count("rank 1 of 2, by RANK and WORLD_SIZE in the environment") == 1
        with loader(only.url, batch_clips=2, rank=0, world_size=1) as run:
            assert next(run).positions.tolist() == [0, 1]
        assert "in the options, which win" in caplog.text


@contextlib.contextmanager
def odd_listener(says: bytes) -> Iterator[int]:
    """A port where something answers that is no decode server; says nothing if that is empty."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        over = threading.Event()

        def answer() -> None:
            listener.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(OSError):
                    taken, _ = listener.accept()
                    stack.enter_context(taken)
                    if says:
                        taken.sendall(says)
                        taken.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join(10)


WEB = b"HTTP/1.1 400 Bad Request\r\n\r\n" * 5


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("tcp://no.such.host.invalid:6001", "cannot be reached: its host's name does not resolve"),
        ("tcp://127.0.0.1:NOBODY", "refuses connections: nothing listens there"),
        ("tcp://127.0.0.1:WEB", "refuses this client: it wants CURVE .* or is no decode server"),
        ("tcp://127.0.0.1:MUTE", "takes connections and says nothing: is it a decode server"),
        ("shm://@no-such-server", r"nobody can be connected to at this socket \(Connection refused\)"),
        ("grpc://127.0.0.1:NOBODY", "is not there .*Connection refused"),
        ("grpc://127.0.0.1:WEB", "is not there .*http1"),
        ("grpc://no.such.host.invalid:6001", "is not there .*no.such.host.invalid"),
    ],
)
def test_a_standstill_says_why_each_server_is_away(url: str, says: str) -> None:
    with odd_listener(WEB) as web, odd_listener(b"") as mute:
        for word, port in (("WEB", web), ("MUTE", mute), ("NOBODY", free_port())):
            url = url.replace(word, str(port))
        with loader(url, stall_s=1.2) as run, pytest.raises(Stalled, match=f"{url} offline, 0 in flight, {says}"):
            next(run)


def test_two_addresses_of_one_server_count_once() -> None:
    with servers(Manner(instance="one"), Manner()) as (first, other):
        twice = [first.url, first.url.replace("127.0.0.1", "localhost"), other.url]
        with loader(*twice, steps=8) as run:
            for batch in run:
                check(batch)
            states = run.stats.servers
            assert sorted(states[url] for url in twice) == ["shunned", "up", "up"]
            assert states[other.url] == "up"
            assert run.stats.shunned["twice"] == 1


def test_the_other_address_is_used_when_the_first_is_lost() -> None:
    fleet = Fleet(("tcp://a:1", "tcp://b:1"), limits=FleetLimits(), seed=1, now_s=0.0)
    who = ServerReply(
        attempt=1,
        server="s",
        fingerprint="f",
        videos=1,
        workers=1,
        state="ready",
        dataset="d",
        instance="one",
    )
    for url in ("tcp://a:1", "tcp://b:1"):
        fleet.connected(url, 1.0)
        fleet.described(url, who, 1.0)
    fleet.settle(1.0)
    assert fleet.up == ["tcp://a:1"]
    assert any("server tcp://b:1 is not used (twice: " in line for line in fleet.tidings())
    fleet.disconnected("tcp://a:1", 2.0)
    assert "tcp://b:1" in fleet.probes(2.0)
    fleet.described("tcp://b:1", who, 2.1)
    assert fleet.up == ["tcp://b:1"]


RANK = """
import sys
from tests.integration.test_client import loader
from framefeed.errors import BadInput
with loader(sys.argv[1], run="habits", rank=int(sys.argv[2]), world_size=2, batch_clips=2) as run:
    try:
        next(run)
        print("goes on", flush=True)
        sys.stdin.readline()
    except BadInput as error:
        print(error, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "rank", "says"),
    [
        ("data-1", 1, "goes on"),
        ("data-2", 1, "rank 0 of the same run, has another data set than rank 1"),
        ("data-1", 0, "rank 0 is there twice"),
    ],
)
def test_ranks_of_a_node_notice_each_other_s_mistakes(dataset: str, rank: int, says: str) -> None:
    def start(url: str, rank: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RANK, url, str(rank)]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with servers(Manner(), Manner(dataset=dataset)) as (one, other), start(one.url, 0) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "goes on\n"
        with start(other.url, rank) as second:
            assert second.stdout is not None
            assert says in second.stdout.readline()
            second.communicate("\n", timeout=20)
        first.communicate("\n", timeout=20)
