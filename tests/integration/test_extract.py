"""The verb `extract` over a real server: killed, resumed or on two processes it leaves the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from framefeed.cli.verbs import parse_options
from framefeed.errors import BadInput
from framefeed_models.block import StackConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.saved_model import save_model
from tests.integration.made_roots import root_of_lengths, small_server
from tests.integration.serving import Server, wait_until
from trainer_client.extract.content import CONTENT
from trainer_client.extract.extract import Extract
from trainer_client.training.folder_lock import only_user

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GRID = TubeletGrid(frames=4, height_px=32, width_px=32, tubelet_frames=2, patch_px=16)
STACK = StackConfig(width=32, depth=1, heads=2)
VIDEOS = {"a": 60, "b": 90, "c": 45, "one": 1, "bad": 60}
EXTRACT = ("-m", "framefeed.cli", "extract")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of several lengths, one of a single frame; of one the bytes were changed after it was indexed."""
    return root_of_lengths(tmp_path_factory.mktemp("videos"), VIDEOS)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("server"), root) as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual encoder with random weights."""
    torch.manual_seed(0)
    text = TextConfig(stack=StackConfig(width=32, depth=1, heads=2, causal=True), vocabulary=300, context=16)
    config = DualEncoderConfig(video=ViTConfig(grid=GRID, stack=STACK), text=text, joint=16)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, DualEncoder(config).state_dict(), config)
    return folder


def options(model: Path, root: Path, server: str, out: Path, *more: str) -> list[str]:
    fixed = ("--window-s", "0.5", "--stride-s", "0.05", "--shard-rows", "8", "--batch-clips", "4", "--threads", "1")
    where = ("--device", "cpu", "--servers", server, "--poison-budget", "60")
    return [str(model), str(root), "--out", str(out), *fixed, *where, *more]


def extract(*args: str) -> None:
    parse_options(Extract, list(args), name="extract").run()


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def undisturbed(model: Path, root: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("features") / "out"
    extract(*options(model, root, server.endpoint, out))
    return out


def test_each_window_has_its_row(undisturbed: Path) -> None:
    parts = [load_file(path) for path in sorted(undisturbed.glob("features-*"))]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert rows["index"].tolist() == list(range(len(rows["index"])))
    assert (rows["end_s"] > rows["start_s"]).all()
    lost = rows["found"] == 0
    assert 0 < lost.sum() < 60, "the windows of the damaged video"
    assert np.isnan(rows["features"][lost]).all()
    assert np.isfinite(rows["features"][~lost]).all()
    assert all((rows[name][~lost] >= 0).all() for name in CONTENT)
    assert len(np.unique(rows["features"][~lost], axis=0)) > 20


def test_killed_at_any_shard_it_goes_on_to_the_same_bytes(
    model: Path, root: Path, server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    wanted = shards(undisturbed)
    command = [sys.executable, *EXTRACT, *options(model, root, server.endpoint, tmp_path / "out")]
    kills = 0
    for number in (1, 5, 9):
        first = tmp_path / "out" / sorted(wanted)[number]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
            wait_until("a shard", lambda at=first, run=run: at.exists() or run.poll() is not None, patience_s=60)
            kills += run.poll() is None
            os.kill(run.pid, signal.SIGKILL)
            run.communicate(timeout=60)
    assert kills, "it was killed while it ran"
    assert set(shards(tmp_path / "out")) <= set(wanted), "a killed writer leaves nothing else"
    extract(*options(model, root, server.endpoint, tmp_path / "out"))
    assert shards(tmp_path / "out") == wanted
    extract(*options(model, root, server.endpoint, tmp_path / "out"))
    assert shards(tmp_path / "out") == wanted, "all is there already"


def test_two_processes_leave_what_one_leaves(
    model: Path, root: Path, server: Server, undisturbed: Path, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, *TORCHRUN, *EXTRACT, *options(model, root, server.endpoint, tmp_path / "out")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert shards(tmp_path / "out") == shards(undisturbed)


@pytest.mark.parametrize("frames", [1, 3, 7])
def test_any_number_of_frames(model: Path, root: Path, server: Server, tmp_path: Path, frames: int) -> None:
    more = ("--frames", str(frames), "--feature", "tokens", "--sampling", "dense", "--stride-s", "0.5")
    extract(*options(model, root, server.endpoint, tmp_path / "out", *more))
    said = json.loads((tmp_path / "out" / "extract.json").read_text())
    tokens = -(-frames // 2) * 2 * 2
    assert said["frames"] == frames
    assert said["shape"] == [tokens, 32]
    part = load_file(next((tmp_path / "out").glob("features-00000-*")))
    assert part["features"].shape == (8, tokens, 32)
    assert (part["motion_intensity"] > 0).all() == (frames > 1)


def test_annotated_clips_in_the_joint_space_as_parquet(model: Path, root: Path, server: Server, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "clips.csv").write_text("video,start,end,text\na,0.5,1.5,opens a door\nb,0,2.9,cuts\nb,1,2,cuts\n")
    spans = ("--annotations", str(tmp_path / "clips.csv"), "--feature", "joint", "--format", "parquet")
    extract(*options(model, root, server.endpoint, tmp_path / "out", *spans))
    (path,) = (tmp_path / "out").glob("*.parquet")
    table = parquet.read_table(path).to_pydict()
    assert list(zip(table["video"], table["start_s"], table["end_s"], strict=True)) == [
        *(("a", 0.5, 1.5), ("b", 0.0, 2.9), ("b", 1.0, 2.0))
    ]
    assert np.linalg.norm(np.array(table["features"]), axis=1) == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--frames", "0"), "--frames is 0, wanted at least 1"),
        (("--window-s", "-1"), "--window-s is -1, wanted a positive number"),
        (("--frames", "8"), "has features of something else: frames was 4 and is 8"),
        (("--stride-s", "0.1"), "clips was"),
    ],
)
def test_what_does_not_fit_is_one_line(
    model: Path, root: Path, undisturbed: Path, more: tuple[str, ...], line: str
) -> None:
    before = shards(undisturbed)
    with pytest.raises(BadInput, match=line) as caught:
        extract(*options(model, root, "tcp://127.0.0.1:1", undisturbed, *more))
    assert "\n" not in str(caught.value)
    assert shards(undisturbed) == before


def test_a_folder_is_one_extractions_at_a_time(model: Path, root: Path, undisturbed: Path) -> None:
    before = shards(undisturbed)
    with only_user(undisturbed), pytest.raises(BadInput, match=r"--out .* is in use by another run"):
        extract(*options(model, root, "tcp://127.0.0.1:1", undisturbed))
    extract(*options(model, root, "tcp://127.0.0.1:1", undisturbed))
    assert shards(undisturbed) == before
