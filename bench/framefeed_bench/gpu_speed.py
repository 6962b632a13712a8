"""Training steps on a GPU: seconds a step, the largest batch that fits, operations, and what a matrix product reaches.

It knows steps and CUDA's clocks and memory, not which models are compared. Needs CUDA.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch.utils.flop_counter import FlopCounterMode

_MATMUL_SIDE = 8192
_WARM_UP, _STEPS = 3, 8
_LARGEST_BATCH = 8192


def seconds_a_step(step: Callable[[], object]) -> float:
    """Seconds a step, the median of several, between CUDA events. Blocks for all of them.

    What others have left of the GPU's memory is given back before.
    """
    gc.collect()
    torch.cuda.empty_cache()
    for _ in range(_WARM_UP):
        step()
    return _median_seconds(step, times=_STEPS)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Inside, any call that makes the host wait for the device raises RuntimeError. Waits for the device before."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def count_flops(step: Callable[[], object]) -> int:
    """Floating-point operations of one step that is not compiled."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def largest_batch(fits: Callable[[int], bool], *, first: int = 8, most: int = _LARGEST_BATCH) -> int:
    """The largest batch that fits, to 1/16 of itself: doubling until one does not, then halving the gap.

    0 if not even one clip fits; `most` if all do.
    """
    low, high = 0, max(1, first)
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def fits_on_gpu(two_steps: Callable[[], object]) -> bool:
    """Whether two steps of a batch fit in the GPU's memory. Blocks for them."""
    try:
        two_steps()
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def matmul_peak() -> float:
    """Floating-point operations a second of a square bf16 product of side 8192: what this GPU gives, warm."""
    a, b = (torch.randn(_MATMUL_SIDE, _MATMUL_SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    for _ in range(10):
        torch.mm(a, b, out=out)
    seconds = _median_seconds(lambda: torch.mm(a, b, out=out), times=30)
    return 2 * _MATMUL_SIDE**3 / seconds


def _median_seconds(run: Callable[[], object], *, times: int) -> float:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(times + 1)]  # type: ignore[no-untyped-call]
    marks[0].record()
    for mark in marks[1:]:
        run()
        mark.record()
    torch.cuda.synchronize()
    return float(statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))) / 1e3
