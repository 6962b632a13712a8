"""framefeed targets: what a registry holds is what Prometheus gets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from framefeed.cli.command import main
from framefeed.cli.targets import Targets
from framefeed.server_entry import SUFFIX, ServerEntry, host_id


def enter(registry: Path, name: str, metrics_url: str, host: str = "h") -> None:
    entry = ServerEntry(
        server=name,
        endpoints=("tcp://10.0.0.6:5555",),
        host=host,
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
    assert main(["targets", str(tmp_path), "--out", str(tmp_path / "x"), "--every-s", "inf"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4


@pytest.mark.parametrize(
    "strange",
    [
        "http://me:hunter2@10.0.0.6:9555/metrics",
        "https://10.0.0.6:9555/metrics",
        "file:///etc/passwd",
        "http://10.0.0.6/metrics",
        "http://10.0.0.6:99999/metrics",
        "http://0.0.0.0:9555/metrics",
        "http://[::]:9555/metrics",
        "http://[::zz]:9555/metrics",
        "http://224.0.0.1:9555/metrics",
        "http://evil host:9555/metrics",
        "http://b\u00f6x:9555/metrics",
        "http://${SECRET}:9555/metrics",
        "http://-x:9555/metrics",
        "http://\x1b[2J:9555/metrics",
        "http://127.0.0.1:9555/metrics",  # of another machine's own
        "http://localhost:9555/metrics",
    ],
)
def test_what_is_no_place_of_a_page_is_left_out_and_said(
    strange: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "decode.json"
    enter(tmp_path, "good", "http://box-1.lan:9555/metrics")
    enter(tmp_path, "none", "")
    enter(tmp_path, "odd", strange)
    assert main(["targets", str(tmp_path), "--out", str(out), "--every-s", "0"]) == 0
    assert json.loads(out.read_text())[0]["targets"] == ["box-1.lan:9555"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"odd{SUFFIX} is left out: its metrics page")
    assert line.isprintable()
    assert "hunter2" not in line


def test_a_page_on_loopback_is_a_target_on_its_own_machine(tmp_path: Path) -> None:
    enter(tmp_path, "near", "http://127.0.0.1:9555/metrics", host=host_id())
    out = tmp_path / "decode.json"
    assert main(["targets", str(tmp_path), "--out", str(out), "--every-s", "0"]) == 0
    assert json.loads(out.read_text())[0]["targets"] == ["127.0.0.1:9555"]


def test_what_is_wrong_is_said_once_and_a_registry_that_goes_away_leaves_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, out = tmp_path / "servers", tmp_path / "decode.json"
    registry.mkdir()
    enter(registry, "a", "http://10.0.0.6:9555/metrics")
    (registry / f"half{SUFFIX}").write_text("{")
    turns = Targets(registry=registry, out=out).turns()
    next(turns)
    next(turns)
    registry.rename(tmp_path / "away")
    next(turns)
    next(turns)
    assert json.loads(out.read_text())[0]["targets"] == ["10.0.0.6:9555"]
    (tmp_path / "away").rename(registry)
    (registry / f"a{SUFFIX}").unlink()
    next(turns)
    assert json.loads(out.read_text())[0]["targets"] == []
    said = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in said] == [f"half{SUFFIX}", str(registry), f"half{SUFFIX}"]


def test_a_device_or_a_folder_is_no_place_for_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for out, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")):
        assert main(["targets", str(tmp_path), "--out", str(out), "--every-s", "0"]) == 2
        assert f"is {kind}, wanted a file" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()
