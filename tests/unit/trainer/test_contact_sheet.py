"""Contact sheets: every picture is where it should be, and the task's rows show what they say."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from framefeed_models.videomae import PRESETS
from tests.unit.trainer.small_run import CPU, make_batch
from trainer_client.feed.batch import Batch
from trainer_client.training.augment.pixels import yuv_to_rgb
from trainer_client.training.device_feed import to_device
from trainer_client.training.ranks import Ranks
from trainer_client.training.tasks.mae import MaeTask
from trainer_client.training.watch.contact_sheet import SheetClip, draw_sheet


def flat_clip(values: list[float], *, label: str = "a video, 0–1 s") -> SheetClip:
    frames = np.stack([np.full((8, 8, 3), value, np.float32) for value in values])
    return SheetClip(
        label=label, times_s=tuple(range(len(values))), rows={"original": frames, "masked": frames / np.float32(2)}
    )


def test_pictures_lie_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    draw_sheet(path, [flat_clip([0.2, 0.4, 0.6]), flat_clip([0.8, 0.1, 0.3])], title="two clips")
    picture = imread(path)[..., :3]
    greys = [round(float(value), 2) for value in np.unique(picture[np.ptp(picture, axis=2) == 0]) if value < 0.99]
    assert {0.2, 0.4, 0.6, 0.8, 0.1, 0.3, 0.05, 0.15} <= set(greys)
    rows = [int(np.argwhere(np.isclose(picture[..., 0], value, atol=0.003))[:, 0].mean()) for value in (0.6, 0.8)]
    assert rows[0] < rows[1]
    columns = [int(np.argwhere(np.isclose(picture[..., 0], value, atol=0.003))[:, 1].mean()) for value in (0.2, 0.6)]
    assert columns[0] < columns[1]
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_names_that_the_font_has_no_picture_of_are_spelled_and_nothing_warns(tmp_path: Path) -> None:
    """Also one that Matplotlib would read as mathematics, and fail on."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_sheet(tmp_path / "a.png", [flat_clip([0.5], label="視频/a$b_$\\x{.mp4 \u00e9\n, 0–1 s")], title="标题")
        draw_sheet(
            tmp_path / "b.png", [flat_clip([0.5], label=r"\u8996\u9891/a$b_$\x{.mp4 é\n, 0–1 s")], title=r"\u6807\u9898"
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_rows_that_are_not_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row 'original' of v is \(2, 8, 8, 1\), wanted \(3, Y, X, 3\)"):
        SheetClip(label="v", times_s=(0, 1, 2), rows={"original": np.zeros((2, 8, 8, 1), np.float32)})
    with pytest.raises(ValueError, match="no clips"):
        draw_sheet(Path("never.png"), [], title="")


def test_the_task_shows_the_decoded_pixels_the_mask_and_a_rebuilt_clip() -> None:
    batch = make_batch(0)
    task = MaeTask(PRESETS["tiny"], mask_ratio=0.75, device=CPU.device)
    clips = task.show(batch, clips=2)
    assert [clip.label for clip in clips] == ["v0, 0–1 s", "v1, 0–1 s"]
    original, masked, rebuilt = (torch.from_numpy(clips[1].rows[name]) for name in clips[1].rows)
    decoded = yuv_to_rgb(torch.from_numpy(batch.pixels[1:2]), colours=[batch.infos[1].colour], siting="center")
    torch.testing.assert_close(original, decoded[0].permute(1, 2, 3, 0) / 255, atol=1e-5, rtol=0)
    hidden = (masked == 0.5).all(dim=-1)
    assert hidden.float().mean().item() == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(masked[~hidden], original[~hidden])
    torch.testing.assert_close(rebuilt[~hidden], original[~hidden])
    assert (rebuilt[hidden] - original[hidden]).abs().mean() > 0.01


def test_the_task_takes_rgb_and_masks_by_the_clips_seeds() -> None:
    task = MaeTask(PRESETS["tiny"], mask_ratio=0.75, device=CPU.device)
    batch = make_batch(3)
    assert loss_of(task, batch) == loss_of(task, batch)
    rgb = make_batch(4)
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 64, 64, 3), dtype=np.uint8)
    object.__setattr__(rgb, "pixels", pixels)
    assert math.isfinite(loss_of(task, rgb))


def loss_of(task: MaeTask, batch: Batch) -> float:
    x = task.prepare(to_device(batch, CPU.device))
    return task.loss(task.rows(x), x, Ranks()).total.item()
