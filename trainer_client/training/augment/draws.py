"""What is drawn for each clip of a batch: frames, maps of places and of colours, boxes, widths; by the clips' seeds.

It knows rules and seeds, no pixels and no device. Everything is drawn for all clips at once, in NumPy.

Axes: B clips, T frames that go on, S colour steps one after another, 3 red, green, blue.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framefeed.draws import U64, draws_at, keys_u64
from framefeed.errors import BadInput
from framefeed_models.clip_noise import clip_keys, fold
from trainer_client.training.augment.blur import blur_taps
from trainer_client.training.augment.colour_steps import grey_step, jitter_steps, no_steps
from trainer_client.training.augment.rand_augment import rand_augment
from trainer_client.training.augment.rule import AugmentOptions, ClipShape

# Streams of a clip's seed, beside those of framefeed.draws: one for each augmentation, so that none moves another.
_FLIP, _JITTER, _GREY, _BLUR, _RAND, _ERASE, _FRAMES = range(201, 208)
NOISE = 211  # of what fills an erased box, which the device draws


def draw_augmentations(options: AugmentOptions, seeds: U64, shape: ClipShape) -> dict[str, Tensor]:
    """The draws of clips with these 64-bit seeds, float32 and int32 on the host, by name:

    `frames_BT`, which frames to take; `map_B23`, from a pixel (x, y, 1) that goes on to where it is taken;
    `matrix_BS33`, `offset_BS3`, `pivot_BS` and `points_BS4`, the colour steps (see ColourSteps); `box_B4`, left, top,
    right, bottom of what is erased; `keys_B2`, int32, what its noise follows; `blur_rows_M`, int64, which clips to
    blur, and `blur_taps_MK`, with what. What the options leave out is not there.
    Raises BadInput for clips with too few frames for the shift.
    """
    b = len(seeds)
    found = dict[str, npt.NDArray[np.generic]]()
    if options.shift_frames or options.jitter_frames:
        found["frames_BT"] = _frames(options, seeds, shape)
    map_B33 = np.broadcast_to(np.eye(3), (b, 3, 3))
    if options.flip:
        flips_B = uniforms(seeds, stream=_FLIP, draws=1)[:, 0] < options.flip
        mirror_33 = np.array([[-1.0, 0.0, shape.width_px - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        map_B33 = np.where(flips_B[:, None, None], mirror_33, map_B33)
    steps = no_steps(b)
    if options.rand_ops:
        rand = rand_augment(options, uniforms(seeds, stream=_RAND, draws=6 * options.rand_ops), shape)
        map_B33, steps = map_B33 @ rand.map_B33, steps.then(rand.steps)
    if options.jitter:
        steps = steps.then(jitter_steps(options, uniforms(seeds, stream=_JITTER, draws=9)))
    if options.grey:
        steps = steps.then(grey_step(uniforms(seeds, stream=_GREY, draws=1)[:, 0] < options.grey))
    if options.flip or options.rand_ops:
        found["map_B23"] = map_B33[:, :2].astype(np.float32)
    if steps.count:
        found |= steps.arrays()
    if options.erase:
        found["box_B4"] = _boxes(options, seeds, shape)
    if options.blur:
        found |= _blurs(options, seeds)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()}
    if options.erase and options.erase_noise:
        tensors["keys_B2"] = noise_keys(torch.from_numpy(seeds.view(np.int64)))
    return tensors


def noise_keys(seeds_B: Tensor) -> Tensor:
    """What the noise in a clip's erased box is hashed with, as `clip_keys` has it."""
    folded_B = fold(seeds_B, NOISE)
    assert folded_B is not None
    return clip_keys(folded_B)


def uniforms(seeds: U64, *, stream: int, draws: int) -> npt.NDArray[np.float64]:
    """(B, draws) numbers in [0, 1), of 53 random bits each."""
    bits = draws_at(keys_u64(seeds, stream=stream)[:, None], np.arange(draws, dtype=np.uint64))
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53, np.float64)


def _frames(options: AugmentOptions, seeds: U64, shape: ClipShape) -> npt.NDArray[np.int32]:
    frames = shape.frames - options.shift_frames
    if frames < 1:
        seen = f"clips have {shape.frames} frames and shift_frames is {options.shift_frames}"
        raise BadInput(f"augment: {seen}, wanted more frames than that")
    u = uniforms(seeds, stream=_FRAMES, draws=1 + frames)
    first_B1 = np.floor(u[:, :1] * (options.shift_frames + 1))
    moved_BT = np.floor(u[:, 1:] * (2 * options.jitter_frames + 1)) - options.jitter_frames
    taken_BT = np.clip(first_B1 + np.arange(frames) + moved_BT, 0, shape.frames - 1)
    return np.sort(taken_BT, axis=1).astype(np.int32)


def _boxes(options: AugmentOptions, seeds: U64, shape: ClipShape) -> npt.NDArray[np.int32]:
    """Random erasing (Zhong et al. 2020, algorithm 1) with one try: a side longer than the picture is cut to it."""
    u = uniforms(seeds, stream=_ERASE, draws=5)
    least, most = options.erase_area
    area_B = (least + u[:, 1] * (most - least)) * shape.height_px * shape.width_px
    aspect_B = np.exp(np.log(0.3) + u[:, 2] * (np.log(1 / 0.3) - np.log(0.3)))
    height_B = np.minimum(np.round(np.sqrt(area_B * aspect_B)), shape.height_px)
    width_B = np.minimum(np.round(np.sqrt(area_B / aspect_B)), shape.width_px)
    top_B = np.floor(u[:, 3] * (shape.height_px - height_B + 1))
    left_B = np.floor(u[:, 4] * (shape.width_px - width_B + 1))
    box_B4 = np.stack((left_B, top_B, left_B + width_B, top_B + height_B), axis=1)
    return (box_B4 * (u[:, :1] < options.erase)).astype(np.int32)


def _blurs(options: AugmentOptions, seeds: U64) -> dict[str, npt.NDArray[np.generic]]:
    u = uniforms(seeds, stream=_BLUR, draws=2)
    least, most = options.blur_px
    rows_M = np.flatnonzero(u[:, 0] < options.blur)
    widths_px = least + u[rows_M, 1] * (most - least)
    return {"blur_rows_M": rows_M, "blur_taps_MK": blur_taps(widths_px, widest_px=most)}
