"""Prometheus' own tool on the configuration and the rules; alerts.test.yml has the faults that alerts are made for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from trainer_client.training.watch.status_targets import DECODE, TRAINER

HERE = Path(__file__).parent
PROMETHEUS = Path(__file__).parents[3] / "deploy/prometheus"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus)")


def promtool(*words: str) -> str:
    done = subprocess.run([str(PROMTOOL), *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_configuration_and_its_rules_are_valid() -> None:
    assert "2 rule files found" in promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs_promtool
def test_alerts_fire_in_their_faults_and_in_no_calm_run() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(HERE / "alerts.test.yml"))


def test_each_alert_has_its_fault() -> None:
    alerts = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    tried = (HERE / "alerts.test.yml").read_text()
    assert [alert["alert"] for alert in alerts if f'alertname="{alert["alert"]}"' not in tried] == []


def test_replicas_are_found_by_name_and_never_as_one_target() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        assert "static_configs" not in job  # of a scaled service: a random replica at each scrape
        assert job["file_sd_configs"][0]["files"] == [f"targets/{job['job_name']}*.json"]
    *scaled, autoscaler = config["scrape_configs"]
    for job in scaled:
        (names,) = job["dns_sd_configs"]
        assert names["names"] == [job["job_name"]]
    assert autoscaler.keys() == {"job_name", "file_sd_configs"}  # one process, on no name of Compose's
    told = [job["http_sd_configs"][0]["url"] for job in scaled]
    assert told == [f"http://trainer:9556{path}" for path in (DECODE, TRAINER)]


def test_each_alert_is_in_the_docs() -> None:
    alerts = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
    told = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    assert [alert["alert"] for alert in alerts if f"| `{alert['alert']}` |" not in told] == []
