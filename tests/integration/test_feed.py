"""The whole feed with real servers decoding real videos: what is killed, or stopped and resumed, changes no byte."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decode_server.indexing.index import Index
from framefeed.crops import RandomResizedCrop
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from tests.integration.serving import SERVE, Server
from tests.videos import make_numbered_video, read_frame_number
from trainer_client.clip_policy import ClipPolicy
from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.samples import VideoWindows

POLICY = ClipPolicy(
    sampling=Segments(frames=4, jitter=True),
    crop=RandomResizedCrop(scale=(0.6, 1.0)),
    width_px=64,
    height_px=64,
    hflip_probability=0.5,
)
STEPS = 16
OPTIONS = ("--workers", "1", "--threads", "2", "--buffer-pool-mib", "16")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        make_numbered_video(folder / f"clip{number}.mp4", frames=90 + 30 * number, width_px=192, height_px=128)
    Index(root=folder, jobs=1).run()
    return folder


@pytest.fixture(scope="module")
def servers(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two that live through the module."""
    logs = tmp_path_factory.mktemp("logs")
    with (
        Server(logs, str(root), *OPTIONS, program=SERVE) as one,
        Server(logs, str(root), *OPTIONS, program=SERVE) as two,
    ):
        yield one, two


def loader(root: Path, *servers: Server, policy: ClipPolicy = POLICY, **options: Any) -> ClipLoader:
    dataset = VideoWindows(read_manifest(root), window_s=1.0)
    chosen = {"batch_clips": 3, "steps": STEPS, "run_seed": 7, "attempt_s": 20.0, "stall_s": 60.0, **options}
    return ClipLoader(dataset, policy, LoaderOptions(servers=[s.endpoint for s in servers], **chosen))


def prints(batch: Batch) -> tuple[list[int], list[int], str]:
    """What a batch is, ids and bytes."""
    return batch.positions.tolist(), batch.indices.tolist(), hashlib.sha256(batch.pixels.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def undisturbed(root: Path, servers: tuple[Server, Server]) -> list[tuple[list[int], list[int], str]]:
    with loader(root, *servers) as run:
        batches = [prints(batch) for batch in run]
    assert len({sha for _, _, sha in batches}) == STEPS
    return batches


def test_one_server_gives_what_two_gave(
    root: Path, servers: tuple[Server, Server], undisturbed: list[tuple[list[int], list[int], str]]
) -> None:
    with loader(root, servers[0]) as run:
        assert [prints(batch) for batch in run] == undisturbed
        stats = run.stats
    assert stats.conserved
    assert stats.read_bytes_per_clip > 0
    assert sum(stats.wait_ns.values()) == stats.blocked_ns


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "drained"])
def test_a_server_that_goes_changes_no_batch(
    root: Path, servers: tuple[Server, Server], tmp_path: Path, number: signal.Signals
) -> None:
    with (
        Server(tmp_path, str(root), *OPTIONS, program=SERVE) as leaving,
        loader(root, leaving, servers[1], prefetch_batches=2, steps=None) as run,
    ):
        batches = []
        while not run.stats.requests.get((leaving.endpoint, "ok")) or len(batches) < 3:
            batches.append(prints(next(run)))
        before = len(batches)
        leaving.process.send_signal(number)
        while run.stats.servers[leaving.endpoint] != "offline" or len(batches) < before + 10:
            batches.append(prints(next(run)))
        assert run.stats.conserved
    with loader(root, servers[1], steps=len(batches)) as undisturbed_run:
        assert [prints(batch) for batch in undisturbed_run] == batches


@pytest.mark.parametrize("done", [1, 7])
def test_a_resumed_run_continues_byte_for_byte(
    root: Path, servers: tuple[Server, Server], undisturbed: list[tuple[list[int], list[int], str]], done: int
) -> None:
    with loader(root, *servers) as run:
        before = [prints(next(run)) for _ in range(done)]
        state = run.state_dict()
    assert isinstance(state["decoder_fingerprint"], str)
    with loader(root, servers[1]) as later:
        later.load_state_dict(state)
        assert before + [prints(batch) for batch in later] == undisturbed


def test_the_frames_are_those_of_the_sample(root: Path, servers: tuple[Server, Server]) -> None:
    whole = ClipPolicy(sampling=Segments(frames=3), crop=RandomResizedCrop(scale=(1, 1), ratio=(1.5, 1.5)))
    with loader(root, *servers, policy=whole, steps=3) as run:
        for batch in run:
            for clip, info, sample in zip(batch.pixels, batch.infos, batch.samples, strict=True):
                assert (info.box.width_px, info.box.height_px) == (192, 128)
                for frame, pts_s in zip(clip, info.pts_s, strict=True):
                    assert sample.start_s <= pts_s < sample.end_s
                    assert read_frame_number(frame[..., 1]) == round(pts_s * 30)
