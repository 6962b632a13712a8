"""What a trainer tells Prometheus of: the servers that it knows, and its own ranks, at addresses that lead there."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from trainer_client.measures.metrics import FeedCollector
from trainer_client.measures.stats import FeedState, Ledger, snapshot
from trainer_client.training.watch.status_targets import DECODE, TRAINER, ScrapeTargets

PAGES = {"tcp://10.0.0.6:5555": "10.0.0.6:9555", "tcp://10.0.0.6:5556": "10.0.0.6:9556", "shm://@a": "127.0.0.1:40001"}
EVERYWHERE = ["http://0.0.0.0:9556/metrics", "http://0.0.0.0:9557/metrics"]


def asked(path: str, urls: Sequence[str]) -> list[str]:
    registry = CollectorRegistry()
    targets = ScrapeTargets(registry, urls)
    state = FeedState(metrics_pages=PAGES)
    FeedCollector(lambda: snapshot(Ledger(), state, rank=0)).register(registry)  # a feed comes after the page
    page = targets.get(path)
    assert page is not None
    (group,) = json.loads(page[2])
    found: list[str] = group["targets"]
    return found


def test_servers_are_told_but_those_that_only_this_machine_reaches() -> None:
    assert asked(DECODE, EVERYWHERE) == ["10.0.0.6:9555", "10.0.0.6:9556"]
    assert asked(DECODE, ["http://127.0.0.1:9556/metrics"]) == sorted(PAGES.values())


def test_ranks_are_told_where_others_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(TRAINER, ["http://10.0.0.9:9556/metrics"]) == ["10.0.0.9:9556"]
    assert asked(TRAINER, ["http://[fd00::9]:9556/metrics"]) == ["[fd00::9]:9556"]
    for address, told in (("172.18.0.5", "172.18.0.5"), ("127.0.1.1", socket.gethostname())):
        monkeypatch.setattr(socket, "gethostbyname", lambda _, address=address: address)
        assert asked(TRAINER, EVERYWHERE) == [f"{told}:9556", f"{told}:9557"]


def test_before_there_is_a_feed_there_are_no_servers_and_no_error() -> None:
    page = ScrapeTargets(CollectorRegistry(), EVERYWHERE).get(DECODE)
    assert page is not None
    assert json.loads(page[2]) == [{"targets": [], "labels": {}}]
    assert ScrapeTargets(CollectorRegistry(), EVERYWHERE).get("/other") is None
