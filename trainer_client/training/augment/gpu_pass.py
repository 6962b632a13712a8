"""`one_pass` as a kernel: each program reads the bytes of some pixels of a frame and writes them, augmented, once.

It keeps nothing but its output, and nothing waits for it. It knows what `one_pass` knows, and that blur comes last.
Triton comes with torch's CUDA build. With TRITON_INTERPRET=1 it runs on a CPU, so that it can be compared there.

Axes: B clips, F frames as fed, T frames that go on, Y rows, X columns, S colour steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainer_client.training.augment.gpu_blur import gpu_blur
from trainer_client.training.augment.one_pass import FILL, Pass

_PIXELS = 512  # of a program


def gpu_pass(pixels: Tensor, draws: Mapping[str, Tensor], seeds_B: Tensor, *, what: Pass) -> Tensor:
    """As `one_pass` and then `blur_in_place`, of contiguous clips on a GPU. Does not wait for it."""
    yuv, pixels = pixels.ndim == 4, pixels.contiguous()
    b, fed = pixels.shape[:2]
    height, width = pixels.shape[2] * 2 // 3 if yuv else pixels.shape[2], pixels.shape[3]
    frames = draws["frames_BT"].shape[1] if "frames_BT" in draws else fed
    out_BCTYX = torch.empty((b, 3, frames, height, width), dtype=what.dtype, device=pixels.device)
    steps = draws["matrix_BS33"].shape[1] if "matrix_BS33" in draws else 0
    shape = {"fed": fed, "height": height, "width": width, "YUV": yuv}
    nothing = seeds_B  # a pointer that is not looked at
    means = nothing
    if steps:
        means = torch.empty((b, 3), device=pixels.device)
        _mean_kernel[b, 3](pixels, means, **shape, BLOCK=1024)
    noise = "box_B4" in draws and what.noise
    keys = draws["keys_B2"] if noise else nothing
    given = (
        draws.get(name, nothing)
        for name in (
            "frames_BT",
            "map_B23",
            "to_rgb_B34",
            "matrix_BS33",
            "offset_BS3",
            "pivot_BS",
            "points_BS4",
            "box_B4",
        )
    )
    (mean_r, mean_g, mean_b), (std_r, std_g, std_b) = what.norm.mean, what.norm.std
    _pass_kernel[triton.cdiv(height * width, _PIXELS), b * frames](
        *(pixels, out_BCTYX, means, keys, *given),
        **shape,
        frames=frames,
        **{"mean_r": 255 * mean_r, "mean_g": 255 * mean_g, "mean_b": 255 * mean_b},
        **{"std_r": 255 * std_r, "std_g": 255 * std_g, "std_b": 255 * std_b},
        TAKES="frames_BT" in draws,
        MOVES="map_B23" in draws,
        STEPS=steps,
        ERASES="box_B4" in draws,
        NOISE=noise,
        FILL=FILL,
        BLOCK=_PIXELS,
    )
    if "blur_rows_M" in draws:
        gpu_blur(out_BCTYX, draws["blur_rows_M"], draws["blur_taps_MK"])
    return out_BCTYX


@triton.jit
def _mean_kernel(pixels, means, fed, height, width, YUV: tl.constexpr, BLOCK: tl.constexpr):
    """The mean of one plane of a clip, over all its frames."""
    clip, plane = tl.program_id(0), tl.program_id(1)
    area = height * width
    if YUV:
        frame_bytes, pitch = area * 3 // 2, 1
        count = tl.where(plane == 0, area, area // 4)
        first = tl.where(plane == 0, 0, area + (plane - 1) * (area // 4))
    else:
        frame_bytes, pitch = area * 3, 3
        count, first = area, plane
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for frame in range(fed):
        base = pixels + (clip.to(tl.int64) * fed + frame) * frame_bytes + first
        for start in range(0, count, BLOCK):
            at = start + lanes
            total += tl.load(base + at * pitch, mask=at < count, other=0).to(tl.float32)
    tl.store(means + clip * 3 + plane, tl.sum(total, axis=0) / (fed * count))


@triton.jit
def _byte(frame, row, column, rows, columns, pitch, live):
    row = tl.minimum(tl.maximum(row, 0), rows - 1)
    column = tl.minimum(tl.maximum(column, 0), columns - 1)
    return tl.load(frame + (row * columns + column) * pitch, mask=live, other=0).to(tl.float32)


@triton.jit
def _between(frame, row, column, rows, columns, pitch, live):
    top, left = tl.floor(row), tl.floor(column)
    down, right = row - top, column - left
    y, x = top.to(tl.int32), left.to(tl.int32)
    a, b = _byte(frame, y, x, rows, columns, pitch, live), _byte(frame, y, x + 1, rows, columns, pitch, live)
    c, d = _byte(frame, y + 1, x, rows, columns, pitch, live), _byte(frame, y + 1, x + 1, rows, columns, pitch, live)
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + down * (lower - upper)


@triton.jit
def _code(x):
    return tl.minimum(tl.maximum(x, 0.0), 255.0)


@triton.jit
def _row_of(matrix, c: tl.constexpr, r, g, b):
    return tl.load(matrix + 3 * c) * r + tl.load(matrix + 3 * c + 1) * g + tl.load(matrix + 3 * c + 2) * b


@triton.jit
def _points(x, points):
    step, threshold = tl.load(points), tl.load(points + 1)
    added, below = tl.load(points + 2), tl.load(points + 3)
    x = tl.where(x < below, tl.minimum(x + added, 255.0), x)
    x = tl.where(x >= threshold, 255.0 - x, x)
    return tl.where(step > 1, tl.floor(x / tl.maximum(step, 1.0)) * step, x)


@triton.jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def _normal(counter, keys):
    low, high = tl.load(keys).to(tl.uint32, bitcast=True), tl.load(keys + 1).to(tl.uint32, bitcast=True)
    bits = _mix(_mix(counter.to(tl.uint32) ^ low) ^ high) & 0x7FFFFFFF
    radius = tl.sqrt(-2.0 * tl.log(((bits >> 15).to(tl.float32) + 1.0) / 65536.0))
    return radius * tl.cos((bits & 0x7FFF).to(tl.float32) * (2 * 3.141592653589793 / 32768.0))


@triton.jit
def _map_rgb(maps, c: tl.constexpr, y, u, v):
    maps += 4 * c
    return tl.load(maps) * y + tl.load(maps + 1) * u + tl.load(maps + 2) * v + tl.load(maps + 3)


@triton.jit
def _rgb(frame, maps, row, column, height, width, live, YUV: tl.constexpr, MOVES: tl.constexpr, FILL: tl.constexpr):
    """Red, green and blue of places in a frame, in codes."""
    area = height * width
    place = row.to(tl.int32) * width + column.to(tl.int32)
    if YUV:
        u_row, u_column, u_rows, u_columns = (row - 0.5) / 2, (column - 0.5) / 2, height // 2, width // 2
        if MOVES:
            luma = _between(frame, row, column, height, width, 1, live)
        else:
            luma = tl.load(frame + place, mask=live, other=0).to(tl.float32)
        u = _between(frame + area, u_row, u_column, u_rows, u_columns, 1, live)
        v = _between(frame + area + area // 4, u_row, u_column, u_rows, u_columns, 1, live)
        r, g, b = _map_rgb(maps, 0, luma, u, v), _map_rgb(maps, 1, luma, u, v), _map_rgb(maps, 2, luma, u, v)
        r, g, b = _code(r), _code(g), _code(b)
    elif MOVES:
        r = _between(frame, row, column, height, width, 3, live)
        g = _between(frame + 1, row, column, height, width, 3, live)
        b = _between(frame + 2, row, column, height, width, 3, live)
    else:
        r = tl.load(frame + 3 * place, mask=live, other=0).to(tl.float32)
        g = tl.load(frame + 3 * place + 1, mask=live, other=0).to(tl.float32)
        b = tl.load(frame + 3 * place + 2, mask=live, other=0).to(tl.float32)
    if MOVES:
        inside = (row > -1) & (row < height) & (column > -1) & (column < width)
        r, g, b = tl.where(inside, r, FILL), tl.where(inside, g, FILL), tl.where(inside, b, FILL)
    return r, g, b


@triton.jit
def _step_colours(r, g, b, mr, mg, mb, matrix, offset, pivot, points, STEPS: tl.constexpr):
    """The colour steps of a clip whose mean colour is (mr, mg, mb), one after another."""
    for step in range(STEPS):
        n, o, p = matrix + step * 9, offset + step * 3, points + step * 4
        around = tl.load(pivot + step) * (0.299 * mr + 0.587 * mg + 0.114 * mb)
        o_r, o_g, o_b = tl.load(o) + around, tl.load(o + 1) + around, tl.load(o + 2) + around
        m_r, m_g, m_b = _row_of(n, 0, mr, mg, mb), _row_of(n, 1, mr, mg, mb), _row_of(n, 2, mr, mg, mb)
        mr, mg, mb = m_r + o_r, m_g + o_g, m_b + o_b
        s_r, s_g, s_b = _row_of(n, 0, r, g, b), _row_of(n, 1, r, g, b), _row_of(n, 2, r, g, b)
        r, g, b = _points(_code(s_r + o_r), p), _points(_code(s_g + o_g), p), _points(_code(s_b + o_b), p)
    return r, g, b


@triton.jit
def _erased(r, g, b, x, y, at, channel, box, keys, NOISE: tl.constexpr):
    """The clip's box filled."""
    inside = (x >= tl.load(box)) & (y >= tl.load(box + 1)) & (x < tl.load(box + 2)) & (y < tl.load(box + 3))
    if NOISE:
        r = tl.where(inside, _normal(at, keys), r)
        g = tl.where(inside, _normal(at + channel, keys), g)
        b = tl.where(inside, _normal(at + 2 * channel, keys), b)
    else:
        r, g, b = tl.where(inside, 0.0, r), tl.where(inside, 0.0, g), tl.where(inside, 0.0, b)
    return r, g, b


@triton.jit
def _pass_kernel(
    pixels, out, means, keys, frame_of, map_of, to_rgb, matrix, offset, pivot, points, box,
    fed, height, width, frames, mean_r, mean_g, mean_b, std_r, std_g, std_b,
    YUV: tl.constexpr, TAKES: tl.constexpr, MOVES: tl.constexpr, STEPS: tl.constexpr,
    ERASES: tl.constexpr, NOISE: tl.constexpr, FILL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some pixels of one frame that goes on."""
    clip, t = tl.program_id(1) // frames, tl.program_id(1) % frames
    area = height * width
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = place < area
    y, x = place // width, place % width
    taken = t
    if TAKES:
        taken = tl.load(frame_of + clip * frames + t)
    row, column = y.to(tl.float32), x.to(tl.float32)
    if MOVES:
        m = map_of + clip * 6
        row = tl.load(m + 3) * x + tl.load(m + 4) * y + tl.load(m + 5)
        column = tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2)
    maps = to_rgb + clip * 12
    frame = pixels + (clip.to(tl.int64) * fed + taken) * (area * 3 // 2 if YUV else area * 3)
    r, g, b = _rgb(frame, maps, row, column, height, width, live, YUV, MOVES, FILL)
    if STEPS > 0:
        m0, m1, m2 = tl.load(means + clip * 3), tl.load(means + clip * 3 + 1), tl.load(means + clip * 3 + 2)
        mr, mg, mb = m0, m1, m2
        if YUV:
            mr, mg, mb = _map_rgb(maps, 0, m0, m1, m2), _map_rgb(maps, 1, m0, m1, m2), _map_rgb(maps, 2, m0, m1, m2)
        s = clip * STEPS
        r, g, b = _step_colours(
            r, g, b, mr, mg, mb, matrix + s * 9, offset + s * 3, pivot + s, points + s * 4, STEPS
        )  # fmt: skip
    r, g, b = (r - mean_r) / std_r, (g - mean_g) / std_g, (b - mean_b) / std_b
    channel, at = frames * area, t * area + place
    if ERASES:
        r, g, b = _erased(r, g, b, x, y, at, channel, box + clip * 4, keys + clip * 2, NOISE)
    into = out + clip.to(tl.int64) * 3 * channel + at
    tl.store(into, r.to(out.dtype.element_ty), mask=live)
    tl.store(into + channel, g.to(out.dtype.element_ty), mask=live)
    tl.store(into + 2 * channel, b.to(out.dtype.element_ty), mask=live)
