"""Videos of many shapes from a real server, in one batch with masks; test_buckets.py has those of one shape each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from framefeed.crops import Letterbox
from framefeed.manifest import read_manifest
from framefeed.sampling import Dense
from tests.integration.made_roots import root_of_shapes, small_server
from tests.integration.serving import Server
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset, VideoWindows

SIZES = {"wide": (192, 128), "high": (128, 192), "square": (160, 160)}
POLICY = ClipPolicy(sampling=Dense(frames=4, stride=4, short="pad"), crop=Letterbox(), width_px=96, height_px=96)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return root_of_shapes(tmp_path_factory.mktemp("shapes"), SIZES, frames=40)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with small_server(tmp_path_factory.mktemp("logs"), root) as one:
        yield one


def _load(server: Server, dataset: Dataset, policy: ClipPolicy) -> ClipLoader:
    options = LoaderOptions(servers=[server.endpoint], batch_clips=len(dataset), steps=1, attempt_s=20, stall_s=60)
    return ClipLoader(dataset, policy, options)


def test_one_batch_of_many_shapes_says_what_is_of_the_video(root: Path, server: Server) -> None:
    """Two windows a video: 30 frames, enough for a clip, and 10, which are not."""
    dataset = VideoWindows(read_manifest(root), window_s=1.0, min_window_s=0.2)
    assert len(dataset) == 6
    with _load(server, dataset, POLICY) as loader:
        (batch,) = loader
    for row, sample in enumerate(batch.samples):
        short = sample.end_s - sample.start_s < 0.5
        assert batch.frame_mask[row].tolist() == [True, True, True, not short]
        rows, columns = batch.pixel_mask[row].any(axis=1).sum(), batch.pixel_mask[row].any(axis=0).sum()
        assert (columns, rows) == {"wide": (96, 64), "high": (64, 96), "square": (96, 96)}[sample.video]
        assert batch.pixel_mask[row].sum() == rows * columns
        assert not batch.pixels[row][:, ~batch.pixel_mask[row]].any()
        assert not batch.pixels[row][~batch.frame_mask[row]].any()
        assert batch.pixels[row][0][batch.pixel_mask[row]].std() > 10
