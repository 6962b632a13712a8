"""Checkpoints: whole or not there, of one run, and never code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from framefeed.errors import BadInput, StorageFault
from tests.unit.trainer.small_run import NoStops, make_loop
from trainer_client.training.checkpoints import Checkpoints, differing
from trainer_client.training.loop import Limits
from trainer_client.training.run_state import TrainState

CONFIG = {"recipe": "mae", "lr": 1e-3, "betas": (0.9, 0.95), "frames": None}


def checkpoints(folder: Path, *, keep: int = 3, **config: object) -> Checkpoints:
    return Checkpoints(folder, config={**CONFIG, **config}, keep=keep)


def state(step: int) -> TrainState:
    loop = make_loop(steps=50)
    loop.run(Limits(steps=step), stops=NoStops())
    return loop.state()


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path / "run")
    assert folder.latest() is None
    saved = state(5)
    path = folder.save(saved)
    assert folder.latest() == path
    loaded, changes = checkpoints(tmp_path / "run").load(path)
    assert changes == ""
    assert (loaded.step, loaded.data) == (5, saved.data)
    assert all(torch.equal(loaded.model[name], saved.model[name]) for name in saved.model)
    assert loaded.optimizer.keys() == saved.optimizer.keys()
    straight = state(9).model
    loop = make_loop(steps=50)
    loop.load_state(loaded)
    loop.run(Limits(steps=9), stops=NoStops())
    resumed = loop.state().model
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_the_newest_stay(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path, keep=2)
    for step in (2, 3, 10, 4):
        folder.save(state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000004.pt", "step_000000010.pt"]
    assert folder.latest() == tmp_path / "step_000000010.pt"


def test_another_configuration_is_refused_with_both_values(tmp_path: Path) -> None:
    path = checkpoints(tmp_path).save(state(1))
    with pytest.raises(BadInput, match=r"of another run: frames was None and is 16; lr was 0.001 and is 0.002") as why:
        checkpoints(tmp_path, lr=2e-3, frames=16).load(path)
    assert "\n" not in str(why.value)


def test_what_may_change_is_told_and_not_refused(tmp_path: Path) -> None:
    path = checkpoints(tmp_path).save(state(1))
    config = {**CONFIG, "lr": 1e-4}
    assert Checkpoints(tmp_path, config=config, keep=1, may_change=frozenset({"lr"})).load(path)[1] == (
        "lr was 0.001 and is 0.0001"
    )


def test_what_only_one_side_has_is_a_difference() -> None:
    assert differing({"a": 1}, {"a": 1, "b": 2}) == "b was None and is 2"
    assert differing({"a": 1}, {"a": 1}) == ""


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "missing"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    path = checkpoints(tmp_path).save(state(1))
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "missing": whole}[damage])
    if damage == "missing":
        path.unlink()
    with pytest.raises(BadInput, match=f"checkpoint {path} (cannot be read|does not exist)") as why:
        checkpoints(tmp_path).load(path)
    assert "\n" not in str(why.value)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "step_000000001.pt"
    for body in ({"framefeed_checkpoint": 1, "config": Bomb()}, Bomb()):
        torch.save(body, path)
        with pytest.raises(BadInput, match="cannot be read"):
            checkpoints(tmp_path).load(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match="cannot be read"):
        checkpoints(tmp_path).load(path)
    assert not (tmp_path / "ran").exists()


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints(tmp_path)
    before = folder.save(state(1))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFault, match=r"step_000000002\.pt cannot be written: No space left"):
        folder.save(state(2))
    assert folder.latest() == before
    assert folder.load(before)[0].step == 1
