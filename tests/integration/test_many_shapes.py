"""Videos of many shapes from a real server: in one batch with masks, or in buckets of one size each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decode_server.indexing.index import Index
from framefeed.crops import Letterbox, WholeFrame
from framefeed.manifest import read_manifest
from framefeed.sampling import Dense
from tests.integration.serving import SERVE, Server
from tests.videos import make_numbered_video
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.buckets import ShortSide, bucket_by_size
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Dataset, VideoWindows

SIZES = {"wide": (192, 128), "high": (128, 192), "square": (160, 160)}
POLICY = ClipPolicy(sampling=Dense(frames=4, stride=4, short="pad"), crop=Letterbox(), width_px=96, height_px=96)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for name, (width_px, height_px) in SIZES.items():
        make_numbered_video(folder / f"{name}.mp4", frames=40, width_px=width_px, height_px=height_px)
    Index(root=folder, jobs=1).run()
    return folder


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--workers", "1", "--threads", "2", "--buffer-pool-mib", "16")
    with Server(tmp_path_factory.mktemp("logs"), str(root), *options, program=SERVE) as one:
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


def test_buckets_keep_the_aspect_and_pad_nothing(root: Path, server: Server) -> None:
    manifest = read_manifest(root)
    dataset = VideoWindows(manifest, window_s=1.0, min_window_s=0.9)
    shapes: dict[str, tuple[int, ...]] = {}
    for bucket in bucket_by_size(dataset, manifest, ShortSide(short_side_px=64, long_side_px=128)):
        policy = replace(POLICY, crop=WholeFrame(), width_px=bucket.width_px, height_px=bucket.height_px)
        policy = replace(policy, interpolation="bicubic")
        with _load(server, bucket, policy) as loader:
            (batch,) = loader
        assert batch.pixel_mask.all()
        assert np.unique(batch.pixels).size > 50
        shapes |= {sample.video: batch.pixels.shape[2:4] for sample in batch.samples}
    assert shapes == {"wide": (64, 96), "high": (96, 64), "square": (64, 64)}
