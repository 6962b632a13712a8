"""Decoded uint8 clips to normalised float clips, on whatever device they are on; knows pixels, not tasks or models.

Axes: B clips, T frames, Y rows, X columns, C channels, R rows of an I420 buffer (R = 3/2 Y).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from framefeed.clip import Colour, Matrix
from framefeed.errors import BadInput
from framefeed.show_value import show_value
from framefeed_models.pixel_norm import IMAGENET, PixelNorm

Siting = Literal["left", "center"]

# (Kr, Kb): luma is Kr R + (1 - Kr - Kb) G + Kb B. ITU-R BT.601-7 §2.5.1, BT.709-6 §3.2, BT.2020-2 table 4.
_LUMA_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.30, 0.11),
}


def normalise_rgb(rgb_BTYXC: Tensor, *, norm: PixelNorm = IMAGENET, dtype: torch.dtype = torch.float32) -> Tensor:
    """RGB clips, uint8 (B, T, Y, X, C), to (x / 255 - mean) / std, (B, C, T, Y, X) of `dtype`, computed in float32.

    Raises BadInput if the clips are not that.
    """
    check_clips(rgb_BTYXC, yuv=False)
    return normalise_codes(rgb_BTYXC.permute(0, 4, 1, 2, 3).float(), norm).to(dtype).contiguous()


def normalise_yuv(
    i420_BTRX: Tensor,
    *,
    colours: Sequence[Colour],
    siting: Siting,
    norm: PixelNorm = IMAGENET,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """I420 clips to what `normalise_rgb` makes of their RGB pixels, (B, C, T, Y, X) of `dtype`; see `yuv_to_rgb`."""
    return normalise_codes(yuv_to_rgb(i420_BTRX, colours=colours, siting=siting), norm).to(dtype)


def yuv_to_rgb(i420_BTRX: Tensor, *, colours: Sequence[Colour], siting: Siting) -> Tensor:
    """I420 clips, uint8 (B, T, 3/2 Y, X), to RGB in [0, 255], float32 (B, C, T, Y, X), clamped but not rounded.

    Each frame is one I420 buffer: Y plane (Y, X), then U and V planes (Y/2, X/2), without padding. `colours` names one
    matrix and range for each clip. Chroma is upsampled bilinearly from where its samples lie: half way between two
    rows, and across a row by `siting`, on which libraries disagree: on even columns (`left`, what H.264 and H.265 mean
    unless they say otherwise) or half way between two (`center`: JPEG's, and libswscale's unless told otherwise, so
    that of clips it has scaled). Within half a code of FFmpeg's accurate conversion.
    Raises BadInput if the clips are not that, the number of colours is not that of clips, or a name is unknown.
    """
    check_clips(i420_BTRX, yuv=True)
    if len(colours) != i420_BTRX.shape[0]:
        raise BadInput(f"YUV clips: {len(colours)} colours for {i420_BTRX.shape[0]} clips, wanted one for each clip")
    if siting not in get_args(Siting):
        raise BadInput(f"YUV clips: siting is {show_value(siting)}, wanted one of {get_args(Siting)}")
    return map_yuv(i420_BTRX, colour_maps(colours).to(i420_BTRX.device), siting=siting)


def map_yuv(i420_BTRX: Tensor, maps_B34: Tensor, *, siting: Siting) -> Tensor:
    """`yuv_to_rgb` of clips that are checked, by the colour map of each, on their device."""
    height, width = i420_BTRX.shape[2] // 3 * 2, i420_BTRX.shape[3]
    frames_BTV = i420_BTRX.flatten(2)
    b, t = i420_BTRX.shape[:2]
    luma_BTYX = frames_BTV[:, :, : height * width].reshape(b, t, height, width).float()
    chroma_BT2yx = frames_BTV[:, :, height * width :].reshape(b, t, 2, height // 2, width // 2)
    chroma_B2Tyx = chroma_BT2yx.transpose(1, 2).float()
    chroma_B2TYX = _upsample(chroma_B2Tyx, siting)
    maps_B34111 = maps_B34[..., None, None, None]
    # Sums of products, not a matrix product: that would run in bf16 under autocast and in TF32 where it is allowed.
    rgb_B3TYX = maps_B34111[:, :, 3] + maps_B34111[:, :, 0] * luma_BTYX[:, None]
    for plane in (0, 1):
        rgb_B3TYX = rgb_B3TYX.addcmul_(maps_B34111[:, :, plane + 1], chroma_B2TYX[:, plane, None])
    return rgb_B3TYX.clamp_(0.0, 255.0)


def _upsample(chroma_B2Tyx: Tensor, siting: Siting) -> Tensor:
    # A doubled axis holds each sample twice, moved towards its neighbour before and its neighbour after: half way
    # sited ones by a quarter of a chroma pixel, left-sited ones by none on the even column and half of one on the odd.
    before, after = (0.0, 0.5) if siting == "left" else (0.25, 0.25)
    columns = _double(chroma_B2Tyx, before=before, after=after)
    return _double(columns.transpose(-1, -2), before=0.25, after=0.25).transpose(-1, -2)


def _double(samples: Tensor, *, before: float, after: float) -> Tensor:
    previous = torch.cat((samples[..., :1], samples[..., :-1]), dim=-1)
    following = torch.cat((samples[..., 1:], samples[..., -1:]), dim=-1)
    pair = (samples.lerp(previous, before), samples.lerp(following, after))
    return torch.stack(pair, dim=-1).flatten(-2)


def colour_maps(colours: Sequence[Colour]) -> Tensor:
    """The affine map from YUV to RGB of each clip, rgb = map[:, :3] yuv + map[:, 3] in codes, float32 (B, 3, 4)."""
    return torch.stack([_colour_map(colour) for colour in colours])


@lru_cache(maxsize=64)
def _colour_map(colour: Colour) -> Tensor:
    matrix_33 = _conversion(colour)
    zero = torch.tensor((0.0 if colour.full_range else 16.0, 128.0, 128.0), dtype=torch.float64)
    return torch.cat((matrix_33, -(matrix_33 @ zero)[:, None]), dim=1).float()


def _conversion(colour: Colour) -> Tensor:
    red, blue = _LUMA_WEIGHTS[colour.matrix]
    green = 1.0 - red - blue
    # R = Y + 2 (1 - Kr) V, B = Y + 2 (1 - Kb) U, and G from the definition of luma.
    matrix = torch.tensor(
        [
            [1.0, 0.0, 2 * (1 - red)],
            [1.0, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1.0, 2 * (1 - blue), 0.0],
        ],
        dtype=torch.float64,
    )
    # Limited range holds luma in 219 codes and chroma in 224 (BT.601-7 §2.5.3).
    spans = (255.0, 255.0, 255.0) if colour.full_range else (219.0, 224.0, 224.0)
    return matrix * (255.0 / torch.tensor(spans, dtype=torch.float64))


def normalise_codes(rgb_BCTYX: Tensor, norm: PixelNorm) -> Tensor:
    """Float RGB in 8-bit codes to (x / 255 - mean) / std, in place."""
    for plane, mean, std in zip(rgb_BCTYX.unbind(1), norm.mean, norm.std, strict=True):
        plane.sub_(255.0 * mean).div_(255.0 * std)
    return rgb_BCTYX


def check_clips(clips: Tensor, *, yuv: bool) -> None:
    """Raise BadInput for clips that are not uint8 of the layout."""
    if yuv and (clips.ndim != 4 or clips.dtype != torch.uint8 or clips.shape[2] % 3 or clips.shape[3] % 2):
        raise BadInput(f"YUV clips are {_seen(clips)}, wanted uint8 (B, T, 3/2 Y, X) of even Y and X")
    if not yuv and (clips.ndim != 5 or clips.shape[-1] != 3 or clips.dtype != torch.uint8):
        raise BadInput(f"RGB clips are {_seen(clips)}, wanted uint8 (B, T, Y, X, 3)")


def _seen(clips: Tensor) -> str:
    return f"{str(clips.dtype).removeprefix('torch.')} {tuple(clips.shape)}"
