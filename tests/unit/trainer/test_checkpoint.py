"""Checkpoints: whole or not there, of one run, and never code."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save_file
from torch import Tensor

from framefeed.errors import BadInput, StorageFault
from framefeed_models.weights.checkpoint_folder import (
    CheckpointError,
    check_parts,
    layout,
    read_header,
    read_part,
    read_whole,
)
from tests.mutations import mangled, restructured
from tests.unit.trainer.small_run import NoStops, make_loop
from tests.unit.trainer.stored_runs import kept_in, said_of, save, write_part
from trainer_client.training.best_score import BestScore, Metric
from trainer_client.training.checkpoints import Checkpoints, differing
from trainer_client.training.data_states import other_data
from trainer_client.training.loop import Limits
from trainer_client.training.ranks import Ranks
from trainer_client.training.run_state import TrainState

CONFIG: dict[str, object] = {"recipe": "mae", "lr": 1e-3, "betas": (0.9, 0.95), "frames": None}
ALONE = Ranks()


def checkpoints(folder: Path, *, keep: int = 3, **config: object) -> Checkpoints:
    return kept_in(folder, keep=keep, **{**CONFIG, **config})


def state(step: int) -> TrainState:
    loop = make_loop(steps=50)
    loop.run(Limits(steps=step), stops=NoStops())
    return loop.state()


def whole(kept: Checkpoints) -> tuple[Path | None, list[str]]:
    said = list[str]()
    return kept.newest_whole(ALONE, tell=said.append), said


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path / "run")
    assert whole(kept) == (None, [])
    saved = state(5)
    path = save(kept, saved)
    assert whole(kept) == (path, [])
    loop = make_loop(steps=50)
    stored = checkpoints(tmp_path / "run").load(path, ALONE)
    assert (stored.step, stored.data, stored.changes) == (5, saved.data, "")
    assert stored.names == saved.tensors.keys()
    loop.load_state(stored)
    assert all(torch.equal(tensor, saved.tensors[name]) for name, tensor in loop.state().tensors.items())
    loop.run(Limits(steps=9), stops=NoStops())
    straight = state(9).tensors
    assert all(torch.equal(tensor, straight[name]) for name, tensor in loop.state().tensors.items())


def test_parts_of_two_ranks_are_one_checkpoint_and_each_writes_about_half(tmp_path: Path) -> None:
    saved, kept = state(2), checkpoints(tmp_path)
    for rank in (1, 0):
        write_part(kept, saved, Ranks(rank=rank, world=2))
    path = kept.commit(2, world=2)
    sizes = [read_part(path, rank).file_bytes for rank in range(2)]
    assert max(sizes) < 0.75 * sum(sizes)
    loop = make_loop(steps=50)
    loop.load_state(kept.load(path, ALONE))
    assert all(torch.equal(tensor, saved.tensors[name]) for name, tensor in loop.state().tensors.items())


def test_the_newest_stay_and_the_best(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path, keep=2)
    best = BestScore(metric=Metric.read("min:loss"), value=0.5, step=2)
    for step in (2, 3, 10, 4):
        save(kept, state(step), best=best)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:09d}" for step in (2, 4, 10)]
    assert kept.load(tmp_path / "step_000000010", ALONE).best == best
    better = BestScore(metric=Metric.read("min:loss"), value=0.4, step=11)
    save(kept, state(11), best=better)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step_{step:09d}" for step in (10, 11)]


def test_another_configuration_is_refused_with_both_values(tmp_path: Path) -> None:
    path = save(checkpoints(tmp_path), state(1))
    with pytest.raises(BadInput) as caught:
        checkpoints(tmp_path, lr=2e-3, frames=16).load(path, ALONE)
    assert "of another run: frames was None and is 16; lr was 0.001 and is 0.002" in said_of(caught)


def test_what_may_change_is_told_and_not_refused(tmp_path: Path) -> None:
    path = save(checkpoints(tmp_path), state(1))
    mine = Checkpoints(tmp_path, config={**CONFIG, "lr": 1e-4}, keep=1, may_change=frozenset({"lr"}))
    assert mine.load(path, ALONE).changes == "lr was 0.001 and is 0.0001"


def test_what_only_one_side_has_is_a_difference() -> None:
    assert differing({"a": 1}, {"a": 1, "b": 2}) == "b was None and is 2"
    assert differing({"a": 1}, {"a": 1}) == ""


def test_another_model_is_refused_by_a_tensors_name(tmp_path: Path) -> None:
    kept, saved = checkpoints(tmp_path), state(1)
    for number, (change, says) in enumerate(
        (
            ({"model.1.weight": torch.ones(3, 3)}, "model.1.weight is torch.float32 (3, 3), wanted torch.float32 (8"),
            ({"model.1.weight": saved.tensors["model.1.weight"].double()}, "torch.float64 (8, 48), wanted torch.f"),
            ({"model.9.weight": torch.ones(1)}, "it has a model.9.weight"),
            ({"model.1.weight": None}, "it has no model.1.weight"),
        )
    ):  # fmt: skip
        tensors = {name: tensor for name, tensor in {**saved.tensors, **change}.items() if tensor is not None}
        path = save(kept, TrainState(step=number, tensors=tensors, data=saved.data))
        loop = make_loop(steps=50)
        before = {name: tensor.clone() for name, tensor in loop.state().tensors.items()}
        with pytest.raises(BadInput) as caught:
            loop.load_state(kept.load(path, ALONE))
        assert says in said_of(caught)
        assert all(torch.equal(loop.state().tensors[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    "damage",
    ["cut", "empty", "bit", "no part", "no header", "no word of a part", "another step", "pipe", "file", "extra"],
)
def test_a_damaged_one_is_one_line_and_the_one_before_is_taken(tmp_path: Path, damage: str) -> None:
    kept = checkpoints(tmp_path)
    before, last = save(kept, state(1)), save(kept, state(2))
    tensors, header = last / "part_00000.safetensors", last / "checkpoint.json"
    data = bytearray(tensors.read_bytes())
    match damage:
        case "cut":
            tensors.write_bytes(data[: len(data) // 2])
        case "empty":
            tensors.write_bytes(b"")
        case "bit":
            data[-1] ^= 1
            tensors.write_bytes(data)
        case "no part":
            tensors.unlink()
        case "no header":
            header.unlink()
        case "no word of a part":
            (last / "part_00000.json").unlink()
        case "another step":
            header.write_text(header.read_text().replace('"step": 2', '"step": 1'))
        case "pipe":
            tensors.unlink()
            os.mkfifo(tensors)
        case "file":
            shutil.rmtree(last)
            last.symlink_to("/etc")
        case "extra":
            save_file({"model.1.weight": torch.ones(1)}, last / "more.safetensors")
    found, said = whole(kept)
    assert found == before
    assert len(said) == 1
    assert said[0].startswith(f"checkpoint {last} is damaged (")
    assert "\n" not in said[0]
    again = save(kept, state(2))
    assert whole(kept) == (again, [])


def test_where_none_is_whole_the_run_does_not_begin_anew(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    for step in (1, 2):
        (save(kept, state(step)) / "checkpoint.json").unlink()
    with pytest.raises(BadInput, match="2 checkpoints, none of them whole; wanted another --out"):
        whole(kept)


def test_what_a_killed_save_has_left_is_no_checkpoint_and_goes(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    before = save(kept, state(1))
    write_part(kept, state(2), Ranks(rank=0, world=2))
    assert kept.hidden(2).is_dir()
    assert whole(kept) == (before, [])
    (tmp_path / ".step_mine").mkdir()
    checkpoints(tmp_path).clear_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {before.name, ".step_mine"}


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    kept = checkpoints(tmp_path / "run")
    for name in ("part_00000.safetensors", "checkpoint.json", "part_00000.json"):
        path = save(kept, state(1))
        (path / name).write_bytes(pickle.dumps(Bomb()))
        (path / ".metadata").write_bytes(pickle.dumps(Bomb()))  # where torch's other format has its pickle
        with pytest.raises(BadInput):
            kept.load(path, ALONE)
        with pytest.raises(CheckpointError):
            read_whole(path, prefix="model.")
    path = save(kept, state(1))
    (path / ".metadata").write_bytes(pickle.dumps(Bomb()))
    make_loop(steps=50).load_state(kept.load(path, ALONE))
    assert not (tmp_path / "ran").exists()


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = checkpoints(tmp_path)
    before = save(kept, state(1))
    write_part(kept, state(2))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFault, match=r"step_000000002 cannot be written: No space left"):
        kept.commit(2, world=1)
    assert whole(kept) == (before, [])


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    kept, saved = checkpoints(tmp_path), state(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # no file may grow beyond it
    try:
        with pytest.raises(StorageFault, match="part cannot be written: File too large"):
            write_part(kept, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert whole(kept) == (None, [])
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [], "what was written takes no room from what the run has to say yet"


def test_links_that_were_planted_are_not_written_through(tmp_path: Path) -> None:
    target, run = tmp_path / "target", tmp_path / "run"
    target.mkdir()
    run.mkdir()
    kept = checkpoints(run)
    kept.hidden(1).symlink_to(target)
    with pytest.raises(StorageFault, match="cannot be written"):
        write_part(kept, state(1))
    kept.hidden(1).unlink()
    (run / "step_000000001").symlink_to(target)
    path = save(kept, state(1))
    assert not path.is_symlink()
    assert kept.load(path, ALONE).step == 1
    assert list(target.iterdir()) == []


HEADER: dict[str, Any] = {"framefeed_checkpoint": 3, "step": 1, "world": 1, "config": {"a": 1}, "best": {"step": 1}}
PART: dict[str, Any] = {"file_bytes": 9, "crc32": 5, "data": {"position": 12, "dataset": None, "shuffle": False}}


def one_piece(tensors: Mapping[str, Tensor], **offsets: object) -> bytes:
    """A file of safetensors with these places."""
    with tempfile.TemporaryDirectory() as folder:
        places = json.dumps({name: {"saved_offsets": where} for name, where in offsets.items()})
        save_file(dict(tensors), path := Path(folder) / "x.safetensors", {"DCP_SHARDING_INFO": places})
        return path.read_bytes()


def folder_of(root: Path, *parts: bytes) -> Path:
    """A checkpoint of these files of tensors, unchecked."""
    for rank, data in enumerate(parts):
        (root / f"part_{rank:05d}.safetensors").write_bytes(data)
        (root / f"part_{rank:05d}.json").write_text(json.dumps(PART))
    (root / "checkpoint.json").write_text(json.dumps({**HEADER, "world": len(parts)}))
    return root


@settings(max_examples=80)
@given(restructured(HEADER), restructured(PART))
def test_any_values_are_a_state_or_one_clear_line(header: object, part: object) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checkpoint.json").write_text(json.dumps(header))
        (folder / "part_00000.json").write_text(json.dumps(part))
        said = ""
        try:
            checkpoints(folder).load(folder, ALONE)
        except BadInput as error:
            said = str(error)
        assert said.startswith("checkpoint"), "there are no tensors"
        assert "\n" not in said


WHOLE = one_piece({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(())}, a=[0, 0], b=[])


@settings(max_examples=80)
@given(mangled(WHOLE))
def test_any_bytes_are_tensors_or_one_clear_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = folder_of(Path(name), data)
        said, held = "", 0
        try:
            found = layout(folder, world=1)
        except CheckpointError as error:
            said = str(error)
        else:
            held = sum(torch.Size(one.shape).numel() * one.dtype.itemsize for one in found.values())
        assert "\n" not in said
        assert held <= len(data)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([one_piece({"a": torch.ones(2)})], "a does not say where its piece of shape"),
        ([one_piece({"a": torch.ones(2)}, a=[0, 0])], "a does not say where its piece of shape"),
        ([one_piece({"a": torch.ones(2)}, a=[-1])], "a begins at [-1], wanted numbers from 0"),
        ([one_piece({"a": torch.ones(2)}, a=[True])], "a begins at [True]"),
        ([one_piece({"a": torch.ones(2)}, a=[1 << 60])], "wanted numbers from 0"),
        ([one_piece({"a": torch.ones(2)}, a=[1 << 40])], "leave a hole in its shape"),
        ([one_piece({"a": torch.ones(2)}, a=[0]), one_piece({"a": torch.ones(2)}, a=[3])], "leave a hole"),
        ([one_piece({"a": torch.ones(2)}, a=[0]), one_piece({"a": torch.ones(2)}, a=[1])], "two pieces of a lie over"),
        ([one_piece({"a": torch.ones(2)}, a=[0]), one_piece({"a": torch.ones(2).half()}, a=[2])], "are of F16, F32"),
        ([one_piece({"a": torch.ones(2)}, a=[0]), one_piece({"a": torch.ones(2, 1)}, a=[2, 0])], "pieces of a are of"),
        ([one_piece({"a": torch.ones(2, dtype=torch.complex64)}, a=[0])], "the pieces of a are of C64"),
        ([struct.pack("<Q", 1 << 60) + b"{}"], "cannot be read"),
        ([b"\x02\0\0\0\0\0\0\0{}"], "cannot be read"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_pieces_that_are_no_tensor_are_named(tmp_path: Path, parts: list[bytes], says: str) -> None:
    folder = folder_of(tmp_path, *parts)
    with pytest.raises(CheckpointError) as caught:
        layout(folder, world=len(parts))
    assert says in said_of(caught)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": -1}, "step is -1, wanted 0"),
        ({"step": True}, "step is True"),
        ({"world": 0}, "world is 0, wanted 1 to 4095"),
        ({"world": 1 << 40}, "wanted 1 to 4095"),
        ({"framefeed_checkpoint": 2}, "it has version 2, wanted 3"),
        ({"config": 7}, "config is no JSON object"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_run_can_have_saved_is_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    folder = folder_of(tmp_path, WHOLE)
    (folder / "checkpoint.json").write_text(json.dumps({**HEADER, **change}))
    with pytest.raises(BadInput) as caught:
        checkpoints(tmp_path).load(folder, ALONE)
    assert says in said_of(caught)


def test_files_are_read_within_limits(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, WHOLE)
    with (folder / "checkpoint.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json cannot be read: it has 1099511627776 bytes"):
        read_header(folder)
    (folder / "checkpoint.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json cannot be read"):
        read_header(folder)
    with pytest.raises(CheckpointError, match=r"bytes of CRC-32 .*, wanted 9 of 00000005"):
        check_parts(folder, ranks=[0])


def test_another_data_set_is_said_by_its_name_before_all_else() -> None:
    theirs = {"dataset": "v1-a", "samples": 4, "samples_digest": "x", "global_step": 3}
    assert other_data(theirs, {**theirs, "dataset": "v1-b"}) == "the data set was 'v1-a' and is 'v1-b'"
    assert other_data(theirs, {**theirs, "samples": 5}) == "the number of samples was 4 and is 5"
    assert other_data(theirs, {**theirs, "samples_digest": "y"}) == "samples was 'x' and is 'y'"
    assert other_data(theirs, {**theirs, "dataset": None, "global_step": 9}) == ""


def test_a_checkpoint_of_other_samples_is_one_of_another_data_set(tmp_path: Path) -> None:
    save(kept_in(tmp_path, samples=4, lr=1.0), TrainState(step=1, tensors={}, data={}))
    with pytest.raises(BadInput, match="is on another data set: samples was 4 and is 5; use the same or another --out"):
        kept_in(tmp_path, samples=5, lr=1.0).load(tmp_path / "step_000000001", Ranks())
