"""What a scrape shows is the snapshot: every count of it, and the law that it obeys."""

from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry

from trainer_client.measures.metrics import FeedCollector
from trainer_client.measures.stats import FeedState, Ledger, snapshot

A, B = "tcp://a:1", "tcp://b:1"


def page() -> CollectorRegistry:
    ledger = Ledger(
        requested=20,
        hedged=3,
        hedges=Counter(hedge=1, first=2),
        picks=Counter(home=12, passed_on=5, two_choices=3),
        stalls=2,
        poisoned=Counter(corrupt_media=4),
        stood_in=6,
        outcomes=Counter({(A, "ok"): 13, (A, "superseded"): 2, (B, "deadline_exceeded"): 1}),
        discarded=1,
        used=9,
    )
    feed_state = FeedState(in_flight=4, held=3, deadline_s=2.5, servers={A: "up", B: "probing"})
    registry = CollectorRegistry()
    registry.register(FeedCollector(lambda: snapshot(ledger, feed_state, rank=1)))
    return registry


def test_what_keeps_a_run_alive_is_on_the_page() -> None:
    value = page().get_sample_value
    assert value("framefeed_client_hedged_total", {"rank": "1"}) == 3
    assert value("framefeed_client_hedges_total", {"winner": "hedge"}) == 1
    assert value("framefeed_client_hedges_total", {"winner": "first"}) == 2
    assert value("framefeed_client_picks_total", {"choice": "passed_on"}) == 5
    assert value("framefeed_client_stalls_total", {"rank": "1"}) == 2
    assert value("framefeed_client_attempt_deadline_seconds", {"rank": "1"}) == 2.5
    assert value("framefeed_client_server_state", {"server": B, "state": "probing"}) == 1
    assert value("framefeed_client_server_state", {"server": A, "state": "probing"}) is None
    assert value("framefeed_trainer_quarantined_samples_total", {"reason": "corrupt_media"}) == 4
    assert value("framefeed_trainer_stand_ins_total", {"rank": "1"}) == 6


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
