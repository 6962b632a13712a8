"""What a scrape shows is the snapshot: every count of it, and the law that it obeys."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from trainer_client.measures.metrics import FeedCollector
from trainer_client.measures.stats import Durations, FeedState, Ledger, snapshot
from trainer_client.measures.wait import Wait, to_ns

A, B = "tcp://a:1", "tcp://b:1"


def page(*, per_server: bool = False) -> CollectorRegistry:
    ledger = Ledger(
        requested=20,
        hedged=3,
        hedges=Counter(hedge=1, first=2),
        picks=Counter(home=12, passed_on=5, two_choices=3),
        stalls=2,
        poisoned=Counter(corrupt_media=4),
        stood_in=6,
        outcomes=Counter({(A, "ok"): 13, (A, "superseded"): 2, (B, "deadline_exceeded"): 1}),
        shunned=Counter(not_here=3),
        durations={
            A: Durations(counts=[0, 2, *[0] * 13], sum_s=0.004),
            B: Durations(counts=[1, *[0] * 14], sum_s=1e-4),
        },
        discarded=1,
        used=9,
    )
    feed_state = FeedState(
        in_flight=4,
        held=3,
        held_limit=64,
        window_clips=16,
        inflight_limit_bytes=9000,
        deadline_s=2.5,
        servers={A: "up", B: "probing"},
        metrics_pages={A: "a:9555"},
        identity={"run": "r", "dataset": "d", "fingerprint": "f1"},
        wait=Wait(began_ns=to_ns(5), ended_ns=to_ns(8)),
    )
    registry = CollectorRegistry()
    registry.register(FeedCollector(lambda: snapshot(ledger, feed_state, rank=1), per_server=per_server))
    return registry


def test_what_keeps_a_run_alive_is_on_the_page() -> None:
    value = page().get_sample_value
    assert value("framefeed_client_hedged_total", {"rank": "1"}) == 3
    assert value("framefeed_client_hedges_total", {"rank": "1", "winner": "hedge"}) == 1
    assert value("framefeed_client_hedges_total", {"rank": "1", "winner": "first"}) == 2
    assert value("framefeed_client_picks_total", {"rank": "1", "choice": "passed_on"}) == 5
    assert value("framefeed_client_stalls_total", {"rank": "1"}) == 2
    assert value("framefeed_client_attempt_deadline_seconds", {"rank": "1"}) == 2.5
    assert value("framefeed_client_server_state", {"rank": "1", "server": B, "state": "probing"}) == 1
    assert value("framefeed_client_server_state", {"rank": "1", "server": A, "state": "probing"}) is None
    assert value("framefeed_client_server_page_info", {"rank": "1", "server": A, "page": "a:9555"}) == 1
    assert value("framefeed_trainer_quarantined_samples_total", {"rank": "1", "reason": "corrupt_media"}) == 4
    assert value("framefeed_trainer_stand_ins_total", {"rank": "1"}) == 6


def test_every_series_says_whose_it_is_and_every_depth_its_limit() -> None:
    samples = [sample for family in page(per_server=True).collect() for sample in family.samples]
    assert samples
    assert all(sample.labels["rank"] == "1" for sample in samples)
    value = page().get_sample_value
    assert value("framefeed_client_held_limit_clips", {"rank": "1"}) == 64
    assert value("framefeed_client_window_requests", {"rank": "1"}) == 16
    assert value("framefeed_client_inflight_limit_bytes", {"rank": "1"}) == 9000
    assert value("framefeed_client_shunned_servers_total", {"rank": "1", "reason": "not_here"}) == 3
    info = {"rank": "1", "version": version("framefeed"), "run": "r", "dataset": "d", "fingerprint": "f1"}
    assert value("framefeed_client_build_info", info) == 1


def test_what_may_be_counted_is_on_the_page_before_it_happens() -> None:
    registry = CollectorRegistry()
    state = FeedState(servers={A: "up"})
    registry.register(FeedCollector(lambda: snapshot(Ledger(), state, rank=0)))
    for name, label, value in (
        ("client_dropped", "reason", "superseded"),
        ("client_retries", "reason", "deadline_exceeded"),
        ("client_dropped_replies", "reason", "malformed"),
        ("client_hedges", "winner", "neither"),
        ("client_picks", "choice", "home"),
        ("client_shunned_servers", "reason", "dataset"),
        ("trainer_quarantined_samples", "reason", "corrupt_media"),
        ("trainer_data_wait_seconds", "cause", "no_server"),
    ):
        assert registry.get_sample_value(f"framefeed_{name}_total", {"rank": "0", label: value}) == 0, name
    for outcome in ("ok", "server_lost", "unsent", "superseded"):
        asked = {"rank": "0", "server": A, "outcome": outcome}
        assert registry.get_sample_value("framefeed_client_requests_total", asked) == 0


def test_a_wait_is_on_the_page_while_it_lasts() -> None:
    value = page().get_sample_value
    assert value("framefeed_trainer_waiting_seconds", {"rank": "1"}) == 3
    assert value("framefeed_trainer_data_wait_seconds_total", {"rank": "1", "cause": "plan"}) == 3


def test_durations_are_one_histogram_unless_each_server_s_is_asked_for() -> None:
    name = "framefeed_client_request_duration_seconds"
    value = page().get_sample_value
    assert value(f"{name}_count", {"rank": "1"}) == 3
    assert value(f"{name}_bucket", {"rank": "1", "le": "0.001"}) == 1
    assert value(f"{name}_sum", {"rank": "1"}) == 0.0041
    value = page(per_server=True).get_sample_value
    assert value(f"{name}_count", {"rank": "1", "server": A}) == 2
    assert value(f"{name}_count", {"rank": "1"}) is None


def test_the_law_of_conservation_can_be_checked_on_the_page() -> None:
    families = {family.name: family.samples for family in page().collect()}
    total = {
        name: sum(s.value for s in samples if not s.name.endswith("_created")) for name, samples in families.items()
    }
    assert total["framefeed_client_requested"] == (
        total["framefeed_trainer_clips"]
        + total["framefeed_client_dropped"]
        + total["framefeed_client_inflight_requests"]
        + total["framefeed_client_held_clips"]
    )


def test_names_follow_the_practice() -> None:
    for family in page().collect():
        assert family.name.startswith("framefeed_")
        for sample in family.samples:
            counts = sample.name.endswith(("_total", "_bucket", "_count", "_sum"))
            assert counts == (family.type in ("counter", "histogram")), sample.name
            assert not {"file", "video", "path"} & set(sample.labels)
