"""Training steps on a GPU: clips a second, the largest batch that fits, and the share of the matmul peak reached.

It knows steps and CUDA's clocks and memory, not which models are compared. Needs CUDA.

Axes: B clips, T frames, Y rows, X columns, C channels, L tokens of a text.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from framefeed_models.dual_encoder import DualEncoderConfig, DualEncoding

_MATMUL_SIDE = 8192
_WARM_UP, _STEPS = 3, 8
_LARGEST_BATCH = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A batch on the GPU that is used again and again: clips (B, C, T, Y, X) in bf16 and texts (B, L), int64."""

    clips_BCTYX: Tensor
    tokens_BL: Tensor


def make_pairs(config: DualEncoderConfig, batch: int) -> Pairs:
    """Random clips and texts in the shapes that a model of this configuration takes."""
    grid, text = config.video.grid, config.text
    shape = (batch, grid.channels, grid.frames, grid.height_px, grid.width_px)
    tokens_BL = torch.randint(1, text.vocabulary - 2, (batch, text.context), device="cuda")
    tokens_BL[:, -1] = text.vocabulary - 1
    return Pairs(clips_BCTYX=torch.randn(shape, device="cuda", dtype=torch.bfloat16), tokens_BL=tokens_BL)


def clip_loss(encoding: DualEncoding) -> Tensor:
    """The symmetric InfoNCE loss over the batch (Radford et al. 2021, figure 3)."""
    logits = encoding.logits()
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


class Trainer:
    """A model on the GPU in float32 under bf16 autocast, with fused AdamW: a step as recipes take it."""

    def __init__(self, model: nn.Module, *, compiled: bool) -> None:
        self.model = model.cuda().train()
        self._forward: Callable[..., DualEncoding] = torch.compile(self.model) if compiled else self.model
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    def step(self, pairs: Pairs) -> Tensor:
        """Forward, backward, update; the loss stays on the device and nothing waits for it."""
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = clip_loss(self._forward(pairs.clips_BCTYX, pairs.tokens_BL))
        torch.autograd.backward(loss)
        self._optimizer.step()
        return loss.detach()

    def seconds(self, pairs: Pairs) -> float:
        """Seconds a step, the median of several, between CUDA events. Blocks for all of them."""
        for _ in range(_WARM_UP):
            self.step(pairs)
        return _median_seconds(lambda: self.step(pairs), times=_STEPS)

    def flops(self, pairs: Pairs) -> int:
        """Floating-point operations of one forward and backward, without anything computed twice."""
        with FlopCounterMode(display=False) as counter, torch.autocast("cuda", torch.bfloat16):
            torch.autograd.backward(clip_loss(self.model(pairs.clips_BCTYX, pairs.tokens_BL)))
        self._optimizer.zero_grad(set_to_none=True)
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


def fits_on_gpu(trainer: Trainer, config: DualEncoderConfig, batch: int) -> bool:
    """Whether two steps of this batch fit in the GPU's memory. Blocks for them."""
    try:
        pairs = make_pairs(config, batch)
        for _ in range(2):
            trainer.step(pairs)
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer.model.zero_grad(set_to_none=True)
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
