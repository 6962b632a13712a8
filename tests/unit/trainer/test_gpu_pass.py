"""The GPU's kernel, interpreted on a CPU, is the plain version: every augmentation, both layouts, odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from framefeed.clip import Colour
from framefeed_models.pixel_norm import CLIP
from trainer_client.training.augment.augment import TO_RGB
from trainer_client.training.augment.blur import blur_in_place
from trainer_client.training.augment.draws import draw_augmentations
from trainer_client.training.augment.one_pass import Pass, one_pass
from trainer_client.training.augment.pixels import colour_maps
from trainer_client.training.augment.rule import AugmentOptions, ClipShape

if torch.cuda.is_available():
    pytest.skip("tests/gpu has it on the GPU", allow_module_level=True)
pytest.importorskip("triton", reason="Triton comes with torch's CUDA build")

from trainer_client.training.augment.gpu_pass import gpu_pass

COLOURS = [Colour(matrix="bt709"), Colour(full_range=True), Colour(matrix="bt2020")]
ALL = AugmentOptions(
    flip=0.5, jitter=0.8, grey=0.2, rand_ops=4, rand_share=1.0, erase=0.7, shift_frames=1, jitter_frames=1
)
CASES = {
    "none": AugmentOptions(),
    "jitter": AugmentOptions(jitter=1.0),
    "flip": AugmentOptions(flip=0.5),
    "all": ALL,
    "noise": AugmentOptions(erase=1.0, erase_noise=True),
    "blur": AugmentOptions(blur=0.7, blur_px=(0.5, 3.0)),
    "wide blur": AugmentOptions(blur=1.0, blur_px=(5.0, 9.0), jitter=1.0),
}


@pytest.mark.parametrize("shape", [(3, 3, 27, 22), (3, 2, 12, 20, 3)])
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_the_plain_version(name: str, shape: tuple[int, ...]) -> None:
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    yuv = len(shape) == 4
    size = ClipShape(frames=shape[1], height_px=shape[2] * 2 // 3 if yuv else shape[2], width_px=shape[3])
    draws = draw_augmentations(CASES[name], np.arange(7, 10, dtype=np.uint64), size)
    if yuv:
        draws[TO_RGB] = colour_maps(COLOURS)
    what = Pass(norm=CLIP, dtype=torch.float32, noise=CASES[name].erase_noise)
    seen, wanted = (each(pixels, draws, torch.arange(7, 10), what=what) for each in (gpu_pass, one_pass))
    if "blur_rows_M" in draws:
        assert len(draws["blur_rows_M"])
        blur_in_place(wanted, draws["blur_rows_M"], draws["blur_taps_MK"])
    assert seen.shape == wanted.shape
    # A place or a code just at an edge may be rounded to the other side of it.
    assert ((seen - wanted).abs() > 1e-4).float().mean() < 1e-3
    torch.testing.assert_close(seen.mean(), wanted.mean(), atol=1e-4, rtol=0)
