"""framefeed targets: what a registry holds is what Prometheus gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed.server_entry import SUFFIX, ServerEntry


def enter(registry: Path, name: str, metrics_url: str) -> None:
    entry = ServerEntry(
        server=name,
        endpoints=("tcp://10.0.0.6:5555",),
        host="h",
        state="ready",
        beat=1,
        lease_s=10.0,
        sockets=(0,),
        threads=2,
        fingerprint="f",
        metrics_url=metrics_url,
        pid=1,
    )
    (registry / f"{name}{SUFFIX}").write_text(entry.pack())


def test_every_server_of_the_registry_is_a_target_and_nothing_else_is(tmp_path: Path) -> None:
    out = tmp_path / "decode.json"
    enter(tmp_path, "b", "http://10.0.0.6:9555/metrics")
    enter(tmp_path, "a", "http://[fd00::6]:9555/metrics")
    (tmp_path / f"half{SUFFIX}").write_text('{"framefeed_server":1')
    assert main(["targets", str(tmp_path), "--out", str(out), "--every-s", "0"]) == 0
    assert json.loads(out.read_text()) == [{"targets": ["10.0.0.6:9555", "[fd00::6]:9555"], "labels": {}}]


def test_a_registry_that_is_not_there_and_a_file_that_cannot_be_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["targets", str(tmp_path / "no"), "--out", str(tmp_path / "x"), "--every-s", "0"]) == 2
    assert main(["targets", str(tmp_path), "--out", str(tmp_path / "no/x"), "--every-s", "0"]) == 1
    assert main(["targets", str(tmp_path), "--out", str(tmp_path / "x"), "--every-s", "nan"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
