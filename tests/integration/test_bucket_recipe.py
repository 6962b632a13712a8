"""A recipe over clips of three sizes and two lengths from a real server: losses on one rank, two, and resumed; and over
clips of many lengths in one batch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.cli.command import main
from tests.integration.made_roots import root_of_shapes, small_server
from tests.integration.serving import Server
from tests.integration.test_train import losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SIZES = {"wide": (192, 128), "high": (128, 192), "square": (160, 160)}
SPANS_S = [(at / 2, at / 2 + 0.5) for at in range(4)] + [(at / 2, at / 2 + 2.0) for at in range(4)]
BUCKETS = ("buckets=true", "lengths=[4,8]", "frames_per_s=4", "longest_px=64", "sampling=segments")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = root_of_shapes(tmp_path_factory.mktemp("shapes"), SIZES, frames=120)
    rows = [
        {"video": name, "start": start_s, "end": end_s, "label": "long" if end_s - start_s > 1 else "short"}
        for name in SIZES
        for start_s, end_s in SPANS_S
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("logs"), root, threads=1) as one:
        yield one


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def train(root: Path, server: Server, out: Path, *more: str) -> int:
    places = [str(root), "--out", str(out), "--servers", server.endpoint, f"data.path={root / 'train.jsonl'}"]
    small = ["--batch-clips", "4", "--log-every", "1", "--prefetch-batches", "2", "epochs=2", "steps=null"]
    return main(["train", "classify_tiny", *places, *small, *more])


def test_a_recipe_over_buckets_is_one_run_on_one_rank_two_and_resumed(
    root: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(root, server, tmp_path / "one", *BUCKETS) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "6 buckets: 4 of (4, 48, 32), 4 of (4, 48, 48), 4 of (4, 72, 32), 4 of (8, 48, 32)" in said
    whole = losses(tmp_path / "one")
    assert len(whole) == 2 * len(SIZES) * 2
    assert all(math.isfinite(loss) for loss in whole)
    assert train(root, server, tmp_path / "two", *BUCKETS, "--nproc", "2") == 0
    assert losses(tmp_path / "two") == pytest.approx(whole, abs=1e-5)
    assert train(root, server, tmp_path / "parts", *BUCKETS, "--max-seconds", "0.01") == 0
    assert 0 < len(losses(tmp_path / "parts")) < len(whole) // 2, "within the first epoch"
    assert train(root, server, tmp_path / "parts", *BUCKETS, "--resume") == 0
    assert losses(tmp_path / "parts") == whole


def test_a_recipe_over_padded_clips_computes_no_padding(
    root: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a second has 4 frames 4 apart, two seconds 8; micro-batches see what the whole batch does."""
    clips = ("sampling=dense", "stride_frames=4", "short=pad")
    assert train(root, server, tmp_path / "whole", *clips) == 0, capsys.readouterr().err
    assert train(root, server, tmp_path / "micro", *clips, "micro_clips=2") == 0
    padded = losses(tmp_path / "whole")
    assert losses(tmp_path / "micro") == pytest.approx(padded, abs=1e-5)
    capsys.readouterr()
    assert train(root, server, tmp_path / "compiled", *clips, "--compiled", "on") == 2
    assert "--short pad: compiled blocks are made anew for each batch" in capsys.readouterr().err
    assert train(root, server, tmp_path / "held", *clips[:2]) == 0
    assert losses(tmp_path / "held") != pytest.approx(padded, abs=1e-4)
