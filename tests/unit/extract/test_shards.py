"""Shards: rows at their places, whole files or none, equal bytes, and no folder of something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from framefeed.errors import BadInput, StorageFault
from trainer_client.extract import shard_files
from trainer_client.extract.extraction import BegunAt, Filling, Step
from trainer_client.extract.shard_files import Format, shard_file
from trainer_client.extract.shard_folder import ShardFolder
from trainer_client.samples import Sample

DATASET = [Sample(video=f"v{at // 4}", start_s=at * 0.5, end_s=at * 0.5 + 1) for at in range(10)]
FORMS: list[Any] = ["safetensors", "parquet"]


def folder_in(path: Path, form: Format = "safetensors", *, rows: int = 4) -> ShardFolder:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    folder = ShardFolder(path, shard_file(form), samples=len(DATASET), shard_rows=rows)
    folder.open({"weights": "w", "shape": (2, 3)})
    return folder


def steps(first: int, *, clips: int, missing: int = -1) -> list[Step]:
    """Steps of so many clips whose every value is the sample's index; one sample never comes."""
    made = []
    for at in range(first, len(DATASET), clips):
        index = torch.arange(at, at + clips)
        rows = index.float()[:, None].expand(-1, 6 + 2).contiguous()
        index[index == missing] = -1 + first
        made.append(Step(rows_GR=rows, index_G=index - first))
    return made


def fill(folder: ShardFolder, *, clips: int, first_shard: int = 0, missing: int = -1, dtype: str = "float32") -> int:
    filling = Filling(folder, DATASET, shape=(2, 3), dtype=dtype)
    first = first_shard * folder.rows_of(0)
    done = list(
        filling.fill(steps(first, clips=clips, missing=missing), first_shard=first_shard, said=lambda: {"decoder": "d"})
    )
    assert done == list(range(first_shard + 1, folder.shards + 1))
    return filling.missing


def bytes_in(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("clips", [1, 3, 4, 7, 16])
def test_every_row_is_at_its_place_whatever_the_steps(tmp_path: Path, clips: int) -> None:
    assert fill(folder_in(tmp_path), clips=clips) == 0
    files = sorted(tmp_path.glob("features-*"))
    assert [file.name for file in files] == [f"features-0000{k}-of-00003.safetensors" for k in range(3)]
    tensors = [load_file(file) for file in files]
    assert np.concatenate([part["index"] for part in tensors]).tolist() == list(range(10))
    for part in tensors:
        assert part["features"].shape[1:] == (2, 3)
        assert (part["features"] == part["index"][:, None, None]).all()
        assert (part["scene_complexity"] == part["index"]).all()
    with safe_open(files[1], framework="numpy") as file:
        said = json.loads(file.metadata()["framefeed"])
    assert said == {"decoder": "d", "videos": ["v1"]}
    assert tensors[2]["video"].tolist() == [0, 0]
    assert tensors[2]["start_s"].tolist() == [4.0, 4.5]


@pytest.mark.parametrize("form", FORMS)
def test_what_goes_on_after_any_shard_is_equal_to_what_was_not_disturbed(tmp_path: Path, form: Format) -> None:
    fill(folder_in(tmp_path / "whole", form), clips=3)
    wanted = bytes_in(tmp_path / "whole")
    for kept in range(4):
        again = tmp_path / f"after{kept}"
        again.mkdir()
        for name in sorted(wanted)[: 1 + kept]:
            (again / name).write_bytes(wanted[name])
        folder = folder_in(again, form)
        done, said, damage = folder.whole()
        assert (done, said.get("decoder"), damage) == (kept, "d" if kept else None, "")
        if done < folder.shards:
            fill(folder, clips=3, first_shard=done)
        assert bytes_in(again) == wanted


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_that_never_came_is_a_row_that_says_so(tmp_path: Path, form: Format) -> None:
    assert fill(folder_in(tmp_path, form), clips=4, missing=5) == 1
    path = tmp_path / f"features-00001-of-00003.{form}"
    if form == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()
        assert [row is None for row in table["features"]] == [False, True, False, False]
        assert table["motion_intensity"] == [4.0, None, 6.0, 7.0]
        assert table["video"] == ["v1"] * 4
        return
    part = load_file(path)
    assert part["found"].tolist() == [1, 0, 1, 1]
    assert np.isnan(part["features"][1]).all()
    assert np.isnan(part["motion_intensity"][1])


@pytest.mark.parametrize("form", FORMS)
def test_a_shard_that_is_cut_off_is_made_again(tmp_path: Path, form: Format) -> None:
    folder = folder_in(tmp_path, form)
    fill(folder, clips=4)
    path = folder.path(1)
    path.write_bytes(path.read_bytes()[:-100])
    done, _, damage = folder.whole()
    assert done == 1
    assert path.name in damage
    assert "\n" not in damage


def test_half_precision_is_half_the_bytes(tmp_path: Path) -> None:
    fill(folder_in(tmp_path), clips=4, dtype="float16")
    assert load_file(tmp_path / "features-00000-of-00003.safetensors")["features"].dtype == np.float16


def test_an_extraction_that_ends_before_its_first_shard_leaves_nothing_that_refuses_another(tmp_path: Path) -> None:
    folder_in(tmp_path)
    assert bytes_in(tmp_path) == {}
    ShardFolder(tmp_path, shard_file("safetensors"), samples=10, shard_rows=4).open({"weights": "v", "shape": (2, 3)})


def test_a_folder_of_something_else_is_refused_by_what_differs(tmp_path: Path) -> None:
    fill(folder_in(tmp_path), clips=4)
    other = ShardFolder(tmp_path, shard_file("safetensors"), samples=10, shard_rows=4)
    with pytest.raises(BadInput, match="weights was w and is v; wanted the same or another --out"):
        other.open({"weights": "v", "shape": (2, 3)})
    (tmp_path / "extract.json").write_text("{")
    with pytest.raises(BadInput, match=r"extract\.json is no JSON"):
        folder_in(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BadInput, match=r"has thesis\.tex and no extract\.json"):
        folder_in(tmp_path)
    with pytest.raises(BadInput, match="--shard-rows is 0"):
        folder_in(tmp_path, rows=0)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be used"):
        folder_in(tmp_path / "file")


def test_storage_that_fails_is_said_once_and_leaves_no_half_file(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    folder.path(0).mkdir()
    with pytest.raises(StorageFault, match="features-00000-of-00003"):
        fill(folder, clips=4)
    assert not list(tmp_path.glob("*.part"))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BadInput, match=r"--format is parquet, .* pip install 'framefeed\[parquet\]'"):
        shard_files.shard_file("parquet")


def test_a_data_set_begun_in_its_middle() -> None:
    begun = BegunAt(DATASET, first=8)
    assert list(begun) == [*DATASET[8:], *DATASET[:8]]
    with pytest.raises(IndexError, match="wanted 0 to 9"):
        begun[-1]
