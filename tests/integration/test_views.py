"""A multi-view test through a real server: every view of every sample once, in order, the bytes of that view alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from framefeed.clip import Clip
from framefeed.crops import ViewCrop
from framefeed.errors import BadInput
from framefeed.manifest import read_manifest
from framefeed.request import ClipRequest
from framefeed.sampling import DenseView
from tests.integration.serving import SERVE, Server
from tests.videos import make_numbered_video
from trainer_client.clip_policy import ClipPolicy
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import Sample, VideoWindows
from trainer_client.views import Views

POLICY = ClipPolicy(
    sampling=DenseView(frames=4, stride=3, view=0, views=2),
    crop=ViewCrop(view=0, views=3),
    width_px=64,
    height_px=64,
)
VIEWS = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2):
        make_numbered_video(folder / f"clip{number}.mp4", frames=60 + 30 * number, width_px=192, height_px=128)
    build_index(folder)
    return folder


@pytest.fixture(scope="module")
def alone(root: Path) -> list[Clip]:
    """Every view of every sample, asked of an engine by its own number, whatever the seed."""
    engine, clips = Engine(Library(root)), []
    for sample in VideoWindows(read_manifest(root), window_s=1.0):
        for window, box in ((window, box) for window in range(2) for box in range(3)):
            request = ClipRequest(
                video=sample.video,
                start_s=sample.start_s,
                end_s=sample.end_s,
                sampling=DenseView(frames=4, stride=3, view=window, views=2),
                crop=ViewCrop(view=box, views=3),
                width_px=64,
                height_px=64,
            )
            pixels = np.empty(request.shape, np.uint8)
            clips.append(Clip(info=engine.decode(request, pixels), pixels=pixels))
    return clips


def test_every_view_comes_once_in_order_and_is_the_one_asked_for_alone(
    root: Path, tmp_path: Path, alone: list[Clip]
) -> None:
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    assert POLICY.views == VIEWS
    assert len(alone) == len(dataset) * VIEWS == 30
    logits = np.zeros((len(dataset), 3))
    seen: list[tuple[int, Sample]] = []
    boxes: list[int] = []
    with Server(
        tmp_path, str(root), "--workers", "1", "--threads", "2", "--buffer-pool-mib", "16", program=SERVE
    ) as server:
        options = LoaderOptions(
            servers=[server.endpoint], batch_clips=8, epochs=1, shuffle=False, attempt_s=20.0, stall_s=60.0
        )
        with ClipLoader(Views(dataset, views=VIEWS), POLICY, options) as loader:
            for batch in loader:
                once = batch.epochs == 0
                np.add.at(logits, batch.indices[once] // VIEWS, batch.pixels.mean(axis=(1, 2, 3))[once])
                for row, index in enumerate(batch.indices.tolist()):
                    assert np.array_equal(batch.pixels[row], alone[index].pixels), f"index {index}"
                    assert batch.infos[row].pts_s == alone[index].info.pts_s
                    seen.append((index, batch.samples[row]))
                    boxes.append(batch.infos[row].box.x_px)
    assert [index for index, _ in seen] == [*range(30), 0, 1]  # the last batch of 8 begins anew
    assert [sample.view for _, sample in seen[:12]] == [*range(VIEWS), *range(VIEWS)]
    assert boxes[:30] == [0, 32, 64] * 10
    starts_s = [clip.info.pts_s[0] for clip in alone]
    assert all(starts_s[at] == starts_s[at + 1] == starts_s[at + 2] for at in range(0, 30, 3))
    assert all(starts_s[at] < starts_s[at + 3] for at in range(0, 30, 6))
    means = np.stack([clip.pixels.mean(axis=(0, 1, 2)) for clip in alone]).reshape(len(dataset), VIEWS, 3)
    assert logits / VIEWS == pytest.approx(means.mean(axis=1))


def test_a_dataset_of_more_views_than_the_policy_has_ends_in_one_line(root: Path) -> None:
    dataset = Views(VideoWindows(read_manifest(root), window_s=1.0), views=VIEWS + 1)
    options = LoaderOptions(servers=["tcp://127.0.0.1:1"], batch_clips=7, epochs=1, shuffle=False)
    with (
        ClipLoader(dataset, POLICY, options) as loader,
        pytest.raises(BadInput, match=r"^sample 6 of the dataset: policy: view of .* of clip0 is 6, wanted 0 to 5$"),
    ):
        next(loader)
