"""Extraction keeps up with its loader: with a small model it is as fast, server and client a core each."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from decode_server.indexing.index import build_index
from framefeed.crops import ResizedCentreCrop
from framefeed.manifest import read_manifest
from framefeed.sampling import Segments
from framefeed_models.block import StackConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import VideoViT, ViTConfig
from framefeed_models.weights.saved_model import save_model
from tests.integration.serving import SERVE, Server
from tests.videos import make_numbered_video
from trainer_client.clip_policy import ClipPolicy
from trainer_client.evaluate.model_file import ModelChoice
from trainer_client.extract.clip_features import open_features
from trainer_client.extract.extraction import Filling, features_of
from trainer_client.extract.shard_files import shard_file
from trainer_client.extract.shard_folder import ShardFolder
from trainer_client.extract.sliding_windows import SlidingWindows
from trainer_client.loader import ClipLoader, LoaderOptions
from trainer_client.training.precision import Precision
from trainer_client.training.ranks import Ranks

pytestmark = [pytest.mark.calm, pytest.mark.timeout(600)]

GRID = TubeletGrid(frames=4, height_px=224, width_px=224, tubelet_frames=2, patch_px=32)
POLICY = ClipPolicy(sampling=Segments(frames=4), crop=ResizedCentreCrop(), width_px=224, height_px=224)
CPU = torch.device("cpu")
STEPS, CLIPS = 12, 16


@pytest.fixture
def one_core() -> Iterator[int]:
    """This process has the last core to itself, as far as the test can say; the first one's number."""
    cores, threads = sorted(os.sched_getaffinity(0)), torch.get_num_threads()
    if len(cores) < 2:
        pytest.skip("one core: server and client need one each")
    os.sched_setaffinity(0, cores[-1:])
    torch.set_num_threads(1)
    try:
        yield cores[0]
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def cpu_s(server: Server) -> float:
    """CPU seconds of all processes of a server so far."""
    spent = 0
    for pid in (server.pid, *server.workers(), *server.gateways()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def test_the_rate_is_the_loaders(one_core: int, tmp_path: Path) -> None:
    """With a core each the slower side is the rate, so both are measured in CPU time, which others do not disturb."""
    videos = tmp_path / "videos"
    make_numbered_video(videos / "v.mp4", frames=400, options={"g": "30", "preset": "veryfast"})
    build_index(videos)
    config = ViTConfig(grid=GRID, stack=StackConfig(width=64, depth=1, heads=2))
    save_model(tmp_path / "model", VideoViT(config).state_dict(), config)
    precision = Precision("fp32", device=CPU)
    features = open_features(tmp_path / "model", ModelChoice(), "encoder", frames=None, precision=precision)
    dataset = SlidingWindows(read_manifest(videos), window_s=1.0, stride_s=0.05)
    serve = ("--workers", "1", "--threads", "1", "--buffer-pool-mib", "64")
    with Server(tmp_path, str(videos), *serve, program=SERVE, under=("taskset", "-c", str(one_core))) as server:
        options = LoaderOptions(servers=[server.endpoint], batch_clips=CLIPS, steps=STEPS, shuffle=False)

        def alone() -> None:
            with ClipLoader(dataset, POLICY, options) as loader:
                for _ in loader:
                    pass

        def extracting() -> None:
            folder = ShardFolder(tmp_path / "out", shard_file("safetensors"), samples=STEPS * CLIPS, shard_rows=64)
            folder.open({})
            filling = Filling(folder, dataset, shape=features.shape, dtype="float32")
            with ClipLoader(dataset, POLICY, options) as loader:
                steps = features_of(loader, features, ranks=Ranks(), device=CPU)
                assert list(filling.fill(steps, first_shard=0, said=dict)) == [1, 2, 3]

        alone()  # files are in the page cache after it
        sides_ms = []
        for way in (alone, extracting):
            server_s, client_s = cpu_s(server), time.process_time()
            way()
            used_s = (cpu_s(server) - server_s, time.process_time() - client_s)
            sides_ms.append([1000 * side / (STEPS * CLIPS) for side in used_s])
    server_ms = sum(server for server, _ in sides_ms) / 2  # a clip costs it the same, whoever asks
    ratio = max(server_ms, sides_ms[0][1]) / max(server_ms, sides_ms[1][1])
    told = ", ".join(f"{server:.2f} + {client:.2f}" for server, client in sides_ms)
    print(f"\nms of CPU a clip, server + client, alone and extracting: {told}; ratio {ratio:.3f}")
    assert ratio >= 0.95
