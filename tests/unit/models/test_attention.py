"""Every backend honours the whole contract of `attend`; the reference is held to the equation, written with loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from framefeed_models.attention import Backend, attend
from framefeed_models.attention_reference import causal_mask

# What runs on a CPU; the others refuse it here and are held to the same in tests/gpu.
BACKENDS: tuple[Backend, ...] = ("reference", "sdpa", "sdpa-flash")
DROPPING: tuple[Backend, ...] = ("reference", "sdpa")
SHAPES = [(2, 3, 5, 5, 8), (1, 2, 3, 7, 4), (2, 1, 1, 6, 16)]


def make_qkv(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    b, h, n, m, k = shape
    generator = torch.Generator().manual_seed(b * 1000 + n * 10 + m)
    return tuple(
        torch.randn(b, h, tokens, k, generator=generator, dtype=dtype).requires_grad_() for tokens in (n, m, m)
    )


def by_hand(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    (b, h, n, width), m = q.shape, k.shape[2]
    out = torch.zeros_like(q)
    for i in range(b):
        for j in range(h):
            for query in range(n):
                last = query + m - n if causal else m - 1
                logits = [float(q[i, j, query] @ k[i, j, key]) / math.sqrt(width) for key in range(last + 1)]
                total = sum(math.exp(logit) for logit in logits)
                for key, logit in enumerate(logits):
                    out[i, j, query] += math.exp(logit) / total * v[i, j, key]
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_equation(backend: Backend, causal: bool, shape: tuple[int, ...]) -> None:
    q, k, v = make_qkv(*shape)
    with torch.no_grad():
        out = attend(q, k, v, backend=backend, causal=causal, dropout_p=0.0)
        torch.testing.assert_close(out, by_hand(q, k, v, causal=causal), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_backends_agree_in_outputs_and_gradients(causal: bool, shape: tuple[int, ...]) -> None:
    results = {}
    for backend in BACKENDS:
        q, k, v = make_qkv(*shape, dtype=torch.float32)
        out = attend(q, k, v, backend=backend, causal=causal, dropout_p=0.0)
        out.square().sum().backward()
        results[backend] = (out, q.grad, k.grad, v.grad)
    for backend in BACKENDS[1:]:
        for mine, other in zip(results["reference"], results[backend], strict=True):
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


LENGTHS = (1, 17, 785, 1568, 3137)


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("fewer", [1, 3])
@pytest.mark.parametrize("m", LENGTHS)
def test_backends_agree_at_the_lengths_of_video(backend: Backend, causal: bool, fewer: int, m: int) -> None:
    """float32 within 1e-4, bfloat16 within what its 8 bits allow; N = M and N = M / 3."""
    q, k, v = (x.detach() for x in make_qkv(1, 1, max(1, m // fewer), m, 16, dtype=torch.float32))
    wanted = attend(q, k, v, backend="reference", causal=causal, dropout_p=0.0)
    seen = attend(q, k, v, backend=backend, causal=causal, dropout_p=0.0)
    assert (seen - wanted).abs().max() <= 1e-4
    half = [x.bfloat16() for x in (q, k, v)]
    wanted = attend(*(x.float() for x in half), backend="reference", causal=causal, dropout_p=0.0)
    seen = attend(*half, backend=backend, causal=causal, dropout_p=0.0)
    assert seen.dtype == torch.bfloat16
    assert (seen.float() - wanted).abs().max() <= 2.0**-7 * wanted.abs().max()


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_gradients_agree_at_the_length_of_a_clip(backend: Backend) -> None:
    found = []
    for each in ("reference", backend):
        q, k, v = make_qkv(1, 2, 785, 785, 16, dtype=torch.float32)
        attend(q, k, v, backend=each, causal=True, dropout_p=0.0).square().sum().backward()
        found.append((q.grad, k.grad, v.grad))
    for wanted, seen in zip(*found, strict=True):
        assert (seen - wanted).abs().max() <= 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_reference_keeps_the_weights_for_the_backward_pass(backend: Backend) -> None:
    saved = []
    q, k, v = make_qkv(1, 2, 300, 300, 8, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        attend(q, k, v, backend=backend, causal=False, dropout_p=0.0)
    assert (max(saved) >= 2 * 300 * 300) == (backend == "reference")
    assert max(saved) <= 2 * 300 * 300


@pytest.mark.parametrize(
    ("backend", "lack"),
    [
        ("sdpa-cudnn", "does not run on cpu"),
        ("sdpa-efficient", "does not run on cpu"),
        ("flash", "is not installed|does not run on cpu"),
    ],
)
def test_what_does_not_run_here_refuses_and_says_why(backend: Backend, lack: str) -> None:
    q, k, v = make_qkv(1, 1, 2, 2, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match=rf"backend '{backend}' ({lack})"):
        attend(q, k, v, backend=backend, causal=False, dropout_p=0.0)


def test_a_named_kernel_does_not_ignore_dropout() -> None:
    q, k, v = make_qkv(1, 1, 2, 2, 8, dtype=torch.float32)
    with pytest.raises(ValueError, match="'sdpa-flash' has no dropout on the CPU"):
        attend(q, k, v, backend="sdpa-flash", causal=False, dropout_p=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_causal_is_aligned_bottom_right(backend: Backend) -> None:
    """The last query sees every key, the first of N sees M - N + 1: a change of a later key changes nothing."""
    q, k, v = (t.detach() for t in make_qkv(1, 1, 3, 5, 4))
    before = attend(q, k, v, backend=backend, causal=True, dropout_p=0.0)
    k[:, :, 3], v[:, :, 3] = 9.0, -9.0
    after = attend(q, k, v, backend=backend, causal=True, dropout_p=0.0)
    changed = [not torch.equal(before[0, 0, i], after[0, 0, i]) for i in range(3)]
    assert changed == [False, True, True]
    assert causal_mask(3, n_keys=5, device=q.device).sum(dim=1).tolist() == [3, 4, 5]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_keeps_shape_and_dtype(backend: Backend, dtype: torch.dtype) -> None:
    q, k, v = make_qkv(2, 2, 4, 6, 8, dtype=dtype)
    out = attend(q, k, v, backend=backend, causal=False, dropout_p=0.0)
    assert out.shape == q.shape
    assert out.dtype == dtype


@pytest.mark.parametrize("backend", DROPPING)
def test_dropout_drops_weights_and_keeps_their_mean(backend: Backend) -> None:
    """With equal logits and values of 1 each output is the kept share of M keys, scaled up by 1 / (1 - p)."""
    torch.manual_seed(0)
    zeros, ones, m, p = torch.zeros(64, 4, 32, 8), torch.ones(64, 4, 32, 8), 32, 0.25
    out = attend(zeros, zeros, ones, backend=backend, causal=False, dropout_p=p)
    kept = out[..., 0] * m * (1 - p)
    torch.testing.assert_close(kept, kept.round(), atol=1e-3, rtol=0)
    assert kept.std() > 1.0
    assert out.mean().item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_dropout_is_deterministic(backend: Backend) -> None:
    q, k, v = make_qkv(2, 2, 4, 4, 8)
    first, second = (attend(q, k, v, backend=backend, causal=True, dropout_p=0.0) for _ in range(2))
    assert torch.equal(first, second)


def test_refuses_more_queries_than_keys_when_causal() -> None:
    q, k, v = make_qkv(1, 1, 4, 3, 4)
    with pytest.raises(ValueError, match="4 queries over 3 keys"):
        attend(q, k, v, backend="sdpa", causal=True, dropout_p=0.0)
    assert attend(q, k, v, backend="sdpa", causal=False, dropout_p=0.0).shape == (1, 1, 4, 4)


def test_refuses_an_unknown_backend() -> None:
    q, k, v = make_qkv(1, 1, 2, 2, 4)
    with pytest.raises(ValueError, match=r"'flash3'.*reference.*sdpa"):
        attend(q, k, v, backend="flash3", causal=False, dropout_p=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout_p", [-0.1, 1.0, math.nan])
def test_refuses_a_dropout_that_is_no_probability(dropout_p: float) -> None:
    q, k, v = make_qkv(1, 1, 2, 2, 4)
    with pytest.raises(ValueError, match="dropout_p"):
        attend(q, k, v, backend="reference", causal=False, dropout_p=dropout_p)


@pytest.mark.parametrize(
    ("k_shape", "v_shape"),
    [
        ((2, 2, 5, 8), (2, 2, 6, 8)),  # keys and values differ in count
        ((1, 2, 5, 8), (1, 2, 5, 8)),  # would broadcast over clips
        ((2, 1, 5, 8), (2, 1, 5, 8)),  # grouped heads
        ((2, 2, 5, 4), (2, 2, 5, 4)),  # other head width
        ((2, 2, 0, 8), (2, 2, 0, 8)),  # no key
        ((2, 5, 8), (2, 5, 8)),  # an axis short
    ],
)
def test_refuses_shapes_that_do_not_fit(k_shape: tuple[int, ...], v_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"attention got q \(2, 2, 4, 8\)"):
        attend(
            torch.zeros(2, 2, 4, 8),
            torch.zeros(k_shape),
            torch.zeros(v_shape),
            backend="sdpa",
            causal=False,
            dropout_p=0.0,
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_refuses_mixed_or_integer_dtypes(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="dtype"):
        attend(x, x.to(dtype), x, backend="reference", causal=False, dropout_p=0.0)
    if dtype == torch.int64:
        with pytest.raises(ValueError, match="floating"):
            attend(x.to(dtype), x.to(dtype), x.to(dtype), backend="reference", causal=False, dropout_p=0.0)


def test_refuses_tensors_on_several_devices() -> None:
    x = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ValueError, match="devices"):
        attend(x, x.to("meta"), x, backend="reference", causal=False, dropout_p=0.0)
