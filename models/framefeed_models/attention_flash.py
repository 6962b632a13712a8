"""FlashAttention from the flash-attn package, 2, 3 or 4, whichever is installed; the only file that imports it.

It knows the three packages' functions and what each lacks, not who attends to what.

Axes: B clips, H heads, N query tokens, M key tokens, K head width, A all tokens of packed sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from framefeed_models.packing import Packing

_HALF = (torch.float16, torch.bfloat16)
_LARGEST_HEAD = 256

Kernel = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashPackage:
    """One installed generation: FlashAttention-2 (Dao 2023), -3 (Shah et al. 2024) or -4, and its two functions."""

    generation: int
    dense: Kernel
    varlen: Kernel

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether it has kernels for a GPU of this compute capability."""
        return {2: capability >= (8, 0), 3: capability[0] == 9, 4: capability[0] in (9, 10, 11)}[self.generation]

    def attend(self, q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, causal: bool, dropout_p: float) -> Tensor:
        """softmax(q kᵀ / √K) v without N x M weights in memory (Dao et al. 2022, algorithm 1; Dao 2023, algorithm 1).

        Arguments as in `attend`. Raises ValueError for dropout in a generation that has none.
        """
        out = self.dense(*(each.transpose(1, 2) for each in (q_BHNK, k_BHMK, v_BHMK)), **self._rules(causal, dropout_p))
        return _first(out).transpose(1, 2)

    def attend_packed(
        self,
        heads_AHK: tuple[Tensor, Tensor, Tensor],
        *,
        packings: tuple[Packing, Packing],
        causal: bool,
        dropout_p: float,
    ) -> Tensor:
        """`attend` over sequences of different lengths in one kernel: q, k, v as (A, H, K), and (A, H, K) back."""
        queries, keys = packings
        out = self.varlen(
            *heads_AHK,
            cu_seqlens_q=queries.offsets,
            cu_seqlens_k=keys.offsets,
            max_seqlen_q=queries.longest,
            max_seqlen_k=keys.longest,
            **self._rules(causal, dropout_p),
        )
        return _first(out)

    def _rules(self, causal: bool, dropout_p: float) -> dict[str, float | bool]:
        if self.generation == 2:
            return {"causal": causal, "dropout_p": dropout_p}
        if dropout_p > 0:
            raise _refusal(f"has no dropout in generation {self.generation}")
        return {"causal": causal}


def installed_packages(importer: Callable[[str], ModuleType] = import_module) -> tuple[FlashPackage, ...]:
    """The generations that can be imported, the one to prefer first: 3 on Hopper, 4 on what is newer, 2 anywhere."""
    found = []
    for generation, module in ((3, "flash_attn_interface"), (4, "flash_attn.cute"), (2, "flash_attn")):
        try:
            package = importer(module)
            dense, varlen = package.flash_attn_func, package.flash_attn_varlen_func
        except (ImportError, AttributeError):
            continue
        found.append(FlashPackage(generation=generation, dense=dense, varlen=varlen))
    return tuple(found)


# Looked up once: an import in the forward pass would break torch.compile's graph.
PACKAGES = installed_packages()


def choose_package(q: Tensor, packages: tuple[FlashPackage, ...] = PACKAGES) -> FlashPackage:
    """The package for queries on this device, of this dtype and head width (the last axis).

    Raises ValueError that names what is missing: a package, a GPU, a dtype, a width.
    """
    if not packages:
        raise _refusal("is not installed: pip install flash-attn")
    if q.device.type != "cuda":
        raise _refusal(f"does not run on {q.device.type}")
    if q.dtype not in _HALF:
        raise _refusal(f"does not take {q.dtype}, but {' or '.join(map(str, _HALF))}")
    if q.shape[-1] % 8 or q.shape[-1] > _LARGEST_HEAD:
        raise _refusal(f"does not take heads of {q.shape[-1]} channels, but multiples of 8 up to {_LARGEST_HEAD}")
    capability = torch.cuda.get_device_capability(q.device)
    for package in packages:
        if package.runs_on(capability):
            return package
    generations = ", ".join(str(package.generation) for package in packages)
    raise _refusal(f"{generations} has no kernel for compute capability {capability[0]}.{capability[1]}")


def _refusal(lack: str) -> ValueError:
    return ValueError(f"attention backend 'flash' {lack}; choose another, none is taken in its place")


def _first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The output; generation 4 and early releases of 3 return the log-sum-exp behind it."""
    return out[0] if isinstance(out, tuple) else out
