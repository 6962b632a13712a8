"""Changes of colour as numbers, clip by clip: what brightness, contrast, hue and their like do to a pixel.

It knows no pixels and draws nothing. Axes: B clips, S steps one after another, 3 red, green, blue in 8-bit codes.

A step is x ← clamp(matrix x + offset + pivot · grey(mean)), with the mean colour of the clip before the step, then
`points`: (step, threshold, added, below): x + added where x is below `below`, 255 - x from `threshold` on, and the
largest multiple of `step` that is not above it. The clamp is to [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer_client.training.augment.rule import AugmentOptions

Floats = npt.NDArray[np.float64]

GREY = np.array([0.299, 0.587, 0.114])  # luma of ITU-R BT.601, as Pillow's
POINTS_OFF = (0.0, 256.0, 0.0, 0.0)
_YIQ = np.array([GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColourSteps:
    """Steps of a batch's clips; see the head of this file."""

    matrix_BS33: Floats
    offset_BS3: Floats
    pivot_BS: Floats
    points_BS4: Floats

    @property
    def count(self) -> int:
        """Steps of a clip."""
        return self.matrix_BS33.shape[1]

    def then(self, others: ColourSteps) -> ColourSteps:
        """These, and others after them."""
        both = zip(self.arrays().items(), others.arrays().values(), strict=True)
        return ColourSteps(**{name: np.concatenate((own, other), axis=1) for (name, own), other in both})

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """All of it by name, as the device takes it."""
        return {name: np.asarray(getattr(self, name), np.float32) for name in self.__slots__}


def no_steps(b: int, *, steps: int = 0) -> ColourSteps:
    """Steps that change nothing."""
    return ColourSteps(
        matrix_BS33=np.tile(np.eye(3), (b, steps, 1, 1)),
        offset_BS3=np.zeros((b, steps, 3)),
        pivot_BS=np.zeros((b, steps)),
        points_BS4=np.tile(np.array(POINTS_OFF), (b, steps, 1)),
    )


def saturated(factor: Floats) -> Floats:
    """f x + (1 - f) grey(x) as matrices, (…, 3, 3)."""
    f = factor[..., None, None]
    return f * np.eye(3) + (1 - f) * np.broadcast_to(GREY, (3, 3))


def turned(share: Floats) -> Floats:
    """Hues turned by a share of a full turn, grey kept, as matrices (…, 3, 3): a rotation in YIQ's chroma plane."""
    cos, sin, zero, one = np.cos(2 * np.pi * share), np.sin(2 * np.pi * share), 0 * share, 1 + 0 * share
    rows = [np.stack(row, axis=-1) for row in ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))]
    turn: Floats = np.linalg.inv(_YIQ) @ np.stack(rows, axis=-2) @ _YIQ
    return turn


def jitter_steps(options: AugmentOptions, u: Floats) -> ColourSteps:
    """Colour jitter of uniforms (B, 9): four steps in an order that is drawn (torchvision's ColorJitter).

    Hue is turned in YIQ and not in HSV, and what contrast turns around is the mean before the step as it follows from
    the clip's mean colour, without what the clamps of earlier steps take away.
    """
    b = len(u)
    steps, rows = no_steps(b, steps=4), np.arange(b)
    place = np.argsort(u[:, 1:5], axis=1)  # of brightness, contrast, saturation, hue
    on = u[:, 0] < options.jitter
    strengths = np.array([options.brightness, options.contrast, options.saturation])
    factors = np.where(on[:, None], 1 + strengths * (2 * u[:, 5:8] - 1), 1.0)
    shares = np.where(on, options.hue * (2 * u[:, 8] - 1), 0.0)
    steps.matrix_BS33[rows, place[:, 0]] = factors[:, 0, None, None] * np.eye(3)
    steps.matrix_BS33[rows, place[:, 1]] = factors[:, 1, None, None] * np.eye(3)
    steps.pivot_BS[rows, place[:, 1]] = 1 - factors[:, 1]
    steps.matrix_BS33[rows, place[:, 2]] = saturated(factors[:, 2])
    steps.matrix_BS33[rows, place[:, 3]] = turned(shares)
    return steps


def grey_step(is_grey_B: npt.NDArray[np.bool_]) -> ColourSteps:
    """One step that takes the colours from some clips."""
    steps = no_steps(len(is_grey_B), steps=1)
    steps.matrix_BS33[:, 0] = saturated(np.where(is_grey_B, 0.0, 1.0))
    return steps
