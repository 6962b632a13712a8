"""Pairs in columns: their bytes a sample, and that what is opened is what was written, in any order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framefeed_bench.pairs import PairsBench, bytes_beside_text, manifest_of_pairs, write_pairs
from trainer_client.datasets.annotated import AnnotatedDataset, Naming
from trainer_client.datasets.annotation import text_of
from trainer_client.datasets.column_writer import new_columns
from trainer_client.datasets.columns import open_columns
from trainer_client.feed.buckets import BucketRule, ClipLengths, ShortSide, into_buckets
from trainer_client.feed.sampler import Sampler, Share
from trainer_client.training.recipes.clip_spec import ClipSpec


@pytest.mark.slow
def test_two_million_pairs_take_64_bytes_each_at_most_and_none_of_memory(tmp_path: Path) -> None:
    pairs = 2_000_000
    with new_columns(tmp_path / "pairs") as writer:
        write_pairs(writer, pairs=pairs, videos=50)
    assert bytes_beside_text(tmp_path / "pairs") <= 64 * pairs
    columns = open_columns(tmp_path / "pairs")
    dataset = AnnotatedDataset(columns, manifest_of_pairs(50), Naming(what="pairs"))
    assert len(dataset) == pairs
    arrays = (columns.video_of, columns.start_s, columns.end_s, columns.text_at, columns.text)
    assert all(isinstance(array, np.memmap) for array in arrays)
    for index in Sampler(samples=pairs, run_seed=3, share=Share(batch_clips=64)).batch(7).indices.tolist():
        sample = dataset[index]
        assert text_of(sample.target) == f"{index:016d}"
        assert sample.end_s - sample.start_s == pytest.approx(1.0)


def test_pairs_are_put_into_buckets_by_their_columns(tmp_path: Path) -> None:
    """Not one by one: a look at every sample takes minutes for tens of millions."""
    with new_columns(tmp_path / "pairs") as writer:
        write_pairs(writer, pairs=200_000, videos=50)
    dataset = AnnotatedDataset(open_columns(tmp_path / "pairs"), manifest_of_pairs(50), Naming(what="pairs"))
    spans = dataset.spans()
    for index in range(0, len(dataset), 997):
        sample = dataset[index]
        assert spans.videos[spans.video_of[index]] == sample.video
        assert spans.seconds[index] == sample.end_s - sample.start_s
    rule = BucketRule(size=ShortSide(), lengths=ClipLengths(frames=(4, 8), frames_per_s=4))
    (clips,) = into_buckets(dataset, manifest_of_pairs(50), rule, ClipSpec(sampling="segments").policy).members
    assert np.array_equal(clips, np.arange(len(dataset)))


@pytest.mark.slow
def test_thirty_five_million_pairs_and_ten_million_mixed_in(tmp_path: Path) -> None:
    """Its seconds are in the bench's result: here, that it holds, that nothing is held of it, and that it says so."""
    PairsBench(folder=tmp_path, out=tmp_path / "pairs.json").run()
    result = json.loads((tmp_path / "pairs.json").read_text())
    assert result["pairs"] == result["samples"] == 35_000_000
    mixture = result["mixture"]
    assert mixture["samples"] == 70_000_000
    assert 80 < mixture["of_mixed_in"] < 176, "half of 256"
    assert mixture["own_memory_bytes"] < 64 << 20
