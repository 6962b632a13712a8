"""Pixels to floats: exact for RGB, within half a code of FFmpeg's accurate conversion for YUV."""

from __future__ import annotations

from typing import Any, get_args

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from framefeed.clip import Colour, Matrix
from framefeed.errors import BadInput
from framefeed_models.pixel_norm import CLIP, IMAGENET, LAVILA, PixelNorm
from trainer_client.training.augment.pixels import Siting, normalise_rgb, normalise_yuv, yuv_to_rgb

HEIGHT_PX, WIDTH_PX = 48, 64
ACCURATE = "bilinear+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
# Codes of white and black and of the primaries in limited-range BT.601 and BT.709, rounded to 8 bits.
KNOWN: list[tuple[Matrix, tuple[int, int, int], tuple[int, int, int]]] = [
    ("bt601", (235, 128, 128), (255, 255, 255)),
    ("bt709", (16, 128, 128), (0, 0, 0)),
    ("bt601", (81, 90, 240), (255, 0, 0)),
    ("bt601", (41, 240, 110), (0, 0, 255)),
    ("bt709", (63, 102, 240), (255, 0, 0)),
    ("bt709", (173, 42, 26), (0, 255, 0)),
    ("bt2020", (74, 97, 240), (255, 0, 0)),
]


def plane(rng: np.random.Generator, shape: tuple[int, int], *, grain_px: int, high: int) -> npt.NDArray[np.uint8]:
    """Noise of grains this large, between the legal codes 16 and `high`."""
    coarse = torch.from_numpy(rng.uniform(16, high, (1, 1, shape[0] // grain_px, shape[1] // grain_px)))
    smooth = interpolate(coarse, size=shape, mode="bilinear", align_corners=False)[0, 0]
    return smooth.round().to(torch.uint8).numpy()


def make_i420(seed: int, *, grain_px: int = 4) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    half = (HEIGHT_PX // 2, WIDTH_PX // 2)
    planes = [
        plane(rng, (HEIGHT_PX, WIDTH_PX), grain_px=grain_px, high=235),
        *(plane(rng, half, grain_px=grain_px, high=240) for _ in range(2)),
    ]
    return np.concatenate([p.ravel() for p in planes]).reshape(HEIGHT_PX * 3 // 2, WIDTH_PX)


def flat_i420(yuv: tuple[int, int, int], *, height_px: int = 4, width_px: int = 6) -> Tensor:
    """One clip of one frame of one colour, uint8 (1, 1, 3/2 Y, X)."""
    luma, quarter = height_px * width_px, height_px * width_px // 4
    codes = [yuv[0]] * luma + [yuv[1]] * quarter + [yuv[2]] * quarter
    return torch.tensor(codes, dtype=torch.uint8).reshape(1, 1, height_px * 3 // 2, width_px)


def by_ffmpeg(i420: npt.NDArray[np.uint8], colour: Colour, siting: Siting) -> npt.NDArray[np.float64]:
    """The frame as libswscale's accurate conversion has it, (Y, X, 3)."""
    graph = av.filter.Graph()
    chroma_at = 0 if siting == "left" else 128
    nodes = [
        graph.add_buffer(width=WIDTH_PX, height=HEIGHT_PX, format="yuv420p", time_base=1),
        graph.add(
            "scale",
            f"flags={ACCURATE}:in_color_matrix={colour.matrix}:in_range={'full' if colour.full_range else 'limited'}"
            f":out_range=full:in_h_chr_pos={chroma_at}:in_v_chr_pos=128",
        ),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    frame = av.VideoFrame.from_ndarray(i420, format="yuv420p")
    frame.pts = 0
    graph.push(frame)
    converted = graph.pull()
    assert isinstance(converted, av.VideoFrame)
    return converted.to_ndarray().astype(np.float64)


@pytest.mark.parametrize("grain_px", [1, 4, 8])
@pytest.mark.parametrize("siting", get_args(Siting))
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", get_args(Matrix))
def test_yuv_equals_ffmpegs_accurate_conversion(
    matrix: Matrix, full_range: bool, siting: Siting, grain_px: int
) -> None:
    i420, colour = make_i420(3, grain_px=grain_px), Colour(matrix=matrix, full_range=full_range)
    wanted = by_ffmpeg(i420, colour, siting)
    rgb_BCTYX = yuv_to_rgb(torch.from_numpy(i420)[None, None], colours=[colour], siting=siting)
    seen = rgb_BCTYX[0, :, 0].permute(1, 2, 0).double().numpy()
    psnr_db = 10 * np.log10(255**2 / max(((seen.round() - wanted) ** 2).mean(), 1e-9))
    assert psnr_db > 60
    assert np.abs(seen - wanted).max() < 0.6


def test_the_wrong_siting_matrix_or_range_is_seen() -> None:
    """The comparison above has teeth: each description that is off by one choice falls below 40 dB."""
    i420, colour = make_i420(3, grain_px=1), Colour(matrix="bt601", full_range=False)
    wanted = by_ffmpeg(i420, colour, "left")
    wrong: list[tuple[Colour, Siting]] = [
        (colour, "center"),
        (Colour(matrix="bt709", full_range=False), "left"),
        (Colour(matrix="bt601", full_range=True), "left"),
    ]
    for other, siting in wrong:
        rgb = yuv_to_rgb(torch.from_numpy(i420)[None, None], colours=[other], siting=siting)
        error = rgb[0, :, 0].permute(1, 2, 0).double().numpy() - wanted
        assert 10 * np.log10(255**2 / (error**2).mean()) < 40


@pytest.mark.parametrize(("matrix", "yuv", "rgb"), KNOWN)
def test_known_colours(matrix: Matrix, yuv: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    seen = yuv_to_rgb(flat_i420(yuv), colours=[Colour(matrix=matrix)], siting="center")
    assert seen.shape == (1, 3, 1, 4, 6)
    assert seen.flatten(2).std(dim=2).max() < 1e-3
    for channel, wanted in enumerate(rgb):
        assert seen[0, channel].mean().item() == pytest.approx(wanted, abs=2.0)


def test_clamps_codes_outside_the_legal_range() -> None:
    seen = yuv_to_rgb(flat_i420((255, 255, 0)), colours=[Colour()], siting="left")
    assert seen.min() >= 0
    assert seen.max() <= 255
    assert seen[0, 2].min() == 255


def test_chroma_is_upsampled_from_where_it_lies() -> None:
    """One row of V with a step: left-sited even columns hold the samples, centred ones none but the edges."""
    clip = flat_i420((128, 128, 128), height_px=2, width_px=6)
    clip.view(-1)[-3:] = torch.tensor([100, 140, 120], dtype=torch.uint8)
    full = [Colour(full_range=True)]
    red = {s: yuv_to_rgb(clip, colours=full, siting=s)[0, 0, 0, 0] for s in get_args(Siting)}
    v = {s: (r - 128) / 1.402 + 128 for s, r in red.items()}
    assert v["left"].tolist() == pytest.approx([100, 120, 140, 130, 120, 120], abs=1e-3)
    assert v["center"].tolist() == pytest.approx([100, 110, 130, 135, 125, 120], abs=1e-3)


def test_each_clip_has_its_own_colour_and_frames_keep_their_order() -> None:
    frames = np.stack([make_i420(seed) for seed in range(4)]).reshape(2, 2, HEIGHT_PX * 3 // 2, WIDTH_PX)
    clips = torch.from_numpy(frames)
    colours = [Colour(matrix="bt709"), Colour(matrix="bt601", full_range=True)]
    together = yuv_to_rgb(clips, colours=colours, siting="left")
    assert together.shape == (2, 3, 2, HEIGHT_PX, WIDTH_PX)
    for b in range(2):
        for t in range(2):
            alone = yuv_to_rgb(clips[b : b + 1, t : t + 1], colours=[colours[b]], siting="left")
            torch.testing.assert_close(together[b, :, t], alone[0, :, 0], atol=1e-4, rtol=0)


def test_heights_that_four_does_not_divide() -> None:
    """The U plane then ends in the middle of a row of the buffer."""
    clip = torch.full((1, 1, 9, 8), 128, dtype=torch.uint8)
    clip.view(-1)[48 + 12 :] = 200
    rgb = yuv_to_rgb(clip, colours=[Colour(full_range=True)], siting="center")
    assert rgb.shape == (1, 3, 1, 6, 8)
    torch.testing.assert_close(rgb[0, 0], torch.full((1, 6, 8), 128 + 1.402 * 72))
    torch.testing.assert_close(rgb[0, 2], torch.full((1, 6, 8), 128.0))


def test_autocast_does_not_touch_the_colours() -> None:
    clips = torch.from_numpy(make_i420(5))[None, None]
    wanted = normalise_yuv(clips, colours=[Colour()], siting="center")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(normalise_yuv(clips, colours=[Colour()], siting="center"), wanted)


def test_rgb_is_normalised_as_imagenet_does() -> None:
    clips = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    x = normalise_rgb(clips)
    assert x.shape == (2, 3, 3, 4, 5)
    assert x.dtype == torch.float32
    assert x.is_contiguous()
    for c, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        torch.testing.assert_close(x[:, c], (clips[..., c].float() / 255 - mean) / std, atol=1e-5, rtol=1e-5)


def test_yuv_is_normalised_as_its_rgb_pixels_are() -> None:
    clips = torch.from_numpy(make_i420(5))[None, None]
    rgb = yuv_to_rgb(clips, colours=[Colour()], siting="left").round()
    wanted = normalise_rgb(rgb.to(torch.uint8).permute(0, 2, 3, 4, 1))
    x = normalise_yuv(clips, colours=[Colour()], siting="left")
    assert (x - wanted).abs().max() < 0.51 / 255 / min(IMAGENET.std)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_outputs_are_rounded_once(dtype: torch.dtype) -> None:
    rgb = torch.randint(0, 256, (1, 2, 4, 4, 3), dtype=torch.uint8)
    assert torch.equal(normalise_rgb(rgb, dtype=dtype), normalise_rgb(rgb).to(dtype))
    clips = torch.from_numpy(make_i420(5))[None, None]
    yuv: dict[str, Any] = {"colours": [Colour()], "siting": "left"}
    assert torch.equal(normalise_yuv(clips, **yuv, dtype=dtype), normalise_yuv(clips, **yuv).to(dtype))


def test_another_norm() -> None:
    half = PixelNorm(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    x = normalise_rgb(torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 1, 3), norm=half)
    assert x.flatten().tolist() == pytest.approx([-1.0, 1.0, -0.6], abs=1e-6)
    with pytest.raises(ValueError, match="std"):
        PixelNorm(mean=(0, 0, 0), std=(1, 0, 1))


@pytest.mark.parametrize("shape", [(2, 4, 4, 4, 4), (4, 4, 4, 3), (1, 3, 2, 4, 4)])
def test_refuses_other_rgb_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"RGB clips are uint8 \(.*wanted uint8"):
        normalise_rgb(torch.zeros(shape, dtype=torch.uint8))


def test_refuses_floats() -> None:
    with pytest.raises(BadInput, match="float32"):
        normalise_rgb(torch.zeros(1, 1, 2, 2, 3))
    with pytest.raises(BadInput, match="float32"):
        normalise_yuv(torch.zeros(1, 1, 3, 2), colours=[Colour()], siting="left")


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (1, 1, 6, 3), (1, 6, 4)])
def test_refuses_other_yuv_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="YUV clips are"):
        yuv_to_rgb(torch.zeros(shape, dtype=torch.uint8), colours=[Colour()], siting="left")


def test_refuses_missing_colours_and_unknown_sitings() -> None:
    clips = flat_i420((128, 128, 128)).expand(2, -1, -1, -1)
    with pytest.raises(BadInput, match="1 colours for 2 clips"):
        yuv_to_rgb(clips, colours=[Colour()], siting="left")
    with pytest.raises(BadInput, match="siting is 'top'"):
        yuv_to_rgb(clips, colours=[Colour()] * 2, siting="top")  # type: ignore[arg-type]


def test_lavilas_constants_are_clips_with_the_typo_that_its_weights_were_trained_with() -> None:
    scaled = [255 * value for value in LAVILA.mean]
    assert scaled == pytest.approx([108.3272985, 116.7460125, 104.09373615], abs=1e-4)
    assert [255 * value for value in LAVILA.std] == pytest.approx([68.5005327, 66.6321579, 70.32316305], abs=1e-4)
    assert 255 * CLIP.mean[0] == pytest.approx(122.7709, abs=1e-3)
    assert (CLIP.mean[1:], CLIP.std) == (LAVILA.mean[1:], LAVILA.std)
