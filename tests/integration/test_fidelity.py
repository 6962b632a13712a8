"""Every video at hand, many boxes: clips in RGB, and in YUV converted by torch, are close to the ideal clip."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs

from decode_server.clips.engine import Engine
from decode_server.clips.library import Library
from decode_server.indexing.index import build_index
from decode_server.media.sample_grid import SampleGrid
from framefeed.crops import RandomResizedCrop
from framefeed.request import ClipRequest
from framefeed.sampling import Linspace
from framefeed_bench.fidelity import all_frames, ideal_clip, psnr_db
from tests.videos import SHARED_VIDEOS
from trainer_client.training.augment.pixels import yuv_to_rgb

DAMAGED = {"corrupted.mp4"}
WHOLE = sorted({path.name for path in SHARED_VIDEOS.glob("*")} - DAMAGED)
FLOOR_DB = 40
# Test patterns of pure colours, nearly half of whose values lie outside of what RGB can say: by way of full-resolution
# RGB they are cut off before they are averaged, and here after. In YUV a clip has one chroma sample for four of its own
# pixels, and these patterns have edges between colours of equal luma; so has a title card of the NASA film.
PURE_COLOURS_FLOOR_DB = {
    "av1.mkv": (36, 24),
    "h264_10bit.mp4": (37, 24),
    "h265.mp4": (36, 36),
    "nasa_13013.mp4": (40, 39.5),
}
SEEDS = range(12)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_VIDEOS.is_dir(), reason="the shared videos are not here")
@pytest.mark.parametrize("name", WHOLE)
def test_a_clip_is_close_to_the_ideal_one(name: str, tmp_path: Path) -> None:
    shutil.copy(SHARED_VIDEOS / name, tmp_path)
    build_index(tmp_path)
    library = Library(tmp_path)
    engine = Engine(library)
    (entry,) = library.manifest.videos.values()
    index = library.index(entry, 0)
    turned = SampleGrid(width_px=index.width_px, height_px=index.height_px, rotation_deg=index.rotation_deg)
    assert index.grid == replace(turned, sar=index.grid.sar)
    assert index.grid.sar == 1 or index.rotation_deg == 0
    frames = [np.rot90(frame, index.rotation_deg // 90) for frame in all_frames(tmp_path / name)]
    rgb_floor_db, yuv_floor_db = PURE_COLOURS_FLOOR_DB.get(name, (FLOOR_DB, FLOOR_DB))
    for seed in SEEDS:
        side_px = 224 if seed % 2 else 112
        request = ClipRequest(
            video=entry.video, start_s=0, end_s=min(entry.duration_s, 1.0), sampling=Linspace(frames=2),
            crop=RandomResizedCrop(scale=(0.3, 1.0)), width_px=side_px, height_px=side_px, seed=seed,
        )  # fmt: skip
        rgb = np.empty(request.shape, np.uint8)
        info = engine.decode(request, rgb)
        numbers = [int(np.argmin(np.abs(index.times_s - t))) for t in info.pts_s]
        box = info.box if turned == index.grid else index.grid.coded_box(info.box)  # of pixels that are not square
        ideal = ideal_clip([frames[n] for n in numbers], box, side_px)
        assert psnr_db(rgb, ideal) >= rgb_floor_db, (seed, info.box)
        compact = structs.replace(request, pixel_format="yuv420p")
        i420 = np.empty(compact.shape, np.uint8)
        colour = engine.decode(compact, i420).colour
        by_torch = yuv_to_rgb(torch.from_numpy(i420)[None], colours=[colour], siting="center")[0]
        assert psnr_db(by_torch.permute(1, 2, 3, 0).round().byte().numpy(), ideal) >= yuv_floor_db, (seed, info.box)
