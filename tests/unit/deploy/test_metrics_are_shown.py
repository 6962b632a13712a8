"""Dashboards and rules against the code: no name that nothing exports, no metric that nothing shows, and the JSON that
Grafana reads is what the boards say.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from decode_server.service.metrics import Capacity, Metrics
from decode_server.service.process_metrics import ProcessCollector
from decode_server.service.refusals import Refusals
from deploy.grafana.dashboards import BOARDS, FOLDER, write
from deploy.grafana.panel import SOURCE_UID, Panel
from framefeed.cli.fleet.autoscaler import FleetSizes
from trainer_client.evaluate.score_metrics import ScoreMetrics
from trainer_client.measures.metrics import FeedCollector
from trainer_client.measures.stats import FeedState, Ledger, snapshot
from trainer_client.training.watch.train_metrics import TrainMetrics

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = [
    rule
    for file in ("rules.yml", "alerts.yml")
    for group in yaml.safe_load((DEPLOY / "prometheus" / file).read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for board in BOARDS for panel in board.panels]
EXPRESSIONS = [expression for panel in PANELS for expression, _ in panel.queries]
UNITS = {"percentunit", "ops", "s", "short", "bytes", "Bps"}
# Exported and on no dashboard.
NOT_SHOWN: dict[str, str] = {
    "framefeed_client_server_page_info": "where pages are, for top, the status page and Prometheus to find them",
    "framefeed_server_front_longest_turn_seconds": "the longest since the start says nothing of now",
}
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*framefeed[a-zA-Z0-9_:]*|framefeed_[a-zA-Z0-9_]+")


def families() -> list[Metric]:
    """What a server, a trainer and a fleet's autoscaler export before anything has happened."""
    server = Metrics(Capacity(queue=1, workers=1, buffer_pool_bytes=1, threads={0: 1}))
    server.registry.register(ProcessCollector(lambda: []))
    Refusals(server.registry)
    trainer = CollectorRegistry()
    TrainMetrics(trainer)
    ScoreMetrics(trainer)
    state = FeedState(servers={"tcp://a:1": "up"}, metrics_pages={"tcp://a:1": "a:9555"})
    trainer.register(FeedCollector(lambda: snapshot(Ledger(), state, rank=0)))
    fleet = CollectorRegistry()
    FleetSizes(fleet)
    return [
        family
        for registry in (server.registry, trainer, fleet)
        for family in registry.collect()
        if family.name.startswith("framefeed_")
    ]


FAMILIES = families()
_SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
EXPORTED = {family.name + suffix: family.type for family in FAMILIES for suffix in _SUFFIXES.get(family.type, [""])}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}


def names(expression: str) -> set[str]:
    """Metrics that an expression asks for: without the labels' names that are like them."""
    bare = re.sub(r"\b(by|on|without|ignoring) \([^)]*\)", "", re.sub(r"\{[^}]*\}", "", expression))
    return set(_NAME.findall(bare))


def test_every_name_is_exported_or_recorded() -> None:
    asked = {name for expression in [*EXPRESSIONS, *(rule["expr"] for rule in RULES)] for name in names(expression)}
    assert len(asked) > 60
    assert asked - EXPORTED.keys() - RECORDED.keys() == set()


def test_every_exported_metric_is_shown_or_has_a_reason() -> None:
    shown = {name for expression in EXPRESSIONS for name in names(expression)}
    shown |= {name for record in shown & RECORDED.keys() for name in names(RECORDED[record])}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    missing = {name for name in EXPORTED if re.sub(r"_(bucket|sum|count)$", "", name) not in families}
    assert missing == NOT_SHOWN.keys()
    assert all(NOT_SHOWN.values())


def test_the_committed_json_is_what_the_boards_say(tmp_path: Path) -> None:
    write(tmp_path)
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert committed == {path.name: path.read_text() for path in tmp_path.glob("*.json")}, (
        "run python -m deploy.grafana.dashboards"
    )


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_says_what_it_means_in_a_unit(board: object) -> None:
    body = json.loads((FOLDER / f"{board.uid}.json").read_text())  # type: ignore[attr-defined]
    ids = [panel["id"] for panel in body["panels"]]
    assert len(set(ids)) == len(ids)
    assert body["editable"] is False
    for panel in body["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert len(panel["description"]) > 15, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"] == {"type": "prometheus", "uid": SOURCE_UID}
        assert panel["targets"], panel["title"]


def test_the_data_source_has_that_id_and_the_scrape_interval() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["uid"], source["jsonData"]["timeInterval"]) == (SOURCE_UID, scraped)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_expression_parses_and_counters_stand_under_a_rate(panel: Panel) -> None:
    for expression, legend in panel.queries:
        promql_parser.parse(expression.replace("$__rate_interval", "1m"))
        assert legend
        for name in names(expression) & EXPORTED.keys():
            if EXPORTED[name] == "counter" and panel.unit != "short":
                assert f"(rate({name}" in expression or f"(increase({name}" in expression, name


def test_every_alert_says_what_it_is_and_what_to_do() -> None:
    alerts = [rule for rule in RULES if "alert" in rule]
    assert len(alerts) >= 9
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert len(alert["annotations"]["summary"]) > 20
        assert len(alert["annotations"]["runbook"]) > 40


def test_alerts_are_tried_on_series_as_they_are_exported() -> None:
    labels = {sample.name: sample.labels.keys() for family in FAMILIES for sample in family.samples}
    tests = yaml.safe_load((Path(__file__).parent / "alerts.test.yml").read_text())["tests"]
    tried = {series["series"] for test in tests for series in test["input_series"]}
    assert len(tried) > 20
    for series in tried:
        name, _, rest = series.partition("{")
        has = set(re.findall(r"(\w+)=", rest)) - {"job", "instance"}
        if name != "up":
            assert has == set(labels[name]), series


def test_a_page_of_a_trainer_has_what_may_happen_at_zero() -> None:
    silent = [family.name for family in FAMILIES if family.type in ("counter", "histogram") and not family.samples]
    assert silent == ["framefeed_server_run_requests"]  # of runs that nobody knows yet


def test_a_page_of_a_server_has_what_may_happen_at_zero() -> None:
    metrics = Metrics(Capacity(queue=1, workers=1, buffer_pool_bytes=1, threads={0: 1}))
    page = metrics.render().decode()
    for family in metrics.registry.collect():
        if family.name != "framefeed_server_run_requests" and family.type in ("counter", "histogram"):
            assert re.search(rf"^{family.name}\S* ", page, re.M), f"{family.name} begins with its first event"
