"""Writes the rules and alerts of deploy/prometheus as one resource that the Prometheus operator reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1]
TARGET = DEPLOY / "kubernetes/overlays/monitoring/prometheusrule.yaml"
_HEAD = "# Made of deploy/prometheus/rules.yml and alerts.yml: python -m deploy.kubernetes.prometheus_rule\n"


def prometheus_rule() -> str:
    """The resource as YAML."""
    groups: list[Any] = []
    for name in ("rules.yml", "alerts.yml"):
        groups += yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "framefeed"},
        "spec": {"groups": groups},
    }
    text: str = yaml.safe_dump(rule, sort_keys=False, width=120)
    return _HEAD + text


if __name__ == "__main__":
    TARGET.write_text(prometheus_rule())
