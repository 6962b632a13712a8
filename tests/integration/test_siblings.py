"""A loader that is given one address of a box uses all of its fronts, and no byte or place changes by it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from tests.clip_servers import ClipServer, Manner
from tests.integration.test_client import check, check_run, loader


@contextmanager
def box(fronts: int) -> Iterator[list[ClipServer]]:
    """Servers that name each other as fronts of one box do: as they are bound, not as they are reached."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ClipServer(Manner(instance=f"front-{i}"))) for i in range(fronts)]
        for server in servers:
            others = tuple(f"tcp://0.0.0.0:{other.port}" for other in servers if other is not server)
            server.manner = replace(server.manner, siblings=others)
        yield servers


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("form", ["tcp://127.0.0.1:{}", "dns+tcp://127.0.0.1:{}"])
def test_one_address_reaches_every_front_of_its_box(form: str) -> None:
    with box(3) as servers, loader(form.format(servers[0].port), steps=None, affinity_slack=None) as run:
        while not all(run.stats.requests.get((server.url, "ok")) for server in servers):
            check(next(run))
        assert sorted(run.stats.servers) == sorted(server.url for server in servers)
        assert run.stats.conserved


def test_the_run_goes_on_at_the_others_when_the_front_that_was_given_dies() -> None:
    with box(2) as (first, second), loader(first.url, steps=None, affinity_slack=None) as run:
        while not run.stats.requests.get((second.url, "ok")):
            check(next(run))
        first.stop()
        before = second.decode_calls
        for _ in range(30):
            check(next(run))
        assert second.decode_calls >= before + 60
        assert run.stats.conserved


def test_fronts_that_are_given_and_named_count_once() -> None:
    with box(2) as (first, second), loader(first.url, second.url) as run:
        check_run(run)
        assert sorted(run.stats.servers) == sorted((first.url, second.url))


def test_a_name_that_leads_nowhere_costs_no_clip(caplog: pytest.LogCaptureFixture) -> None:
    nobody, foreign = free_port(), free_port()
    names = (f"tcp://0.0.0.0:{nobody}", f"tcp://192.0.2.1:{foreign}", "grpc://0.0.0.0:1", "nonsense")
    with ClipServer(Manner(siblings=names)) as server, loader(server.url) as run, caplog.at_level(logging.WARNING):
        check_run(run)
        assert {url.rpartition(":")[0] for url in run.stats.servers} == {"tcp://127.0.0.1"}
        assert run.stats.retries == {}
    assert "192.0.2.1" not in caplog.text


def test_a_sibling_of_another_data_set_is_not_used() -> None:
    with ClipServer(Manner(dataset="data-2", other_pixels=True)) as other:
        names = (f"tcp://0.0.0.0:{other.port}",)
        with ClipServer(Manner(siblings=names)) as server, loader(server.url, dataset_identity="data-1") as run:
            check_run(run)
            assert not other.decode_calls
