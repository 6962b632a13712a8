"""torch's scaled_dot_product_attention, with the kernel that torch picks or one that is named; it checks no shapes.

Axes: B clips, H heads, N query tokens, M key tokens, K head width.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from framefeed_models.attention_reference import causal_mask

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class SdpaKernel:
    """One kernel of torch and what it can do; `backend` None lets torch pick."""

    name: str
    backend: SDPBackend | None = None
    on_cpu: bool = False
    cuda_dtypes: tuple[torch.dtype, ...] = _HALF
    cuda_masks: bool = False
    largest_head: int = 256
    shortest: int = 1

    def lack(self, q_BHNK: Tensor, n_keys: int, *, masked: bool, dropout_p: float) -> str | None:
        """What this call wants and the kernel lacks, in words, or None. Only a named kernel can lack something."""
        if self.backend is None:
            return None
        device, dtype, head = q_BHNK.device.type, q_BHNK.dtype, q_BHNK.shape[-1]
        lacks = {
            f"does not run on {device}": device != "cuda",
            f"does not take {dtype}, but {' or '.join(map(str, self.cuda_dtypes))}": dtype not in self.cuda_dtypes,
            f"does not take heads of {head} channels, but multiples of 8 up to {self.largest_head}": head % 8 != 0
            or head > self.largest_head,
            f"does not take sequences of fewer than {self.shortest} tokens": min(q_BHNK.shape[-2], n_keys)
            < self.shortest,
            "takes no mask, which causal attention with N != M needs": masked and not self.cuda_masks,
        }
        if device == "cpu" and self.on_cpu:
            lacks = {"has no dropout on the CPU": dropout_p > 0}
        return next((lack for lack, holds in lacks.items() if holds), None)


SDPA_KERNELS: dict[str, SdpaKernel] = {
    kernel.name: kernel
    for kernel in (
        SdpaKernel(name="sdpa"),
        SdpaKernel(name="sdpa-flash", backend=SDPBackend.FLASH_ATTENTION, on_cpu=True),
        SdpaKernel(name="sdpa-cudnn", backend=SDPBackend.CUDNN_ATTENTION, largest_head=128, shortest=2),
        SdpaKernel(
            name="sdpa-efficient",
            backend=SDPBackend.EFFICIENT_ATTENTION,
            cuda_dtypes=(torch.float32, *_HALF),
            cuda_masks=True,
        ),
    )
}


def sdpa_dense(
    q_BHNK: Tensor, k_BHMK: Tensor, v_BHMK: Tensor, *, kernel: SdpaKernel, causal: bool, dropout_p: float
) -> Tensor:
    """softmax(q kᵀ / √K) v (Vaswani et al. 2017, eq. 1); arguments as in `attend`, which has checked them.

    Raises ValueError if a named kernel lacks what the call wants.
    """
    n, m = q_BHNK.shape[-2], k_BHMK.shape[-2]
    # torch's is_causal aligns top-left; the two alignments agree when N = M, and only then may the fast path be taken.
    masked = causal and n != m
    lack = kernel.lack(q_BHNK, m, masked=masked, dropout_p=dropout_p)
    if lack is not None:
        raise _refusal(kernel, lack)
    mask_NM = causal_mask(n, n_keys=m, device=q_BHNK.device) if masked else None
    try:
        with nullcontext() if kernel.backend is None else sdpa_kernel(kernel.backend):
            return scaled_dot_product_attention(
                q_BHNK, k_BHMK, v_BHMK, attn_mask=mask_NM, is_causal=causal and mask_NM is None, dropout_p=dropout_p
            )
    except RuntimeError as error:
        if "No available kernel" in str(error) or "No viable backend" in str(error):
            raise _refusal(kernel, f"does not take q {tuple(q_BHNK.shape)}, {m} keys on this device") from error
        raise


def _refusal(kernel: SdpaKernel, lack: str) -> ValueError:
    return ValueError(f"attention backend {kernel.name!r} {lack}; choose another, none is taken in its place")
