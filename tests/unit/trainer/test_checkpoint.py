"""Checkpoints: whole or not there, of one run, and never code."""

from __future__ import annotations

import os
import pickle
import resource
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from framefeed.errors import BadInput, StorageFault
from tests.mutations import restructured
from tests.unit.trainer.small_run import NoStops, make_loop
from trainer_client.training.checkpoints import Checkpoints, differing, read_checkpoint
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


BODY: dict[str, object] = {
    "framefeed_checkpoint": 2,
    "config": "{}",
    "step": 3,
    "model": {"w": torch.ones(2)},
    "optimizer": {"state": {}, "param_groups": []},
    "data": {"position": 12, "dataset": None},
    "precision": {"scale": torch.ones(())},
    "average": {},
}


@settings(max_examples=60)
@given(restructured(BODY))
def test_any_values_are_a_state_or_one_clear_line(body: object) -> None:
    said = ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step_000000003.pt"
        torch.save(body, path)
        try:
            found, config = read_checkpoint(path)
        except BadInput as error:
            said = str(error)
            assert said.startswith(f"checkpoint {path} ")
        else:
            assert found.step >= 0
            assert isinstance(config, dict)
            assert all(isinstance(tensor, torch.Tensor) for tensor in found.model.values())
    assert "\n" not in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": -1}, "step is -1"),
        ({"step": True}, "step is a bool, wanted int"),
        ({"model": {"w": 1}}, "a value of model is a int, wanted tensors by name"),
        ({"model": [torch.ones(1)]}, "model is a list, wanted dict"),
        ({"data": {"position": 0.5}}, "a value of data is a float"),
        ({"config": "[" * 50_000}, "config is no JSON object"),
        ({"config": "7"}, "config is no JSON object"),
        ({"framefeed_checkpoint": [1]}, "has version list, wanted 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_run_can_have_saved_is_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    torch.save({**BODY, **change}, path := tmp_path / "step_000000003.pt")
    with pytest.raises(BadInput) as caught:
        read_checkpoint(path)
    assert says in str(caught.value)


def test_a_pipe_in_the_place_of_a_checkpoint_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "step_000000009.pt")
    assert checkpoints(tmp_path).latest() == path
    with pytest.raises(BadInput, match="it is no regular file"):
        checkpoints(tmp_path).load(path)


def test_links_that_were_planted_are_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for name in ("step_000000001.pt", "step_000000001.pt.part"):
        (run / name).symlink_to(target)
    folder = checkpoints(run)
    assert folder.load(folder.save(state(1)))[0].step == 1
    assert target.read_text() == "mine"


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    folder, saved = checkpoints(tmp_path), state(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file may grow beyond it
    try:
        with pytest.raises(StorageFault, match="cannot be written: File too large"):
            folder.save(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.latest() is None
