"""What each front of a box is told: where it listens, that no two meet, and that it survives the way to its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from decode_server.service.box_addresses import front_port, front_url, sibling_url
from decode_server.service.box_capacity import describe_capacity, read_links
from decode_server.service.box_messages import FrontSetup, pack, unpack_to_front
from decode_server.service.box_plan import plan_fronts
from decode_server.service.listeners.endpoint import parse_bind
from decode_server.service.listeners.security import SecurityOptions
from decode_server.service.metrics_place import MetricsPlace
from decode_server.service.serve_options import ServeOptions
from decode_server.service.siblings import Siblings
from decode_server.service.workers.domains import Domain
from decode_server.service.workers.topology import WorkerSlot
from framefeed.errors import BadInput

DOMAINS = tuple(
    Domain(cpus=(i,), worker_slots=(WorkerSlot(socket=0, cpus=(i,)),), threads=2, buffer_pool_mib=7 + i, node=i)
    for i in range(2)
)


def plan(*binds: str, metrics_port: int = 9555, metrics_host: str = "127.0.0.1") -> list[FrontSetup]:
    options = ServeOptions(
        root=Path("/r"), bind=binds, public=True, metrics_port=metrics_port, metrics_host=metrics_host,
        announce=Path("/a"), security=SecurityOptions(token_file=Path("/t"), insecure=True),
    )  # fmt: skip
    endpoints = [parse_bind(bind, public_allowed=True) for bind in binds]
    return plan_fronts(options, endpoints, DOMAINS, worker_command=("w",))


def test_addresses_of_the_next_front_are_one_above() -> None:
    first, second = plan("tcp://*:5555", "grpc://[::1]:6000", "shm://@box", "shm:///run/box", "tcp://127.0.0.2:0")
    assert first.options.bind == (
        "tcp://0.0.0.0:5555", "grpc://[::1]:6000", "shm://@box", "shm:///run/box", "tcp://127.0.0.2:0",
    )  # fmt: skip
    assert second.options.bind == (
        "tcp://0.0.0.0:5556", "grpc://[::1]:6001", "shm://@box-1", "shm:///run/box-1", "tcp://127.0.0.2:0",
    )  # fmt: skip
    assert [first.options.metrics_port, second.options.metrics_port] == [9555, 9556]
    assert [first.options.buffer_pool_mib, second.options.buffer_pool_mib] == [7, 8]
    assert [first.options.announce, second.options.fronts, second.cpus] == [None, 1, (1,)]


def test_a_free_port_stays_one_and_a_port_too_high_is_said() -> None:
    assert front_url("tcp://127.0.0.1:0", 3) == "tcp://127.0.0.1:0"
    assert front_port(0, 3) == 0
    with pytest.raises(BadInput, match="port 65536, wanted at most 65535"):
        front_port(65535, 1)


@pytest.mark.parametrize(
    ("binds", "metrics"),
    [
        (("tcp://127.0.0.1:5555", "grpc://127.0.0.1:5556"), 9555),
        (("tcp://127.0.0.1:5555", "tcp://*:5556"), 9555),
        (("tcp://127.0.0.1:9554",), 9555),
    ],
)
def test_fronts_that_would_meet_at_a_port_are_refused(binds: tuple[str, ...], metrics: int) -> None:
    with pytest.raises(BadInput, match="leave 2 ports for each address of 2 fronts"):
        plan(*binds, metrics_port=metrics)


def test_ports_of_other_addresses_do_not_meet() -> None:
    assert len(plan("tcp://127.0.0.1:5555", "tcp://127.0.0.2:5556", "tcp://127.0.0.1:5557")) == 2


def test_what_a_front_is_told_arrives_whole() -> None:
    for setup in plan("tcp://127.0.0.1:5555", "shm://@box"):
        assert unpack_to_front(pack(setup)) == setup


def test_siblings_are_told_over_the_transport_that_is_asked_and_by_port_alone() -> None:
    siblings = Siblings()
    assert siblings.of(1) == ()
    siblings.learn([("tcp://0.0.0.0:5556", "shm://@a-1"), ("tcp://0.0.0.0:5557", "shm://@a-2")])
    assert siblings.of(0) == ("tcp://*:5556", "tcp://*:5557")
    assert siblings.of(1) == ("shm://@a-1", "shm://@a-2")
    assert sibling_url("grpcs://[fe80::1]:7000") == "grpcs://*:7000"


def test_metrics_are_told_of_where_whoever_reaches_a_listener_reaches_them() -> None:
    urls = ("tcp://127.0.0.1:5555", "tcp://10.0.0.5:5555", "tcp://0.0.0.0:5555", "grpc://[fd00::5]:5556", "shm://@a")
    for bound, told in (
        ("http://0.0.0.0:9555", [9555] * 5),
        ("http://127.0.0.1:9555", [9555, 0, 0, 0, 9555]),
        ("http://10.0.0.5:9555", [0, 9555, 0, 0, 0]),
        ("http://[fd00::5]:9555", [0, 0, 0, 9555, 0]),
    ):
        place = MetricsPlace()
        assert place.of(0) == 0
        place.learn(bound, urls)
        assert [place.of(number) for number in range(len(urls))] == told, bound


def test_the_network_is_judged_by_the_links_that_are_up(tmp_path: Path) -> None:
    for name, speed, state in (("eth0", "100000", "up"), ("eth1", "10000", "down"), ("lo", "", "unknown")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed").write_text(speed)
        (tmp_path / name / "operstate").write_text(state)
    (tmp_path / "virtual").mkdir()
    (tmp_path / "virtual" / "speed").write_text("-1")
    links = read_links(tmp_path)
    assert links == {"eth0": 100_000}
    line = describe_capacity([16, 8], links)
    assert line == (
        "2 fronts for 24 decoding threads (16, 8); 1,000 clips/s of 4x224x224 take 4.8 Gb/s as RGB, 2.4 as YUV; "
        "eth0 carries 100 Gb/s: at most 20,760 or 41,520 clips/s"
    )
    assert describe_capacity([2], {}).endswith("2.4 as YUV")
