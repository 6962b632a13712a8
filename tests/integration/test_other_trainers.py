"""Lightning's Trainer and that of transformers over a real server: resumed in mid-epoch they see the same batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from framefeed.errors import BadInput
from tests.integration.other_trainer import DATASET, POLICY, by_lightning, by_transformers, inputs, options
from tests.integration.serving import Server
from tests.integration.ways import start
from trainer_client.adapters.epoch_batches import EpochBatches
from trainer_client.loader import ClipLoader

STEPS_OF_EPOCH = 5
PACKAGES = {"lightning": "lightning", "transformers": "accelerate"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("trainers"), "tcp") as server:
        yield server


def plan(server: Server, steps: int, *, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """The samples of the first steps of the run, as the loader alone gives them."""
    alone = options(server.endpoint, steps=steps, rank=rank, world_size=world_size, run=f"plan{rank}")
    with ClipLoader(DATASET, POLICY, alone) as loader:
        return [batch.indices.tolist() for batch in loader]


def test_an_epoch_an_iteration_and_what_is_left_of_a_resumed_one(server: Server) -> None:
    wanted = plan(server, 2 * STEPS_OF_EPOCH)
    with ClipLoader(DATASET, POLICY, options(server.endpoint)) as loader:
        batches = EpochBatches(loader, inputs)
        assert len(batches) == STEPS_OF_EPOCH
        first = [batch["indices"].tolist() for batch in batches]
        running = iter(batches)
        second = [next(running)["indices"].tolist() for _ in range(2)]
        state = batches.state_dict()
    with ClipLoader(DATASET, POLICY, options(server.endpoint)) as loader:
        batches = EpochBatches(loader)
        batches.load_state_dict(state)
        assert batches.steps_done == STEPS_OF_EPOCH + 2
        rest = list(batches)
    assert set(rest[0]) == {"pixels", "indices", "positions", "epochs", "seeds"}
    assert first + second + [batch["indices"].tolist() for batch in rest] == wanted


@pytest.mark.slow
def test_lightning_sees_the_plan_and_resumes_in_mid_epoch(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from trainer_client.adapters.lightning_data import ClipDataModule  # noqa: PLC0415 - lightning may not be there

    wanted = plan(server, 3 * STEPS_OF_EPOCH)
    whole = by_lightning(server.endpoint, tmp_path, max_epochs=3)
    assert whole.seen == wanted
    resumed = by_lightning(server.endpoint, tmp_path, max_epochs=3, resumed=tmp_path / "step=7.ckpt")
    assert resumed.seen == wanted[7:]
    assert torch.equal(resumed.head.weight, whole.head.weight)
    data = ClipDataModule(DATASET, POLICY, options(server.endpoint))
    with pytest.raises(BadInput, match="within fit"):
        _ = data.loader
    with pytest.raises(BadInput, match=r"epochs 2\.0 in the options, wanted None for both: Lightning's Trainer says"):
        ClipDataModule(DATASET, POLICY, options(server.endpoint, epochs=2))


@pytest.mark.slow
def test_the_trainer_of_transformers_sees_the_plan_and_resumes_in_mid_epoch(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    wanted = plan(server, 3 * STEPS_OF_EPOCH)
    whole = by_transformers(server.endpoint, tmp_path, num_train_epochs=3)
    assert whole.seen == wanted
    seventh = tmp_path / "checkpoint-7"
    resumed = by_transformers(server.endpoint, tmp_path, num_train_epochs=3, resumed=seventh)
    assert resumed.seen == wanted[7:]
    assert torch.equal(resumed.head.weight, whole.head.weight)
    gathered = by_transformers(server.endpoint, tmp_path / "two", max_steps=3, gradient_accumulation_steps=2)
    assert gathered.seen == wanted[:5]
    (seventh / "framefeed_data.rank0.json").unlink()
    with pytest.raises(BadInput, match="wanted a checkpoint of ClipTrainer and of as many processes"):
        by_transformers(server.endpoint, tmp_path, num_train_epochs=3, resumed=seventh)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", PACKAGES)
def test_two_ranks_have_their_shares(kind: str, server: Server, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[kind])
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ended = subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.integration.other_trainer", kind, server.endpoint, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for rank in range(2):
        seen = json.loads((tmp_path / f"seen.{rank}.json").read_text())
        assert seen == plan(server, 6, rank=rank, world_size=2)
