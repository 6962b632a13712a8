"""Measures of content are what they are said to be, on clips whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel

from trainer_client.extract.content import measure_content


def clip(*luma_TYX: object) -> torch.Tensor:
    """Grey frames, 0 to 255, as a batch of one clip."""
    frames = np.array(luma_TYX, np.uint8)
    return torch.from_numpy(np.repeat(frames[None, ..., None], 3, axis=-1))


def test_motion_is_the_mean_step_of_luma_and_complexity_the_spread_of_sobels_gradient() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 24, 20), np.uint8)
    motion, complexity = measure_content(clip(*frames))[0].tolist()
    luma = frames / 255.0
    assert motion == pytest.approx(np.abs(np.diff(luma, axis=0)).mean(), rel=1e-4)
    steep = [np.hypot(sobel(one, 0), sobel(one, 1))[1:-1, 1:-1].std() for one in luma]
    assert complexity == pytest.approx(np.mean(steep), rel=1e-4)


def test_what_stands_has_no_motion_and_what_is_flat_no_complexity() -> None:
    rows = np.arange(32, dtype=np.uint8)[:, None] * np.ones(32, np.uint8)
    standing, flashing = clip(rows, rows, rows), clip(*(np.full((32, 32), value) for value in (0, 255, 0)))
    assert measure_content(standing)[0, 0] == 0
    assert measure_content(flashing)[0].tolist() == pytest.approx([1.0, 0.0], abs=1e-5)
    assert measure_content(clip(rows))[0, 0] == 0, "one frame"
    assert measure_content(clip(np.zeros((2, 2))))[0].tolist() == [0, 0], "two rows"


def test_colours_count_as_luma_and_the_size_of_the_clip_hardly() -> None:
    green = torch.zeros(1, 2, 8, 8, 3, dtype=torch.uint8)
    green[:, 1, ..., 1] = 255
    assert measure_content(green)[0, 0].item() == pytest.approx(0.587, rel=1e-5)
    small = np.kron(np.random.default_rng(1).integers(0, 256, (2, 64, 64)), np.ones((1, 1, 1))).astype(np.uint8)
    large = np.kron(small, np.ones((1, 4, 4), np.uint8))
    assert torch.allclose(measure_content(clip(*small)), measure_content(clip(*large)), rtol=1e-4)


def test_clips_do_not_see_each_other() -> None:
    clips = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (3, 4, 16, 16, 3), np.uint8))
    together = measure_content(clips)
    assert all(torch.equal(measure_content(clips[at : at + 1])[0], together[at]) for at in range(3))
