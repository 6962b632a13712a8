"""Every backend on the GPU against the reference in float32: outputs, gradients, packed sequences, and refusals.

A backend in half precision may be as far from the truth as the equation itself is when computed in that precision,
twice over; more is an error. Skipped where there is no CUDA.
"""

from __future__ import annotations

from typing import get_args

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from framefeed_models.attention import Backend, PackedHeads, attend, attend_packed  # noqa: E402
from framefeed_models.attention_flash import PACKAGES  # noqa: E402
from framefeed_models.packing import make_packing  # noqa: E402

CUDA = torch.device("cuda")
FAST = [backend for backend in get_args(Backend) if backend != "reference"]
HALF = [torch.bfloat16, torch.float16]
LENGTHS = [1, 17, 785, 1568, 3137]


def make_qkv(b: int, h: int, n: int, m: int, *, dtype: torch.dtype, grad: bool = False) -> list[torch.Tensor]:
    generator = torch.Generator(CUDA).manual_seed(n * 10 + m)
    return [
        torch.randn(b, h, tokens, 64, generator=generator, device=CUDA).to(dtype).requires_grad_(grad)
        for tokens in (n, m, m)
    ]


def refuses(backend: Backend, *, causal: bool, n: int, m: int) -> str | None:
    """Why a backend may refuse this, or None: then it has to do it."""
    if backend == "flash" and not PACKAGES:
        return "is not installed"
    if backend in ("sdpa-flash", "sdpa-cudnn") and causal and n != m:
        return "takes no mask"
    if backend == "sdpa-cudnn" and min(n, m) < 2:
        return "fewer than 2 tokens"
    return None


def check_close(seen: torch.Tensor, rounded: torch.Tensor, wanted: torch.Tensor) -> None:
    """`seen` is at most twice as far from the float32 result as the equation in half precision is."""
    allowed = 2 * (rounded.float() - wanted).abs().max() + 1e-4 * wanted.abs().max()
    assert (seen.float() - wanted).abs().max() <= allowed


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("m", LENGTHS)
@pytest.mark.parametrize("fewer", [1, 3])
@pytest.mark.parametrize("backend", FAST)
def test_agrees_with_the_reference_or_refuses(
    backend: Backend, fewer: int, m: int, causal: bool, dtype: torch.dtype
) -> None:
    n = max(1, m // fewer)
    qkv = make_qkv(2, 3, n, m, dtype=dtype)
    lack = refuses(backend, causal=causal, n=n, m=m)
    if lack is not None:
        with pytest.raises(ValueError, match=f"'{backend}'.*{lack}"):
            attend(*qkv, backend=backend, causal=causal, dropout_p=0.0)
        return
    seen = attend(*qkv, backend=backend, causal=causal, dropout_p=0.0)
    assert (seen.shape, seen.dtype) == (qkv[0].shape, dtype)
    wanted = attend(*(x.float() for x in qkv), backend="reference", causal=causal, dropout_p=0.0)
    rounded = attend(*qkv, backend="reference", causal=causal, dropout_p=0.0)
    check_close(seen, rounded, wanted)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", FAST)
def test_gradients_agree_with_the_reference(backend: Backend, causal: bool, dtype: torch.dtype) -> None:
    if refuses(backend, causal=causal, n=785, m=785):
        pytest.skip(f"{backend} is not installed")
    target = torch.randn(2, 3, 785, 64, generator=torch.Generator(CUDA).manual_seed(0), device=CUDA)
    found = {}
    for name, each, precision in (
        ("wanted", "reference", torch.float32),
        ("rounded", "reference", dtype),
        ("seen", backend, dtype),
    ):
        qkv = [x.detach().to(precision).requires_grad_() for x in make_qkv(2, 3, 785, 785, dtype=dtype)]
        out = attend(*qkv, backend=each, causal=causal, dropout_p=0.0)
        (out.float() * target).sum().backward()
        found[name] = [x.grad for x in qkv]
    for seen, rounded, wanted in zip(found["seen"], found["rounded"], found["wanted"], strict=True):
        check_close(seen, rounded, wanted)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", FAST)
def test_packed_sequences_attend_to_themselves_alone(backend: Backend, causal: bool) -> None:
    if refuses(backend, causal=causal, n=2, m=2):
        pytest.skip(f"{backend} is not installed")
    lengths = [785, 17, 200, 2]
    packing = make_packing(lengths, device=CUDA)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in make_qkv(1, 3, sum(lengths), sum(lengths), dtype=HALF[0]))
    heads = PackedHeads(q_AHK=q, k_AHK=k, v_AHK=v, queries=packing, keys=packing)
    seen = attend_packed(heads, backend=backend, causal=causal, dropout_p=0.0)
    rounded = attend_packed(heads, backend="reference", causal=causal, dropout_p=0.0)
    exact = PackedHeads(q_AHK=q.float(), k_AHK=k.float(), v_AHK=v.float(), queries=packing, keys=packing)
    check_close(seen, rounded, attend_packed(exact, backend="reference", causal=causal, dropout_p=0.0))


@pytest.mark.parametrize("backend", ["sdpa-flash", "sdpa-cudnn", "flash"])
def test_half_precision_kernels_refuse_float32(backend: Backend) -> None:
    qkv = make_qkv(1, 1, 4, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match=f"'{backend}' (does not take torch.float32|is not installed)"):
        attend(*qkv, backend=backend, causal=False, dropout_p=0.0)


@pytest.mark.parametrize("backend", ["sdpa", "sdpa-efficient"])
def test_float32_is_taken_and_exact(backend: Backend) -> None:
    qkv = make_qkv(2, 3, 261, 785, dtype=torch.float32)
    for causal in (False, True):
        wanted = attend(*(x.double() for x in qkv), backend="reference", causal=causal, dropout_p=0.0)
        seen = attend(*qkv, backend=backend, causal=causal, dropout_p=0.0)
        assert (seen - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("backend", FAST)
def test_no_fast_backend_keeps_the_weights(backend: Backend) -> None:
    """Bytes kept for the backward pass grow with N, not with N²."""
    if refuses(backend, causal=False, n=2, m=2):
        pytest.skip(f"{backend} is not installed")
    qkv = make_qkv(1, 4, 3137, 3137, dtype=torch.bfloat16, grad=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    out = attend(*qkv, backend=backend, causal=False, dropout_p=0.0)
    kept = torch.cuda.memory_allocated() - before
    assert out.requires_grad
    assert kept < 4 * 3137 * 3137 / 4, "a quarter of a byte a weight"


@pytest.mark.parametrize("backend", ["sdpa", "sdpa-flash", "sdpa-efficient", "flash"])
def test_dropout_drops_weights_and_keeps_their_mean(backend: Backend) -> None:
    if backend == "flash" and (not PACKAGES or PACKAGES[0].generation != 2):
        pytest.skip("no flash-attn with dropout")
    torch.manual_seed(0)
    zeros, ones = (make(64, 4, 64, 64, device=CUDA, dtype=torch.bfloat16) for make in (torch.zeros, torch.ones))
    out = attend(zeros, zeros, ones, backend=backend, causal=False, dropout_p=0.25).float()
    assert out[..., 0].std() > 0.03
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)
