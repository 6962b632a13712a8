"""Sequences of different lengths laid one after another; knows lengths, not what the tokens are or who attends.

Axes: B sequences, A all tokens of all sequences, N tokens of the longest, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Where each of B sequences lies among A tokens: sequence b is `offsets[b]` up to `offsets[b + 1]`.

    `make_packing` makes one. The lengths are known on the host too, so that nothing waits for the device to tell them.
    A compiled model is compiled again for lengths that it has not seen.
    """

    lengths: tuple[int, ...]
    offsets: Tensor  # int32 (B + 1,) on the tokens' device: the cumulative lengths that kernels take

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, N."""
        return max(self.lengths)

    @property
    def total(self) -> int:
        """Tokens of all sequences, A."""
        return sum(self.lengths)


def make_packing(lengths: Sequence[int], *, device: torch.device) -> Packing:
    """The packing of sequences of these lengths. Raises ValueError if there is none, or one is empty."""
    if not lengths or min(lengths) < 1:
        raise ValueError(f"packing: lengths are {list(lengths)}, wanted at least one sequence of at least 1 token")
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return Packing(lengths=tuple(lengths), offsets=offsets.to(device, non_blocking=True))


def pack(x_BND: Tensor, valid_BN: Tensor) -> tuple[Tensor, Packing]:
    """The valid tokens of padded sequences, (A, D), and where each sequence lies; order is kept.

    Keep `valid_BN` (bool) on the host: counting it there costs no device synchronisation.
    Raises ValueError if the mask does not fit or leaves a sequence without a token.
    """
    if valid_BN.dtype != torch.bool or valid_BN.shape != x_BND.shape[:2]:
        wanted = f"bool {tuple(x_BND.shape[:2])} = (B, N)"
        raise ValueError(f"valid is {valid_BN.dtype} {tuple(valid_BN.shape)}, wanted {wanted}")
    where = make_packing(valid_BN.sum(dim=1).tolist(), device=x_BND.device)
    return x_BND.flatten(0, 1)[_places(valid_BN, x_BND.device)], where


def unpack(x_AD: Tensor, valid_BN: Tensor) -> Tensor:
    """The padded sequences (B, N, D) whose valid tokens these are, 0 elsewhere: the inverse of `pack`."""
    padded = x_AD.new_zeros(valid_BN.numel(), x_AD.shape[1])
    return padded.index_copy(0, _places(valid_BN, x_AD.device), x_AD).view(*valid_BN.shape, -1)


def _places(valid_BN: Tensor, device: torch.device) -> Tensor:
    return valid_BN.flatten().nonzero().flatten().to(device, non_blocking=True)
