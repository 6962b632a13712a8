"""Forms are bijections, and mean what their names say: checked on shapes of every size, and against convolutions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from framefeed_models.tubelets import TubeletGrid, cut_cubes
from framefeed_models.weights import forms
from framefeed_models.weights.config_json import build_model
from framefeed_models.weights.key_table import Form
from tests.unit.models import foreign_checkpoints as foreign

SIZES = st.integers(1, 5)


def make(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def check_bijection(form: Form, theirs: tuple[Tensor, ...], ours: tuple[tuple[int, ...], ...]) -> None:
    taken = form.take(*theirs)
    assert tuple(tuple(x.shape) for x in taken) == ours
    for given_back, wanted in zip(form.give(*taken), theirs, strict=True):
        assert torch.equal(given_back, wanted)


@given(width=SIZES, rows=SIZES)
def test_tables_and_projections(width: int, rows: int) -> None:
    check_bijection(forms.SAME, (make(rows, width),), ((rows, width),))
    check_bijection(forms.TRANSPOSED, (make(rows, width),), ((width, rows),))
    check_bijection(forms.CLASS_ROW, (make(1 + rows, width),), ((width,), (rows, width)))
    check_bijection(forms.CLASS_ROW_IN_BATCH, (make(1, 1 + rows, width),), ((width,), (rows, width)))
    check_bijection(forms.FUSED_QKV, tuple(make(width, n) for n in (rows,) * 3), ((3 * width, rows),))
    check_bijection(forms.QV_BIAS, (make(width), make(width)), ((3 * width,),))
    check_bijection(forms.in_batch(2), (make(1, 1, width),), ((width,),))
    check_bijection(forms.zeros(rows, width), (), ((rows, width),))


@given(width=SIZES, patch=SIZES, frames=SIZES, channels=SIZES)
def test_kernels(width: int, patch: int, frames: int, channels: int) -> None:
    grid = TubeletGrid(
        frames=frames, height_px=patch, width_px=patch, channels=channels, tubelet_frames=frames, patch_px=patch
    )
    linear = ((width, frames * patch * patch * channels),)
    check_bijection(forms.kernel(grid, over_time=True), (make(width, channels, frames, patch, patch),), linear)
    taken = forms.kernel(grid, over_time=False).take(make(width, channels, patch, patch))
    assert taken[0].shape == linear[0]
    back = forms.kernel(grid, over_time=False).give(*taken)[0]
    torch.testing.assert_close(back, make(width, channels, patch, patch))


def test_a_kernel_over_cubes_is_the_convolution() -> None:
    grid = TubeletGrid(frames=4, height_px=16, width_px=8, patch_px=4)
    kernel, clips = make(6, 3, 2, 4, 4), make(2, 3, 4, 16, 8)
    (weight,) = forms.kernel(grid, over_time=True).take(kernel)
    seen = cut_cubes(clips, grid=grid, selected_BS=None).flatten(2) @ weight.T
    wanted = nn.functional.conv3d(clips, kernel, stride=(2, 4, 4)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen, wanted, atol=1e-4, rtol=1e-4)


def test_a_flat_kernel_is_the_convolution_too() -> None:
    grid = TubeletGrid(frames=1, height_px=8, width_px=8, tubelet_frames=1, patch_px=4)
    kernel = make(6, 3, 4, 4)
    flat = forms.flat_kernel(grid)
    assert torch.equal(flat.take(kernel.flatten(1))[0], forms.kernel(grid, over_time=False).take(kernel)[0])
    check_bijection(flat, (kernel.flatten(1),), ((6, 48),))


def test_what_a_form_cannot_hold_is_refused() -> None:
    grid = TubeletGrid(frames=2, height_px=4, width_px=4, patch_px=4)
    with pytest.raises(ValueError, match="frames of a cube have different kernels"):
        forms.kernel(grid, over_time=False).give(make(6, 2 * 16 * 3))
    with pytest.raises(ValueError, match=r"wanted \(D, 3, 2, 4, 4\)"):
        forms.kernel(grid, over_time=True).take(make(6, 3, 1, 4, 4))
    with pytest.raises(ValueError, match="wanted 2 leading axes of length 1"):
        forms.in_batch(2).take(make(1, 2, 3))
    with pytest.raises(ValueError, match="it is not zero"):
        forms.zeros(2).give(torch.tensor([0.0, 1.0]))


def test_the_keys_bias_changes_no_output() -> None:
    """Why an export may drop it: with another one the model computes the same."""
    model = build_model(foreign.MAE.vit).eval()
    clips = make(2, 3, 4, 32, 32)
    with torch.no_grad():
        before = model(clips)
        for block in model.stack.blocks:
            block.attention.qkv.bias.unflatten(0, (3, -1))[1].normal_()
        torch.testing.assert_close(model(clips), before, atol=1e-5, rtol=1e-5)
