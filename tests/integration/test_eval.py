"""The verb `eval` through a real server: the same JSON on one and two processes, views averaged, losses told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from framefeed.cli.command import main
from framefeed.manifest import read_manifest
from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import VideoViT, ViTConfig
from framefeed_models.weights.saved_model import save_model
from tests.integration.made_roots import root_of_lengths, small_server
from tests.integration.serving import Server
from trainer_client.evaluate.collect import collect
from trainer_client.evaluate.views_of_clips import ViewOptions
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample
from trainer_client.text.narration_bpe import NarrationTokenizer
from trainer_client.training.device_feed import DeviceBatch
from trainer_client.training.ranks import Ranks
from trainer_client.views import Views

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GRID = TubeletGrid(frames=2, height_px=32, width_px=32, tubelet_frames=1, patch_px=16)
STACK = StackConfig(width=32, depth=1, heads=2)
VIDEOS = {"a": 60, "b": 90, "c": 45, "bad": 60}
TEXTS = ("opens a door", "closes a door", "cuts an onion", "washes a pan", "takes a plate")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "framefeed.cli", "eval")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos; of one the bytes were changed after it was indexed."""
    return root_of_lengths(tmp_path_factory.mktemp("videos"), VIDEOS)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("server"), root) as server:
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual encoder with its tokenizer, a classifier, and tables of three videos and of all."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    tokenizer = NarrationTokenizer.train(TEXTS, vocabulary=300, context=16)
    text = TextConfig(
        stack=StackConfig(width=32, depth=1, heads=2, causal=True), vocabulary=tokenizer.layout.vocabulary, context=16
    )
    video = ViTConfig(grid=GRID, stack=STACK)
    dual = DualEncoderConfig(video=video, text=text, joint=16)
    save_model(folder / "dual", DualEncoder(dual).state_dict(), dual)
    tokenizer.save(folder / "dual" / "tokenizer.json")
    classifier = ClassifierConfig(encoder=video, heads={"label": 3}, head_std=1.0)
    save_model(folder / "classifier", Classifier(classifier).state_dict(), classifier)
    rows = [
        {"video": video, "start": at * 0.25, "end": at * 0.25 + 0.5, "text": TEXTS[at % 5], "label": at % 3}
        for video in ("a", "b", "c")
        for at in range(5)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps({**row, "label": None}) + "\n" for row in rows))
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lost = [{"video": "bad", "start": 0, "end": 1, "label": 0}, {"video": "gone", "label": 1}]
    (folder / "lost.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *lost]))
    return folder


Command = Callable[[str, str, str], list[str]]


@pytest.fixture
def command(made: Path, root: Path, server: Server, tmp_path: Path) -> Command:
    """(model, table, name of the JSON) → the options of a verb that scores them."""

    def options(model: str, table: str, out: str) -> list[str]:
        data = ["--data.kind", "table", "--data.path", str(made / table), "--data.cache", str(made / "cache")]
        how = ["--servers", server.endpoint, "--batch-clips", "4", "--threads", "1", "--device", "cpu"]
        return [str(made / model), str(root), *data, *how, "--out", str(tmp_path / out)]

    return options


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_two_processes_say_what_one_says(
    command: Command, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *command("dual", "texts.jsonl", "one.json")]) == 0
    told = capsys.readouterr().out
    two = command("dual", "texts.jsonl", "two.json")
    ended = subprocess.run(
        [sys.executable, *TORCHRUN, *two],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    found = read(tmp_path / "one.json")
    assert found["clips"] == {"rows": 15, "samples": 15, "scored": 15, "stood_in": 0, "missing": 0, "left_out": {}}
    assert found["data"]["videos"] == read_manifest(root).identity
    assert "15 of 15 rows" in told
    assert found["weights"]["fingerprint"] in told
    assert found["data"]["fingerprint"] in told
    assert 0.0 <= found["scores"]["R@1_v2t"] <= 1.0


def test_a_clip_that_nobody_can_give_is_in_no_score_and_in_every_line(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, lost = command("classifier", "labels.jsonl", "whole.json"), command("classifier", "lost.jsonl", "lost.json")
    assert main(["eval", *whole]) == 0
    assert main(["eval", *lost]) == 2, "a row of a video that is not there is refused"
    assert "'gone'" in capsys.readouterr().err
    assert main(["eval", *lost, "--data.absent", "leave_out", "--poison-budget", "1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert read(tmp_path / "lost.json")["scores"] == read(tmp_path / "whole.json")["scores"]
    assert read(tmp_path / "lost.json")["clips"] == {
        "rows": 17,
        "samples": 16,
        "scored": 15,
        "stood_in": 1,
        "missing": 1,
        "left_out": {"not in the manifest": 1},
    }
    assert told.count("15 of 17 rows") == len(read(tmp_path / "lost.json")["scores"])


def test_five_by_three_views_are_averaged_plainly(root: Path, server: Server) -> None:
    samples = [Sample(video=video, start_s=0.0, end_s=1.4) for video in ("a", "b", "c")]
    policy = ViewOptions(rule="videomae_views", windows=5, boxes=3, stride=2).policy("kinetics", GRID)
    assert policy.views == 15
    seen: list[np.ndarray[Any, Any]] = []

    def rows_of(batch: DeviceBatch) -> torch.Tensor:
        rows = batch.pixels.float().mean(dim=(1, 2, 3))
        seen.extend(rows.double().numpy()[batch.batch.epochs == 0])
        return rows

    loading = LoaderOptions(servers=[server.endpoint], batch_clips=8, epochs=1, shuffle=False)
    with ClipLoader(Views(samples, views=15), policy, loading) as loader:
        found = collect(loader, rows_of, samples=3, views=15, ranks=Ranks(), device=torch.device("cpu"))
    assert found.views_N.tolist() == [15] * 3
    plain = np.array(seen).reshape(3, 15, -1).mean(axis=1)
    assert np.allclose(found.mean_NR, plain, rtol=0, atol=1e-9)
    assert len(np.unique(np.array(seen)[:15], axis=0)) > 5, "views differ"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("--data.split", "test", "--data.path", "FOLDER"), "has none of test.csv"),
        (
            ("--views.windows", "2", "--views.rule", "avion_sparse"),
            "and the rule avion_sparse has one window of a sample",
        ),
        (("--model.pixels", "grey"), "--pixels is 'grey'"),
        (("--tokenizer", "FOLDER/labels.jsonl"), "tokenizer .* is none"),
    ],
)
def test_what_cannot_be_scored_is_told_in_one_line(
    command: Command, made: Path, change: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = command("dual", "texts.jsonl", "x.json")
    changed = [part.replace("FOLDER", str(made)) for part in change]
    assert main(["eval", *base, *changed]) in (1, 2)
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert re.search(line, said), said


def test_a_model_without_a_score_is_refused(command: Command, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = ViTConfig(grid=GRID, stack=STACK)
    save_model(made / "encoder", VideoViT(encoder).state_dict(), encoder)
    assert main(["eval", *command("encoder", "labels.jsonl", "x.json")]) == 2
    assert "wanted a classifier or a dual encoder" in capsys.readouterr().err
