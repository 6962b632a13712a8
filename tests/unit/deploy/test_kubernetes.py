"""The Kubernetes manifests as text: hardened, with the code's numbers, and KEDA's query is the code's formula.

tests/integration/test_kubernetes_tools.py builds and validates them with kubectl and the published schemas.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from decode_server.service.serve import DEFAULT_BIND, Serve
from deploy.kubernetes.prometheus_rule import TARGET, prometheus_rule
from framefeed.cli.fleet.policy import CALM_S, HEADROOM
from framefeed.grace import DRAIN_S, STOP_GRACE_S

KUBERNETES = Path(__file__).parents[3] / "deploy/kubernetes"
PROMTOOL = shutil.which("promtool")


def resources(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What the files of a folder say, by kind and name."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for file in sorted((KUBERNETES / folder).glob("*.yaml")):
        if file.name != "kustomization.yaml":
            for one in yaml.safe_load_all(file.read_text()):
                found[one["kind"], one["metadata"]["name"]] = one
    return found


BASE = resources("base")
PODS = {name: BASE[name]["spec"]["template"]["spec"] for name in (("StatefulSet", "decode"), ("Job", "trainer"))}
KEDA = resources("overlays/keda")["ScaledObject", "decode"]["spec"]


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_hardened(name: tuple[str, str]) -> None:
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
    assert not any("hostPath" in volume for volume in pod["volumes"])
    (videos,) = (mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "videos")
    assert videos["readOnly"] is True


def test_a_stop_has_the_time_that_the_code_names() -> None:
    for pod in PODS.values():
        assert pod["terminationGracePeriodSeconds"] == STOP_GRACE_S
    assert Serve(root=Path()).drain_s == DRAIN_S < STOP_GRACE_S


def test_trainers_find_servers_by_the_name_of_a_service_without_an_address() -> None:
    service = BASE["Service", "decode"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == BASE["StatefulSet", "decode"]["spec"]["selector"]["matchLabels"]
    port = int(DEFAULT_BIND.rpartition(":")[2])
    (serve,), (train,) = (pod["containers"] for pod in PODS.values())
    assert f"--bind=tcp://0.0.0.0:{port}" in serve["args"]
    assert f"--servers=dns+tcp://decode:{port}" in train["args"]
    ports = {one["name"]: one["containerPort"] for one in serve["ports"]}
    assert ports == {"clips": port, "metrics": Serve(root=Path()).metrics_port}
    assert {one["port"] for one in service["ports"]} == set(ports.values())


def test_a_server_is_public_only_with_keys() -> None:
    (serve,) = PODS["StatefulSet", "decode"]["containers"]
    words = " ".join(serve["args"])
    assert "--insecure" not in words
    assert re.search(r"--curve-key=/run/secrets/\S+ --curve-allow=/run/secrets/\S+", words)
    secrets = {kind for kind, _ in BASE if kind == "Secret"}
    assert secrets == set(), "keys are made by their owner, and lie in no repository"


def test_probes_ask_what_they_are_for() -> None:
    (serve,) = PODS["StatefulSet", "decode"]["containers"]
    asked = {name: serve[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert asked == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}


def test_only_trainers_reach_servers_and_servers_reach_nobody() -> None:
    policy = BASE["NetworkPolicy", "decode"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    clips, pages = policy["ingress"]
    trainers = BASE["Job", "trainer"]["spec"]["template"]["metadata"]["labels"]
    assert clips["from"] == [{"podSelector": {"matchLabels": trainers}}]
    assert "namespaceSelector" in pages["from"][0]


def test_a_disruption_takes_one_server() -> None:
    budget = BASE["PodDisruptionBudget", "decode"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == BASE["StatefulSet", "decode"]["spec"]["selector"]


def test_keda_gives_nothing_back_while_servers_drain_or_prometheus_is_silent() -> None:
    down = KEDA["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == CALM_S >= DRAIN_S
    assert KEDA["minReplicaCount"] >= 1
    (trigger,) = KEDA["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert (trigger["metricType"], KEDA["fallback"]["failureThreshold"]) == ("AverageValue", 3)
    assert KEDA["fallback"]["replicas"] >= KEDA["minReplicaCount"]
    target = KEDA["scaleTargetRef"]
    assert (target["kind"], target["name"]) in BASE


def query() -> str:
    (trigger,) = KEDA["triggers"]
    return str(trigger["metadata"]["query"])


def test_its_query_has_the_headroom_of_the_policy_and_asks_for_series_that_exist() -> None:
    assert f"{HEADROOM:g} * sum(" in query()
    known = (KUBERNETES.parent / "prometheus/rules.yml").read_text()
    assert all(f"record: {name}\n" in known for name in re.findall(r"job:\w+:\w+", query()))


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian's package prometheus)")
def test_its_query_counts_as_the_policy_does(tmp_path: Path) -> None:
    """Two servers that could give 300 clips/s of 900 wanted: ceil(1.1 * 900 / 150) = 7; and never none."""
    series = {
        "job:framefeed_trainer_demand_clips:rate1m": "900x2 0x2",
        "job:framefeed_server_achievable_clips:rate1m": "300x4",
        **{f'framefeed_server_state{{framefeed_server_state="ready",instance="{name}"}}': "1x4" for name in "ab"},
    }
    tests = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {"expr": f"ceil({query()})", "eval_time": at, "exp_samples": [{"labels": "{}", "value": value}]}
                    for at, value in (("1m", 7), ("5m", 1))
                ],
            }
        ],
    }
    file = tmp_path / "keda.yml"
    file.write_text(yaml.safe_dump(tests))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_has_the_rules_of_prometheus() -> None:
    assert TARGET.read_text() == prometheus_rule(), "python -m deploy.kubernetes.prometheus_rule writes it anew"
