"""RandAugment (Cubuk et al. 2020) as maps of places and colour steps; it knows uniforms and strengths, no pixels.

The operations and their ranges are those of timm's increasing set, which AVION's and VideoMAE's fine-tuning name as
rand-m7-n4-mstd0.5-inc1, without autocontrast, equalize and sharpness: those need a histogram or neighbours of pixels,
so another pass over them. A clip's places are moved once, by all of its operations together, and before its colours;
timm moves them operation by operation, and interpolates each time.

Axes: B clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer_client.training.augment.colour_steps import ColourSteps, Floats, no_steps, saturated
from trainer_client.training.augment.rule import AugmentOptions, ClipShape

OPERATIONS = (
    *("brightness", "contrast", "colour", "invert", "posterize", "solarize", "solarize_add"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
_TURN_DEGREES, _SHEAR, _TRANSLATE, _ADD, _ENHANCE = 30.0, 0.3, 0.45, 110.0, 0.9  # at strength 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandAugmented:
    """`map_B33` is from a pixel that goes on to where it is taken."""

    map_B33: Floats
    steps: ColourSteps


def rand_augment(options: AugmentOptions, u: Floats, shape: ClipShape) -> RandAugmented:
    """`rand_ops` operations of each clip, of uniforms (B, 6 · rand_ops)."""
    b, ops = len(u), options.rand_ops
    drawn = u.reshape(b, ops, 6)
    chosen = np.floor(drawn[..., 0] * len(OPERATIONS)).astype(np.int64)
    chosen[drawn[..., 1] >= options.rand_share] = -1
    # Box & Muller 1958.
    normal = np.sqrt(-2 * np.log(1 - drawn[..., 2])) * np.cos(2 * np.pi * drawn[..., 3])
    level = np.clip(options.rand_magnitude + options.rand_std * normal, 0.0, 10.0) / 10
    signed = np.where(drawn[..., 4] < 0.5, -level, level)
    map_B33 = np.tile(np.eye(3), (b, 1, 1))
    for op in range(ops):
        map_B33 = map_B33 @ _places(chosen[:, op], signed[:, op], shape)
    return RandAugmented(map_B33=map_B33, steps=_colours(chosen, level, signed))


def _places(chosen_B: npt.NDArray[np.int64], signed_B: Floats, shape: ClipShape) -> Floats:
    """One operation of each clip as a map about the picture's middle, (B, 3, 3)."""
    b = len(chosen_B)

    def of(name: str) -> Floats:
        return np.where(chosen_B == OPERATIONS.index(name), signed_B, 0.0)

    angle = np.deg2rad(_TURN_DEGREES) * of("rotate")
    about_B33 = np.tile(np.eye(3), (b, 1, 1))
    about_B33[:, 0, 0] = about_B33[:, 1, 1] = np.cos(angle)
    about_B33[:, 0, 1] = -np.sin(angle) + _SHEAR * of("shear_x")
    about_B33[:, 1, 0] = np.sin(angle) + _SHEAR * of("shear_y")
    about_B33[:, 0, 2] = _TRANSLATE * shape.width_px * of("translate_x")
    about_B33[:, 1, 2] = _TRANSLATE * shape.height_px * of("translate_y")
    to_middle, back = np.eye(3), np.eye(3)
    back[:2, 2] = (shape.width_px - 1) / 2, (shape.height_px - 1) / 2
    to_middle[:2, 2] = -back[:2, 2]
    return back @ about_B33 @ to_middle


def _colours(chosen: npt.NDArray[np.int64], level: Floats, signed: Floats) -> ColourSteps:
    """The colour operations, one step for each operation of a clip; a move of places is a step that changes nothing."""
    steps = no_steps(len(chosen), steps=chosen.shape[1])
    is_op = {name: chosen == number for number, name in enumerate(OPERATIONS)}
    factor = np.maximum(1 + _ENHANCE * signed, 0.1)
    for name in ("brightness", "contrast"):
        steps.matrix_BS33[is_op[name]] = factor[is_op[name]][:, None, None] * np.eye(3)
    steps.pivot_BS[is_op["contrast"]] = 1 - factor[is_op["contrast"]]
    steps.matrix_BS33[is_op["colour"]] = saturated(factor[is_op["colour"]])
    steps.matrix_BS33[is_op["invert"]] = -np.eye(3)
    steps.offset_BS3[is_op["invert"]] = 255.0
    kept_bits = 4 - np.floor(level * 4)
    for place, name, values in (
        (0, "posterize", 2.0 ** (8 - kept_bits)),
        (1, "solarize", 256 - np.floor(level * 256)),
        (2, "solarize_add", np.floor(level * _ADD)),
        (3, "solarize_add", np.full_like(level, 128.0)),
    ):
        steps.points_BS4[is_op[name], place] = values[is_op[name]]
    return steps
