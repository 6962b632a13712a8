"""Data sets that a recipe mixes in: said as JSON, kept with the run, and one line for what cannot be mixed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed.manifest import Manifest, VideoEntry
from trainer_client.datasets.annotation import Annotation
from trainer_client.datasets.mixture import Mixture
from trainer_client.datasets.spec import DataSpec
from trainer_client.source_policies import SourcePolicies
from trainer_client.training.recipes.build import build
from trainer_client.training.recipes.catalogue import makers
from trainer_client.training.recipes.mixed_in import MixedIn
from trainer_client.training.recipes.overrides import changed
from trainer_client.training.recipes.recipe import Recipe, Windows, decides
from trainer_client.training.recipes.recipe_file import read_recipe, write_recipe
from trainer_client.training.recipes.run_data import open_data
from trainer_client.training.recipes.tiny import classify_tiny

ENTRY = {
    "codec": "h264", "duration_s": 60.0, "fps": 30.0, "width_px": 64, "height_px": 64, "media_bytes": 1,
    "chunk_start_s": (0.0,), "record_offset": (0,), "record_bytes": (1,),
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Indexed, as far as samples go, with two tables beside it: classes differ in order and number."""
    folder = tmp_path / "root"
    folder.mkdir()
    Manifest(videos={"v": VideoEntry(video="v", **ENTRY)}).write(folder)  # type: ignore[arg-type]
    for name, labels in (("own", "abab"), ("other", "cab"), ("texts", "")):
        rows = [{"video": "v", "start": at, "end": at + 1, "label": label} for at, label in enumerate(labels)]
        rows = rows or [{"video": "v", "start": 0, "end": 1, "text": "no label"}]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def spec(root: Path, name: str) -> DataSpec:
    return DataSpec(kind="table", path=root.parent / f"{name}.jsonl", cache=root.parent / "cache")


def recipe(root: Path, *changes: str) -> Recipe:
    return changed(classify_tiny(root=root, out=root.parent / "out", annotations=root.parent / "own.jsonl"), *changes)


MIX = '[{"data": {"kind": "table", "path": "%s"}, "weight": 2, "clips": {"stride_frames": 1, "hflip": 0}}]'


def test_a_mixture_is_said_as_json_and_kept_with_the_run(root: Path, tmp_path: Path) -> None:
    made = recipe(root, f"mix={MIX % 'other.jsonl'}")
    (part,) = made.what.mix
    assert (part.data.path, part.weight, part.clips and part.clips.stride_frames) == (Path("other.jsonl"), 2.0, 1)
    write_recipe(tmp_path / "recipe.json", made)
    assert read_recipe(tmp_path / "recipe.json", makers()) == made
    moved = decides(recipe(root, f"mix={MIX % 'elsewhere.jsonl'}"))
    assert moved == decides(made), "where annotations lie decides nothing"
    assert moved != decides(recipe(root, f"mix={(MIX % 'other.jsonl').replace('2', '3')}"))


def test_shares_classes_and_policies_are_those_of_all(root: Path) -> None:
    made = recipe(root, f"mix={MIX % 'other.jsonl'}")
    data = open_data(spec(root, "own"), root, [MixedIn(data=spec(root, "other"), weight=2)])
    assert isinstance(data.dataset, Mixture)
    assert data.dataset.counts == (4, 8)
    assert data.dataset.identity.startswith("v1-")
    assert (data.classes, data.class_names) == ({"label": 3}, {"label": ("a", "b", "c")})
    assert data.labels("label") == 2
    samples = [data.dataset[at] for at in range(len(data.dataset))]
    seen: Counter[tuple[int, int]] = Counter()
    for sample in samples:
        assert isinstance(sample.target, Annotation)
        seen[sample.source, sample.target.labels["label"]] += 1
    assert {key for key, _ in seen.items()} == {(0, 0), (0, 1), (1, 2), (1, 0), (1, 1)}
    policy = build(made.what, data).policy()
    assert isinstance(policy, SourcePolicies)
    strides = {sample.source: policy.request(sample, 1).sampling for sample in samples}
    assert [getattr(strides[source], "stride", None) for source in (0, 1)] == [2, 1]
    each = open_data(spec(root, "own"), root, [MixedIn(data=spec(root, "other"))])
    assert isinstance(each.dataset, Mixture)
    assert each.dataset.counts == (4, 3)
    assert each.fingerprint == data.fingerprint != open_data(spec(root, "own"), root).fingerprint


def test_what_cannot_be_mixed_is_one_line(root: Path) -> None:
    with pytest.raises(BadInput, match=r"mix: table train of .*texts.jsonl has texts and labels none, wanted no texts"):
        open_data(spec(root, "own"), root, [MixedIn(data=spec(root, "texts"))])
    with pytest.raises(BadInput, match="mix: the recipe's own data are windows"):
        open_data(Windows(), root, [MixedIn(data=spec(root, "own"))])
    for change, line in (
        (f"mix={(MIX % 'o').replace('2', '-1')}", "weight is -1"),
        (f"mix={(MIX % 'o').replace('table', 'tables')}", "Invalid enum value 'tables'"),
        (f"mix={(MIX % 'o').replace('hflip', 'buckets').replace(': 0}', ': true}')}", "wanted it in the recipe's own"),
        (f"mix={(MIX % 'o').replace('weight', 'wieght')}", "mix: there is no field wieght; did you mean weight?"),
        (f"mix={(MIX % 'o').replace('hflip', 'hflp')}", "mix: there is no field hflp; did you mean hflip?"),
        ("mix=" + (MIX % "o").replace('{"kind', '{"pth": 1, "kind'), "mix: there is no field pth; did you mean path?"),
        ("mix=[{}]", "missing required field `data`"),
    ):
        with pytest.raises(BadInput, match=line) as refused:
            recipe(root, change)
        assert "\n" not in str(refused.value)
