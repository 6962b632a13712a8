"""A recipe over two data sets with a policy each, from a real server: the same losses undisturbed and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.cli.command import main
from tests.integration.made_roots import root_of_scenes, small_server
from tests.integration.serving import Server
from tests.integration.test_train import losses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = 12


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of_scenes(tmp_path_factory.mktemp("scenes"), train=24, val=8)


@pytest.fixture(scope="module")
def server(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("logs"), scenes, threads=1) as one:
        yield one


def train(scenes: Path, server: Server, out: Path, *more: str) -> int:
    """A step is of 8 clips, an epoch of 24 own samples and 12 of another data set of 8."""
    mix = [
        {
            "data": {"kind": "table", "path": str(scenes / "val.jsonl"), "cache": str(out.parent / "cache")},
            "weight": 0.5,
            "clips": {"sampling": "segments", "crop": "resized_centre", "hflip": 0.5},
        }
    ]
    places = [str(scenes), "--out", str(out), "--servers", server.endpoint, f"data.path={scenes / 'train.jsonl'}"]
    small = ["--batch-clips", "8", "--log-every", "1", "--prefetch-batches", "2", f"data.cache={out.parent / 'cache'}"]
    return main(["train", "contrastive_tiny", *places, *small, f"mix={json.dumps(mix)}", *more])


def test_a_mixture_that_is_stopped_and_resumed_is_the_undisturbed_run(
    scenes: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ("--steps", str(STEPS))
    assert train(scenes, server, tmp_path / "whole", *steps) == 0, capsys.readouterr().err
    assert train(scenes, server, tmp_path / "parts", *steps, "--max-seconds", "0.01") == 0
    done = len(losses(tmp_path / "parts"))
    assert 0 < done < STEPS
    assert train(scenes, server, tmp_path / "parts", *steps, "--resume") == 0
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == STEPS
    said = json.loads((tmp_path / "whole" / "run.json").read_text())["config"]
    assert said["samples"] == 24 + 12
    assert [part["weight"] for part in said["mix"]] == [0.5]
