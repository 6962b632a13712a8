"""How the server's metrics account for time, demand and what storage took, and that no label has endless values."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, generate_latest

from decode_server.service.front_load import FrontLoad
from decode_server.service.lifecycle import State
from decode_server.service.metrics import OTHER_RUNS, RUN_LABELS, Capacity, Gauges, Metrics
from decode_server.service.process_metrics import ProcessCollector, cpu_seconds
from decode_server.service.workers.worker_messages import Effort
from tests.integration.serving import PATIENCE_S, parse_metrics

IDLE = Gauges(
    state=State.READY,
    in_flight=0,
    queued=0,
    queue_full=False,
    workers=2,
    workers_busy=0,
    stuck_reads=0,
    zombies=0,
    buffer_pool_used_bytes=0,
    short_of_buffers=False,
    clients_blocked=False,
    front_busy_s=0.0,
    front_longest_s=0.0,
    clients=lambda: [("shm://@a", 3, 1024)],
)


def metrics_of_two_sockets() -> Metrics:
    return Metrics(Capacity(queue=256, workers=6, buffer_pool_bytes=1 << 28, threads={0: 8, 1: 4}))


def shown(metrics: Metrics) -> dict[str, float]:
    values = parse_metrics(metrics.render().decode())
    return {name.removeprefix("framefeed_server_"): value for name, value in values.items()}


def test_time_is_charged_to_what_it_was() -> None:
    metrics = metrics_of_two_sockets()
    busy = replace(IDLE, workers_busy=2)
    metrics.observe(replace(IDLE, workers_busy=1), now_s=10.0)
    metrics.observe(busy, now_s=12.0)  # nothing waits, but nobody idles: neither
    metrics.observe(replace(busy, queued=8, queue_full=True), now_s=19.0)
    metrics.observe(replace(IDLE, queued=3, short_of_buffers=True), now_s=23.0)
    metrics.observe(replace(IDLE, queued=3, clients_blocked=True), now_s=23.5)
    metrics.observe(IDLE, now_s=24.75)
    values = shown(metrics)
    assert values["queue_empty_seconds_total"] == 2.0
    assert values["queue_full_seconds_total"] == 4.0
    assert values["buffer_short_seconds_total"] == 0.5
    assert values["client_blocked_seconds_total"] == 1.25
    assert values['state{framefeed_server_state="ready"}'] == 1.0


def test_each_depth_has_its_limit_beside_it() -> None:
    metrics = metrics_of_two_sockets()
    metrics.observe(replace(IDLE, queued=3, buffer_pool_used_bytes=4096), now_s=1.0)
    values = shown(metrics)
    assert (values["queue_depth_requests"], values["queue_limit_requests"]) == (3, 256)
    assert (values["buffer_pool_used_bytes"], values["buffer_pool_bytes"]) == (4096, 1 << 28)
    assert (values["workers"], values["workers_wanted"]) == (2, 6)
    assert (values['clients{address="shm://@a"}'], values['clients_limit{address="shm://@a"}']) == (3, 1024)
    assert (values['threads{socket="0"}'], values['threads{socket="1"}']) == (8, 4)


def test_what_threads_and_storage_did_is_counted_where_it_was() -> None:
    metrics = metrics_of_two_sockets()
    reads_s = [("open", 0.003), ("read", 0.1), ("read", 0.0001)]
    metrics.worked(Effort(0.5, 1.0, {"stale": 1, "retry": 2}, reads_s, (5, 1)), socket=1)
    metrics.worked(Effort(0.25, 2.0, {}, [], (1, 0)), socket=1)
    values = shown(metrics)
    assert values['thread_busy_seconds_total{socket="1"}'] == 0.75
    assert values['thread_busy_seconds_total{socket="0"}'] == 0.0
    assert values['storage_duration_seconds_count{operation="read"}'] == 2
    assert values['storage_duration_seconds_sum{operation="open"}'] == 0.003
    assert values['index_lookups_total{found="memory"}'] == 6
    assert values['index_lookups_total{found="storage"}'] == 1
    assert values['storage_faults_total{kind="stale"}'] == 1
    assert values["storage_retries_total"] == 2


def test_demand_is_told_by_run_and_runs_without_end_share_a_label() -> None:
    metrics = metrics_of_two_sockets()
    for number in range(RUN_LABELS + 30):
        for _ in range(2):
            metrics.asked(f"run{number}")
    values = shown(metrics)
    by_run = {name: value for name, value in values.items() if name.startswith("run_requests_total{")}
    assert len(by_run) == RUN_LABELS + 1
    assert by_run['run_requests_total{run="run7"}'] == 2
    assert by_run[f'run_requests_total{{run="{OTHER_RUNS}"}}'] == 60


def test_the_front_is_as_busy_as_its_turns_lately_say() -> None:
    load, now_s = FrontLoad(0.0), 0.0
    for _ in range(1000):  # three of four milliseconds
        load.begin(now_s + 0.001)
        now_s += 0.004
        load.end(now_s)
    assert load.busy_s == pytest.approx(3.0)
    assert load.longest_s == pytest.approx(0.003)
    assert load.busy == pytest.approx(0.75, abs=0.02)
    load.begin(now_s + 5.0)
    assert load.busy < 0.01, "it remembers too long"
    metrics = metrics_of_two_sockets()
    for busy_s in (1.0, 2.5):
        metrics.observe(replace(IDLE, front_busy_s=busy_s, front_longest_s=busy_s / 2), now_s=busy_s)
        metrics.render()
    assert shown(metrics)["front_busy_seconds_total"] == 2.5
    assert shown(metrics)["front_longest_turn_seconds"] == 1.25


@dataclass
class OneGateway:
    gateway_pid: int
    gateways_ended_cpu_s: float = 0.0


@pytest.mark.parametrize("kind", ["workers", "gateways"])
def test_the_cpu_time_and_memory_of_a_kind_are_those_of_its_processes(kind: str) -> None:
    code = "x = bytearray(64 << 20)\nfor i in range(3_000_000): pass\nprint('here', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    pids = [child.pid, 2**22 + 1]  # one is gone
    gateways = [OneGateway(pid) for pid in (*pids, 0)]
    registry = CollectorRegistry()
    registry.register(ProcessCollector(lambda: pids, []) if kind == "workers" else ProcessCollector(list, gateways))
    other = {"workers": "gateways", "gateways": "workers"}[kind]

    def read(kind: str) -> tuple[float, float]:
        page = parse_metrics(generate_latest(registry).decode())
        return page[f"framefeed_server_{kind}_cpu_seconds_total"], page[f"framefeed_server_{kind}_memory_bytes"]

    cpu_s, memory_bytes = read(kind)
    others_cpu_s, others_memory_bytes = read(other)
    assert memory_bytes >= 64 << 20
    assert cpu_s > 0
    assert others_memory_bytes == 0
    used_s = cpu_seconds(child.pid)
    child.communicate("", timeout=PATIENCE_S)
    pids.remove(child.pid)
    if kind == "gateways":
        gateways[0].gateways_ended_cpu_s, gateways[0].gateway_pid = used_s, 0
    tick_s = 4 / os.sysconf("SC_CLK_TCK")
    assert read(kind)[1] == 0
    assert read(kind)[0] >= cpu_s - tick_s
    if kind == "gateways":
        assert read(other)[0] >= others_cpu_s - tick_s, "what gateways took is no worker's"
        assert read(other)[0] <= others_cpu_s + 1.0


def test_codecs_that_a_worker_invents_are_one_label_after_some() -> None:
    metrics = Metrics(Capacity(queue=1, workers=1, buffer_pool_bytes=1, threads={0: 1}))
    for number in range(500):
        metrics.decoded(socket=0, codec=f"codec {number}", read_bytes=1, stage_s={})
    page = metrics.render().decode()
    assert page.count('codec="codec ') < 200  # of two samples each at most
    assert 'codec="other"' in page
