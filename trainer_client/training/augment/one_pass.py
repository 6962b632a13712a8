"""From uint8 clips to normalised ones in one pass: every output pixel is a formula of where it comes from.

It knows tensors of draws, not who drew them, nor tasks. This is the plain version, for CPUs and to compare with:
`gpu_pass` has the same formulas as one kernel, which keeps nothing but its output. Nothing here waits for the device.

Axes: B clips, F frames as fed, T frames that go on, Y rows, X columns, R rows of an I420 buffer, S colour steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from framefeed_models.clip_noise import clip_bits, fold
from framefeed_models.pixel_norm import PixelNorm
from trainer_client.training.augment.colour_steps import GREY
from trainer_client.training.augment.draws import NOISE

Planes = tuple[Tensor, Tensor, Tensor]
FILL = 127.5  # of places outside the picture, in codes
_RED, _GREEN, _BLUE = (float(weight) for weight in GREY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What of a pass is the same in every batch of a run. `noise`: an erased box is filled with noise."""

    norm: PixelNorm
    dtype: torch.dtype
    noise: bool = False


def one_pass(pixels: Tensor, draws: Mapping[str, Tensor], seeds_B: Tensor, *, what: Pass) -> Tensor:
    """Clips, uint8 (B, F, R, X) of I420 or (B, F, Y, X, 3) of RGB, to (B, 3, T, Y, X) of the pass's dtype.

    `draws` are those of `Draws`, of which any may be missing, and for I420 `to_rgb_B34`, which `colour_maps` makes.
    """
    taken = _Taken(pixels, draws)
    colours = _YUV(taken, draws["to_rgb_B34"]) if pixels.ndim == 4 else _RGB(taken)
    planes = colours.planes()
    if "matrix_BS33" in draws:
        planes = _step_colours(planes, colours.mean_colour(), draws)
    out = [
        ((plane - 255.0 * mean) / (255.0 * std))
        for plane, mean, std in zip(planes, what.norm.mean, what.norm.std, strict=True)
    ]
    out_BCTYX = torch.stack(out, dim=1)
    if "box_B4" in draws:
        out_BCTYX = _erase(out_BCTYX, draws["box_B4"], seeds_B, noise=what.noise)
    return out_BCTYX.to(what.dtype)


class _Taken:
    """Where each pixel that goes on is taken from: which frame, and which place in it."""

    def __init__(self, pixels: Tensor, draws: Mapping[str, Tensor]) -> None:
        self.yuv = pixels.ndim == 4
        self.clips, self.fed = pixels.shape[:2]
        self.height, self.width = pixels.shape[2] * 2 // 3 if self.yuv else pixels.shape[2], pixels.shape[3]
        self.bytes_BFV = pixels.flatten(2)
        device = pixels.device
        self.clip_B111 = torch.arange(self.clips, device=device).view(-1, 1, 1, 1)
        frames = draws["frames_BT"] if "frames_BT" in draws else torch.arange(self.fed, device=device)[None]
        self.frame_BT11 = frames[:, :, None, None]
        rows, columns = (torch.arange(n, device=device) for n in (self.height, self.width))
        self.row, self.column = rows[:, None].float(), columns[None].float()
        self.moved = "map_B23" in draws
        if self.moved:
            map_B23 = draws["map_B23"][:, :, :, None, None, None]
            self.row, self.column = (
                map_B23[:, axis, 0] * columns[None].float() + map_B23[:, axis, 1] * rows[:, None] + map_B23[:, axis, 2]
                for axis in (1, 0)
            )

    def nearest(self, *, first: int, pitch: int) -> Tensor:
        """Bytes at whole places: `first` + (row · X + column) · pitch of the frame."""
        place = self.row.long() * self.width + self.column.long()
        return self.at(first + place * pitch)

    def between(self, row: Tensor, column: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        """Bytes bilinearly between the places of a grid: its first byte, rows, columns, and bytes between columns.

        Beyond the outermost places it is theirs.
        """
        first, rows, columns, pitch = grid
        top, left = row.floor(), column.floor()
        down, right = row - top, column - left

        def byte(y: Tensor, x: Tensor) -> Tensor:
            place = y.clamp(0, rows - 1).long() * columns + x.clamp(0, columns - 1).long()
            return self.at(first + place * pitch)

        upper = byte(top, left).lerp(byte(top, left + 1), right)
        return upper.lerp(byte(top + 1, left).lerp(byte(top + 1, left + 1), right), down)

    def at(self, place: Tensor) -> Tensor:
        """The bytes at these numbers in the frames, float32 (B, T, Y, X)."""
        return self.bytes_BFV[self.clip_B111, self.frame_BT11, place].float()

    def inside(self, plane: Tensor) -> Tensor:
        """The plane with what lies outside the picture filled."""
        if not self.moved:
            return plane
        is_inside = (self.row > -1) & (self.row < self.height) & (self.column > -1) & (self.column < self.width)
        return torch.where(is_inside, plane, FILL)


class _YUV:
    """I420 to RGB: luma where it is, chroma between its samples, which lie half way between pixels (`center`)."""

    def __init__(self, taken: _Taken, to_rgb_B34: Tensor) -> None:
        self._taken, self._to_rgb_B34 = taken, to_rgb_B34

    def planes(self) -> Planes:
        taken = self._taken
        height, width = taken.height, taken.width
        if taken.moved:
            y = taken.between(taken.row, taken.column, (0, height, width, 1))
        else:
            y = taken.nearest(first=0, pitch=1)
        row, column, half = (taken.row - 0.5) / 2, (taken.column - 0.5) / 2, (height // 2) * (width // 2)
        u, v = (
            taken.between(row, column, (height * width + plane * half, height // 2, width // 2, 1)) for plane in (0, 1)
        )
        maps = self._to_rgb_B34[:, :, :, None, None, None]
        red, green, blue = (
            taken.inside((maps[:, c, 0] * y + maps[:, c, 1] * u + maps[:, c, 2] * v + maps[:, c, 3]).clamp(0.0, 255.0))
            for c in range(3)
        )
        return red, green, blue

    def mean_colour(self) -> Tensor:
        taken = self._taken
        luma = taken.height * taken.width
        parts = (slice(0, luma), slice(luma, luma + luma // 4), slice(luma + luma // 4, None))
        mean_B3 = torch.stack([taken.bytes_BFV[:, :, part].float().mean(dim=(1, 2)) for part in parts], dim=1)
        return _mapped(self._to_rgb_B34[:, :, :3], mean_B3) + self._to_rgb_B34[:, :, 3]


class _RGB:
    """RGB as it is."""

    def __init__(self, taken: _Taken) -> None:
        self._taken = taken

    def planes(self) -> Planes:
        taken = self._taken
        if taken.moved:
            grids = [(c, taken.height, taken.width, 3) for c in range(3)]
            red, green, blue = (taken.inside(taken.between(taken.row, taken.column, grid)) for grid in grids)
        else:
            red, green, blue = (taken.nearest(first=c, pitch=3) for c in range(3))
        return red, green, blue

    def mean_colour(self) -> Tensor:
        taken = self._taken
        return taken.bytes_BFV.reshape(taken.clips, -1, 3).float().mean(dim=1)


def _step_colours(planes: Planes, mean_B3: Tensor, draws: Mapping[str, Tensor]) -> Planes:
    """The colour steps of ColourSteps, one after another. Sums of products, so that autocast does not touch them."""
    for step in range(draws["matrix_BS33"].shape[1]):
        matrix_B33, points_B4 = draws["matrix_BS33"][:, step], draws["points_BS4"][:, step]
        grey_B = _RED * mean_B3[:, 0] + _GREEN * mean_B3[:, 1] + _BLUE * mean_B3[:, 2]
        offset_B3 = draws["offset_BS3"][:, step] + (draws["pivot_BS"][:, step] * grey_B)[:, None]
        mean_B3 = _mapped(matrix_B33, mean_B3) + offset_B3
        red, green, blue = (
            _points(
                (
                    _wide(matrix_B33[:, c, 0]) * planes[0]
                    + _wide(matrix_B33[:, c, 1]) * planes[1]
                    + _wide(matrix_B33[:, c, 2]) * planes[2]
                    + _wide(offset_B3[:, c])
                ).clamp(0.0, 255.0),
                points_B4,
            )
            for c in range(3)
        )
        planes = red, green, blue
    return planes


def _points(x: Tensor, points_B4: Tensor) -> Tensor:
    step, threshold, added, below = (_wide(points_B4[:, n]) for n in range(4))
    x = torch.where(x < below, (x + added).clamp(max=255.0), x)
    x = torch.where(x >= threshold, 255.0 - x, x)
    return torch.where(step > 1, (x / step.clamp(min=1)).floor() * step, x)


def _erase(x_BCTYX: Tensor, box_B4: Tensor, seeds_B: Tensor, *, noise: bool) -> Tensor:
    """The box of each clip filled through all frames; 0 is the mean colour once pixels are normalised."""
    rows, columns = (torch.arange(n, device=x_BCTYX.device) for n in x_BCTYX.shape[-2:])
    left, top, right, bottom = (box_B4[:, n, None, None] for n in range(4))
    inside_BYX = (rows[:, None] >= top) & (rows[:, None] < bottom) & (columns >= left) & (columns < right)
    filled = torch.zeros((), device=x_BCTYX.device)
    if noise:
        bits = clip_bits(fold(seeds_B, NOISE), seeds_B, draws=x_BCTYX[0].numel()).view(x_BCTYX.shape)
        # Box & Muller 1958, of 16 and 15 random bits.
        radius = torch.sqrt(-2.0 * torch.log(((bits >> 15).float() + 1.0) / 65536.0))
        filled = radius * torch.cos((bits & 0x7FFF).float() * (2 * torch.pi / 32768.0))
    return torch.where(inside_BYX[:, None, None], filled, x_BCTYX)


def _mapped(matrix_B33: Tensor, x_B3: Tensor) -> Tensor:
    return (matrix_B33 * x_B3[:, None]).sum(dim=2)


def _wide(x_B: Tensor) -> Tensor:
    return x_B.view(-1, 1, 1, 1)
