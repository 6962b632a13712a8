"""EPIC-Kitchens-100's real validation files, over a manifest of the videos that they name: every row is used."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.manifests import manifest_of
from trainer_client.datasets.annotated import PAST_END
from trainer_client.datasets.annotation import labels_of, text_of
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.epic_data import epic_subsets, mir_data

EPIC = Path(__file__).parents[4] / "shared" / "data" / "epic-kitchens-100"
pytestmark = pytest.mark.skipif(not EPIC.is_dir(), reason="EPIC-Kitchens-100's annotations are not at hand")
CHUNK_S = 15.0


def durations_s() -> dict[str, float]:
    with (EPIC / "EPIC_100_video_info.csv").open() as file:
        return {f"{row['video_id'][:3]}/{row['video_id']}": float(row["duration"]) for row in csv.DictReader(file)}


def test_every_row_is_used_and_a_fifth_of_them_cross_chunks(tmp_path: Path) -> None:
    lengths_s = durations_s()
    dataset = open_dataset(DataSpec(kind="ek100_cls", path=EPIC, split="val", cache=tmp_path), manifest_of(lengths_s))
    assert (len(dataset), dict(dataset.left_out)) == (9668, {})
    assert {name: len(names) for name, names in dataset.classes.items()} == {"verb": 97, "noun": 300, "action": 1352}
    samples = [dataset[index] for index in range(len(dataset))]
    assert all(sample.end_s <= lengths_s[sample.video] for sample in samples)
    crossing = [int(sample.start_s // CHUNK_S) != int(sample.end_s // CHUNK_S) for sample in samples]
    assert round(100 * np.mean(crossing), 1) == 21.9
    first = samples[0]
    assert (first.video, first.start_s, first.end_s) == ("P01/P01_11", 0.0, 1.89)
    assert text_of(first.target) == "take plate"
    verbs, nouns, actions = (dataset.classes[name] for name in ("verb", "noun", "action"))
    labels = labels_of(first.target)
    assert (verbs[labels["verb"]], nouns[labels["noun"]], actions[labels["action"]]) == ("take", "plate", "0:2")
    subsets = epic_subsets(DataSpec(kind="ek100_cls", path=EPIC, split="val"), dataset)
    assert subsets is not None
    assert (len(subsets.tail["verb"]), len(subsets.tail["noun"])) == (86, 228)
    people = {sample.video[:3] for sample, unseen in zip(samples, subsets.unseen_N, strict=True) if unseen}
    assert people == {"P18", "P32"}


def test_rows_of_videos_that_are_not_there_are_counted_and_leave_their_relevancies(tmp_path: Path) -> None:
    lengths_s = {name: length for name, length in durations_s().items() if name.startswith(("P01", "P02"))}
    lengths_s["P01/P01_11"] = 100.0
    spec = DataSpec(kind="ek100_mir", path=EPIC, split="val", cache=tmp_path, absent="leave_out")
    dataset = open_dataset(spec, manifest_of(lengths_s))
    assert len(dataset) + sum(dataset.left_out.values()) == 9668
    assert dataset.left_out[PAST_END] > 0
    data = mir_data(spec, dataset, None)
    assert data.relevancy.shape == (len(dataset), 3842)
    assert (data.relevancy == 1).any(axis=1).all(), "each clip has its own sentence"
