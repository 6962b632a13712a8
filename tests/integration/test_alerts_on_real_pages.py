"""Alerts of faults that take minutes or ranks: pages of real servers and loaders in each fault, gone on with at the
rates that were seen, judged by `promtool test rules`. Faults that are quick to make fire theirs in test_bring_up.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from framefeed.wire import DecodeCall
from tests.clip_servers import ClipServer
from tests.faulty_mount import HANG, FaultyMount, possible
from tests.integration import test_starvation_causes as causes
from tests.integration.serving import SERVE, Client, Server, wait_until
from tests.integration.test_failing_mount import ask
from tests.integration.test_poison import BAD, DATASET, poison
from tests.integration.test_poison import POLICY as SMALL
from tests.integration.test_storage_faults import REQUEST
from tests.integration.test_storage_faults import root as numbered
from trainer_client.loader import ClipLoader, LoaderOptions

root = causes.root  # fixtures: videos of little to decode, and one whose frames are numbered
__all__ = ["numbered"]

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus)"),
]
RULES = [Path(__file__).parents[2] / "deploy/prometheus" / name for name in ("rules.yml", "alerts.yml")]
LASTS_S = 12 * 60
STEP_S = 0.2
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Recording:
    """Pages at two times. Between and behind these all that is on them goes on as it did from the one to the other, so
    that what adds up on both pages always does.
    """

    def __init__(self, pages: Mapping[str, Callable[[], str]]) -> None:
        """By HOST:PORT; who has a trainer's port is one."""
        self._pages = pages
        self._before = {instance: samples_of(page()) for instance, page in pages.items()}
        self._at_s = time.monotonic()
        self.every = ""
        self.series: dict[str, str] = {}

    def end(self) -> Recording:
        """Look again."""
        over_ms = max(round(1000 * (time.monotonic() - self._at_s)), 3000)  # promtool takes long over more
        self.every = f"{over_ms}ms"
        for instance, page in self._pages.items():
            job = "trainer" if instance.startswith("t:") else "decode"
            for (name, labels), value in samples_of(page()).items():
                grown = value - self._before[instance].get((name, labels), 0.0)
                said = ",".join(f'{key}="{of}"' for key, of in (("job", job), ("instance", instance), *labels))
                self.series[f"{name}{{{said}}}"] = f"{value!r}{grown:+}x{LASTS_S * 1000 // over_ms + 1}"
        return self


def samples_of(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("framefeed_") and not sample.name.endswith("_created")
    }


def judge(folder: Path, seen: Recording, *, fire: Mapping[str, int]) -> None:
    """Fails unless these alerts fire after twelve minutes, each so many times, and no other."""
    fired = [{"labels": f'{{alertname="{name}"}}', "value": times} for name, times in fire.items()]
    asked = 'count by (alertname) (ALERTS{alertstate="firing"})'
    body = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": seen.every,
        "tests": [{
            "interval": seen.every,
            "input_series": [{"series": name, "values": values} for name, values in seen.series.items()],
            "promql_expr_test": [{"expr": asked, "eval_time": f"{LASTS_S}s", "exp_samples": fired}],
        }],
    }  # fmt: skip
    file = folder / "recorded.test.yml"
    file.write_text(yaml.safe_dump(body, width=10_000))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


class Rank:
    """A rank of two that computes for a while between its batches, and its page."""

    def __init__(self, dataset: causes.Dataset, server: str, *, rank: int) -> None:
        self._registry = CollectorRegistry()
        options = LoaderOptions(
            servers=[server], batch_clips=2, run_seed=7, stall_s=60.0, rank=rank, world_size=2, local_ranks=2
        )
        self.loader = ClipLoader(dataset, causes.POLICY, options, registry=self._registry)
        next(self.loader)

    def text(self) -> str:
        return generate_latest(self._registry).decode()

    def train(self, steps: int) -> None:
        for _ in range(steps):
            time.sleep(STEP_S)  # the step itself
            next(self.loader)


def test_nothing_fires_while_nothing_is_wrong_and_one_request_that_is_lost_does(root: Path, tmp_path: Path) -> None:
    seen = straggle(root, tmp_path, longer_s=(0.0, 0.0))
    judge(tmp_path, seen, fire={})
    for name in ("framefeed_server_requests_received_total", "framefeed_client_requested_total"):
        (series, *_) = [series for series in seen.series if series.startswith(name)]
        whole = seen.series[series]
        seen.series[series] = f"{float(whole.partition('+')[0]) + 1!r}+{whole.partition('+')[2]}"
        judge(tmp_path, seen, fire={"FramefeedConservationBroken": 1})
        seen.series[series] = whole


def test_a_rank_whose_server_is_slow_is_a_straggler(root: Path, tmp_path: Path) -> None:
    seen = straggle(root, tmp_path, longer_s=(0.0, 0.6))
    judge(tmp_path, seen, fire={"FramefeedStarving": 1, "FramefeedStragglerRank": 1})


def test_servers_that_are_all_slow_are_too_few(root: Path, tmp_path: Path) -> None:
    seen = straggle(root, tmp_path, longer_s=(0.6, 0.6))
    judge(tmp_path, seen, fire={"FramefeedStarving": 2, "FramefeedSupplyBelowDemand": 1})


def straggle(root: Path, tmp_path: Path, *, longer_s: tuple[float, float]) -> Recording:
    """Two ranks with a server each, whose decodes take that much longer; the first server's page, and theirs."""
    dataset = causes.windows(root)
    with (
        causes.slow(root, tmp_path, "decode", longer_s[0], threads=1) as first,
        causes.slow(root, tmp_path, "decode", longer_s[1], threads=1) as second,
        ThreadPoolExecutor(2) as pool,
        contextlib.ExitStack() as stack,
    ):
        ranks = [Rank(dataset, server.endpoint, rank=rank) for rank, server in enumerate((first, second))]
        for rank in ranks:
            stack.callback(rank.loader.close)
        at_rest(first)
        pages = {"t:9556": ranks[0].text, "t:9557": ranks[1].text, "d:9555": lambda: first.get("/metrics")[1]}
        recording = Recording(pages)
        for trained in [pool.submit(rank.train, 16) for rank in ranks]:
            trained.result(120)
        at_rest(first)
        return recording.end()


def at_rest(server: Server) -> None:
    """Wait until it has answered all requests: a rank that has all that it prefetches asks for no more."""
    wait_until("it has answered", lambda: server.metrics()["framefeed_server_requests_in_flight"] == 0)


def test_samples_that_no_server_can_give(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    options = {"poison": poison("skip", folder=tmp_path), "batch_clips": 3, "steps": 24, "run_seed": 14}
    with ClipServer(BAD) as one, ClipServer(BAD) as two:
        chosen = LoaderOptions(servers=[one.url, two.url], stall_s=30.0, **options)  # type: ignore[arg-type]
        with ClipLoader(DATASET, SMALL, chosen, registry=registry) as run:
            seen = Recording({"t:9556": lambda: generate_latest(registry).decode()})
            assert sum(1 for _ in run) == 24
            seen.end()
    seen.series = {series: values for series, values in seen.series.items() if "quarantined_samples" in series}
    judge(tmp_path, seen, fire={"FramefeedQuarantineGrowing": 2})  # corrupt and unsupported ones


def test_a_server_that_is_asked_and_gives_nothing(numbered: Path, tmp_path: Path) -> None:
    with (
        Server(tmp_path, str(numbered), "--workers", "1", "--threads", "1", program=SERVE) as server,
        Client(server.endpoint) as client,
    ):
        assert ask(client) != "storage_fault"
        for worker in server.workers():
            os.kill(worker, signal.SIGSTOP)
        client.send(DecodeCall(attempt=2, deadline_s=60.0, request=REQUEST))
        wait_until("it has the request", lambda: server.metrics()["framefeed_server_requests_in_flight"] == 1)
        seen = Recording({"d:9555": lambda: server.get("/metrics")[1]}).end()
    judge(tmp_path, seen, fire={"FramefeedServerSilent": 1})


def test_slow_storage(root: Path, tmp_path: Path) -> None:
    with causes.slow(root, tmp_path, "read", 1.2, threads=1) as server:
        seen = Recording({"d:9555": lambda: server.get("/metrics")[1]})
        options = LoaderOptions(servers=[server.endpoint], batch_clips=2, steps=1, run_seed=7, stall_s=60.0)
        with ClipLoader(causes.windows(root), causes.POLICY, options) as loader:
            next(loader)
        at_rest(server)
        judge(tmp_path, seen.end(), fire={"FramefeedStorageSlow": 1})


@pytest.mark.skipif(not possible(), reason="needs root and /dev/fuse")
def test_reads_that_hang(numbered: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    options = ("--workers", "1", "--threads", "2", "--buffer-pool-mib", "16", "--read-s", "0.5", "--hang-s", "1")
    with (
        FaultyMount(numbered, suffix=".mp4").at(folder) as mount,
        Server(tmp_path, str(folder), *options, program=SERVE) as server,
        Client(server.endpoint) as client,
    ):
        try:
            mount.faults.append(HANG)
            assert ask(client) == "storage_fault"
            seen = Recording({"d:9555": lambda: server.get("/metrics")[1]}).end()
        finally:
            mount.let_go()  # else its workers cannot end
    judge(tmp_path, seen, fire={"FramefeedReadsHung": 1})
