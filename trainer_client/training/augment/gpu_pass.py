"""`one_pass` as a kernel: each program reads the bytes of some pixels of a frame and writes them, augmented, once.

It keeps nothing but its output, and nothing waits for it. It knows what `one_pass` knows; the one file that knows
Triton, which comes with torch's CUDA build. With TRITON_INTERPRET=1 it runs on a CPU, so that it can be compared there.

Axes: B clips, F frames as fed, T frames that go on, Y rows, X columns, S colour steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.clip_noise import clip_keys, fold
from trainer_client.training.augment.one_pass import FILL, NOISE, Pass

_PIXELS = 512  # of a program


def gpu_pass(pixels: Tensor, draws: Mapping[str, Tensor], seeds_B: Tensor, *, what: Pass) -> Tensor:
    """As `one_pass`, of contiguous clips on a GPU. Does not wait for it."""
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
    keys = clip_keys(fold(seeds_B, NOISE)) if noise else nothing
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
    return out_BCTYX


@triton.jit  # type: ignore[untyped-decorator]
def _mean_kernel(pixels, means, fed, height, width, YUV: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
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


@triton.jit  # type: ignore[untyped-decorator]
def _byte(frame, row, column, rows, columns, pitch, live):  # type: ignore[no-untyped-def]
    row = tl.minimum(tl.maximum(row, 0), rows - 1)
    column = tl.minimum(tl.maximum(column, 0), columns - 1)
    return tl.load(frame + (row * columns + column) * pitch, mask=live, other=0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _between(frame, row, column, rows, columns, pitch, live):  # type: ignore[no-untyped-def]
    top, left = tl.floor(row), tl.floor(column)
    down, right = row - top, column - left
    y, x = top.to(tl.int32), left.to(tl.int32)
    a, b = _byte(frame, y, x, rows, columns, pitch, live), _byte(frame, y, x + 1, rows, columns, pitch, live)
    c, d = _byte(frame, y + 1, x, rows, columns, pitch, live), _byte(frame, y + 1, x + 1, rows, columns, pitch, live)
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + down * (lower - upper)


@triton.jit  # type: ignore[untyped-decorator]
def _code(x):  # type: ignore[no-untyped-def]
    return tl.minimum(tl.maximum(x, 0.0), 255.0)


@triton.jit  # type: ignore[untyped-decorator]
def _row_of(matrix, c: tl.constexpr, r, g, b):  # type: ignore[no-untyped-def]
    return tl.load(matrix + 3 * c) * r + tl.load(matrix + 3 * c + 1) * g + tl.load(matrix + 3 * c + 2) * b


@triton.jit  # type: ignore[untyped-decorator]
def _points(x, points):  # type: ignore[no-untyped-def]
    step, threshold = tl.load(points), tl.load(points + 1)
    added, below = tl.load(points + 2), tl.load(points + 3)
    x = tl.where(x < below, tl.minimum(x + added, 255.0), x)
    x = tl.where(x >= threshold, 255.0 - x, x)
    return tl.where(step > 1, tl.floor(x / tl.maximum(step, 1.0)) * step, x)


@triton.jit  # type: ignore[untyped-decorator]
def _mix(x):  # type: ignore[no-untyped-def]
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit  # type: ignore[untyped-decorator]
def _normal(counter, keys):  # type: ignore[no-untyped-def]
    low, high = tl.load(keys).to(tl.uint32, bitcast=True), tl.load(keys + 1).to(tl.uint32, bitcast=True)
    bits = _mix(_mix(counter.to(tl.uint32) ^ low) ^ high) & 0x7FFFFFFF
    radius = tl.sqrt(-2.0 * tl.log(((bits >> 15).to(tl.float32) + 1.0) / 65536.0))
    return radius * tl.cos((bits & 0x7FFF).to(tl.float32) * (2 * 3.141592653589793 / 32768.0))


@triton.jit  # type: ignore[untyped-decorator]
def _map_rgb(maps, c: tl.constexpr, y, u, v):  # type: ignore[no-untyped-def]
    maps += 4 * c
    return tl.load(maps) * y + tl.load(maps + 1) * u + tl.load(maps + 2) * v + tl.load(maps + 3)


@triton.jit  # type: ignore[untyped-decorator]
def _pass_kernel(  # type: ignore[no-untyped-def]
    pixels, out, means, keys, frame_of, map_of, to_rgb, matrix, offset, pivot, points, box,
    fed, height, width, frames, mean_r, mean_g, mean_b, std_r, std_g, std_b,
    YUV: tl.constexpr, TAKES: tl.constexpr, MOVES: tl.constexpr, STEPS: tl.constexpr,
    ERASES: tl.constexpr, NOISE: tl.constexpr, FILL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
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
        row, column = (
            tl.load(m + 3) * x + tl.load(m + 4) * y + tl.load(m + 5),
            tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2),
        )
    maps = to_rgb + clip * 12
    frame = pixels + (clip.to(tl.int64) * fed + taken) * (area * 3 // 2 if YUV else area * 3)
    if YUV:
        u_row, u_column, u_rows, u_columns = (row - 0.5) / 2, (column - 0.5) / 2, height // 2, width // 2
        if MOVES:
            luma = _between(frame, row, column, height, width, 1, live)
        else:
            luma = tl.load(frame + place, mask=live, other=0).to(tl.float32)
        u = _between(frame + area, u_row, u_column, u_rows, u_columns, 1, live)
        v = _between(frame + area + area // 4, u_row, u_column, u_rows, u_columns, 1, live)
        r, g, b = (
            _code(_map_rgb(maps, 0, luma, u, v)),
            _code(_map_rgb(maps, 1, luma, u, v)),
            _code(_map_rgb(maps, 2, luma, u, v)),
        )
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
    if STEPS > 0:
        mr, mg, mb = tl.load(means + clip * 3), tl.load(means + clip * 3 + 1), tl.load(means + clip * 3 + 2)
        if YUV:
            mr, mg, mb = (
                _map_rgb(maps, 0, mr, mg, mb), _map_rgb(maps, 1, mr, mg, mb), _map_rgb(maps, 2, mr, mg, mb)
            )  # fmt: skip
        for step in range(STEPS):
            s = clip * STEPS + step
            n, o, p = matrix + s * 9, offset + s * 3, points + s * 4
            around = tl.load(pivot + s) * (0.299 * mr + 0.587 * mg + 0.114 * mb)
            o_r, o_g, o_b = tl.load(o) + around, tl.load(o + 1) + around, tl.load(o + 2) + around
            mr, mg, mb = (
                _row_of(n, 0, mr, mg, mb) + o_r, _row_of(n, 1, mr, mg, mb) + o_g, _row_of(n, 2, mr, mg, mb) + o_b
            )  # fmt: skip
            r, g, b = (
                _points(_code(_row_of(n, 0, r, g, b) + o_r), p),
                _points(_code(_row_of(n, 1, r, g, b) + o_g), p),
                _points(_code(_row_of(n, 2, r, g, b) + o_b), p),
            )
    r, g, b = (r - mean_r) / std_r, (g - mean_g) / std_g, (b - mean_b) / std_b
    channel = frames * area
    at = t * area + place
    if ERASES:
        e = box + clip * 4
        erased = (x >= tl.load(e)) & (y >= tl.load(e + 1)) & (x < tl.load(e + 2)) & (y < tl.load(e + 3))
        if NOISE:
            k = keys + clip * 2
            r = tl.where(erased, _normal(at, k), r)
            g = tl.where(erased, _normal(at + channel, k), g)
            b = tl.where(erased, _normal(at + 2 * channel, k), b)
        else:
            r, g, b = tl.where(erased, 0.0, r), tl.where(erased, 0.0, g), tl.where(erased, 0.0, b)
    into = out + clip.to(tl.int64) * 3 * channel + at
    tl.store(into, r.to(out.dtype.element_ty), mask=live)
    tl.store(into + channel, g.to(out.dtype.element_ty), mask=live)
    tl.store(into + 2 * channel, b.to(out.dtype.element_ty), mask=live)
