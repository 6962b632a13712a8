"""Augmentation on the GPU: the kernel is the plain version, waits for nothing, and takes little memory and time.

Skipped where there is no CUDA.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from framefeed.clip import Colour  # noqa: E402
from framefeed_bench.gpu_step import AUGMENTATIONS, augmentation  # noqa: E402
from framefeed_bench.gpu_thread import LIMIT_MS, thread_ms  # noqa: E402
from framefeed_models.pixel_norm import CLIP  # noqa: E402
from trainer_client.training.augment.augment import TO_RGB, augment_clips  # noqa: E402
from trainer_client.training.augment.blur import blur_in_place  # noqa: E402
from trainer_client.training.augment.draws import draw_augmentations  # noqa: E402
from trainer_client.training.augment.one_pass import Pass, one_pass  # noqa: E402
from trainer_client.training.augment.pixels import colour_maps  # noqa: E402
from trainer_client.training.augment.rule import AugmentOptions, ClipShape  # noqa: E402

CUDA = torch.device("cuda")
CLIPS = 256
STEP_SHARE, STEP_CLIPS_PER_S = 0.01, 780.0  # a ViT-B dual encoder of 4 frames, compiled, bf16, as an H200 steps


def make_clips(options: AugmentOptions, *, clips: int, side_px: int = 224, frames: int = 4) -> tuple:
    generator = torch.Generator(CUDA).manual_seed(0)
    shape = (clips, frames, side_px * 3 // 2, side_px)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=CUDA, generator=generator)
    size = ClipShape(frames=frames, height_px=side_px, width_px=side_px)
    draws = draw_augmentations(options, np.arange(clips, dtype=np.uint64), size)
    draws[TO_RGB] = colour_maps([Colour(matrix="bt709")] * clips)
    return pixels, {name: tensor.to(CUDA) for name, tensor in draws.items()}, torch.arange(clips, device=CUDA)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_kernel_is_the_plain_version(name: str) -> None:
    options = AUGMENTATIONS[name]
    pixels, draws, seeds_B = make_clips(options, clips=8, side_px=64)
    what = Pass(norm=CLIP, dtype=torch.float32, noise=options.erase_noise)
    seen = augment_clips(pixels, draws, seeds_B, what=what)
    wanted = one_pass(pixels, draws, seeds_B, what=what)
    if options.blur:
        blur_in_place(wanted, draws["blur_rows_M"], draws["blur_taps_MK"])
    assert ((seen - wanted).abs() > 1e-3).float().mean() < 1e-3


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_it_waits_for_nothing_and_takes_little_memory_and_time(name: str) -> None:
    found = augmentation(AUGMENTATIONS[name], CLIPS)
    assert found["memory_over_output"] <= 1.1, found
    assert found["ms"] <= 1e3 * STEP_SHARE * CLIPS / STEP_CLIPS_PER_S, found


def test_the_training_thread_s_part_is_short() -> None:
    assert thread_ms(CLIPS, steps=20)["taken"] <= LIMIT_MS
