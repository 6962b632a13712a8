"""Random numbers that follow a clip: a function of its seed, never of its place in a batch or of who computes it.

It knows seeds and counters, not layers' meaning. Axes: B clips, E numbers drawn for each clip.

A counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): number e of the clip
with seed k is hash(k, e), so that nothing is stored, a checkpointed block draws the same again, and any
split of a batch over processes or micro-batches draws the same. Bit for bit the same on CPU and GPU; nothing here waits
for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# splitmix64 (Steele et al. 2014, figure 17) and the 32-bit finaliser lowbias32 (C. Wellons, 2018), as signed numbers.
_GOLDEN64 = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX64 = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
_MIX32 = (0x7FEB352D, 0x846CA68B - (1 << 32))
_LOW32 = (1 << 32) - 1


def fold(seeds_B: Tensor | None, number: int) -> Tensor | None:
    """Seeds of one part of a model, int64 (B,), from those of the whole; None, which is no seeds, stays None.

    Whatever draws has a number of its own where it is called, and so a stream of its own, as in JAX's `fold_in`.
    """
    return None if seeds_B is None else _mix64(_mix64(seeds_B) + _signed64(number * _GOLDEN64))


def clip_bits(seeds_B: Tensor | None, like_B: Tensor, *, draws: int) -> Tensor:
    """Uniform int32 in [0, 2^31), (B, E) for E = `draws`, on the device of `like_B`, whose first axis is B.

    `seeds_B` is int64 on that device; without it torch's generator there draws seeds, other ones at each call.
    Raises ValueError for seeds that are not one int64 a clip.
    """
    if seeds_B is None:
        seeds_B = torch.randint(1 << 62, like_B.shape[:1], device=like_B.device)
    if seeds_B.shape != like_B.shape[:1] or seeds_B.dtype != torch.int64:
        wanted = f"int64 ({like_B.shape[0]},), one for each clip"
        raise ValueError(f"noise: seeds are {seeds_B.dtype} {tuple(seeds_B.shape)}, wanted {wanted}")
    low_B1, high_B1 = clip_keys(seeds_B)[:, :, None].unbind(1)
    counters_E = torch.arange(draws, dtype=torch.int32, device=like_B.device)
    # Two rounds: with one, clips whose keys differ in their low bits would draw the same numbers in another order.
    return _mix32(_mix32(counters_E ^ low_B1) ^ high_B1) & 0x7FFFFFFF


def clip_keys(seeds_B: Tensor) -> Tensor:
    """What `clip_bits` hashes counters with, int32 (B, 2): number e is mix(mix(e ^ key 0) ^ key 1), 31 bits of it."""
    keys_B = _mix64(seeds_B + _GOLDEN64)
    return torch.stack([_signed32(part) for part in (keys_B, keys_B >> 32)], dim=1)


def clip_scales(seeds_B: Tensor | None, like_B: Tensor, *, draws: int, p: float) -> Tensor:
    """What dropout multiplies with, (B, E) in the dtype of `like_B`: 0 with probability p, else 1 / (1 - p).

    Arguments and errors as in `clip_bits`.
    """
    keeps_BE = clip_bits(seeds_B, like_B, draws=draws) >= int(p * (1 << 31))
    return keeps_BE.to(like_B.dtype) / (1.0 - p)


class ClipDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose mask follows each clip's seed: x is 0 with probability p, else x/(1-p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BE: Tensor, seeds_B: Tensor | None = None) -> Tensor:
        """Any (B, …), some values of it zeroed; in eval, or with p = 0, itself. Raises ValueError as `clip_bits`."""
        if self.p == 0.0 or not self.training:
            return x_BE
        return x_BE * clip_scales(seeds_B, x_BE, draws=x_BE[0].numel(), p=self.p).view(x_BE.shape)


def _mix64(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30, bits=64)) * _MIX64[0]
    x = (x ^ _shifted(x, 27, bits=64)) * _MIX64[1]
    return x ^ _shifted(x, 31, bits=64)


def _mix32(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 16, bits=32)) * _MIX32[0]
    x = (x ^ _shifted(x, 15, bits=32)) * _MIX32[1]
    return x ^ _shifted(x, 16, bits=32)


def _shifted(x: Tensor, by: int, *, bits: int) -> Tensor:
    """x >> by as unsigned numbers: torch's shift copies the sign."""
    return (x >> by) & ((1 << (bits - by)) - 1)


def _signed32(x: Tensor) -> Tensor:
    """The low 32 bits of int64 as an int32 of the same bits."""
    low = x & _LOW32
    return torch.where(low >= 1 << 31, low - (1 << 32), low).to(torch.int32)


def _signed64(number: int) -> int:
    """The low 64 bits of a number as int64 has them."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
