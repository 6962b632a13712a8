"""The three generations of flash-attn behind one contract: found, chosen, called in their own ways, or refused."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from framefeed_models.attention import attend
from framefeed_models.attention_flash import FlashPackage, choose_package, installed_packages
from framefeed_models.attention_reference import reference_dense
from framefeed_models.packing import make_packing

CPU = torch.device("cpu")


def fake_dense(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, dropout_p: float = 0.0) -> Tensor:
    """What flash_attn_func computes, tokens before heads; generation 3 and 4 know no dropout_p."""
    out = reference_dense(*(x.transpose(1, 2) for x in (q, k, v)), causal=causal, dropout_p=dropout_p)
    return out.transpose(1, 2)


def without_dropout(q: Tensor, k: Tensor, v: Tensor, softmax_scale: None = None, causal: bool = False) -> Tensor:
    return fake_dense(q, k, v, causal)


def with_lse(q: Tensor, k: Tensor, v: Tensor, softmax_scale: None = None, causal: bool = False) -> tuple[Tensor, ...]:
    return fake_dense(q, k, v, causal), torch.zeros(1)


def fake_varlen(  # noqa: PLR0917 - flash-attn's signature
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    causal: bool = False,
) -> Tensor:
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    assert max_seqlen_k == cu_seqlens_k.diff().max()
    out = []
    for i in range(len(cu_seqlens_q) - 1):
        mine, theirs = slice(*cu_seqlens_q[i : i + 2].tolist()), slice(*cu_seqlens_k[i : i + 2].tolist())
        out.append(fake_dense(q[None, mine], k[None, theirs], v[None, theirs], causal, dropout_p)[0])
    return torch.cat(out)


def fake_module(dense: Callable[..., object]) -> ModuleType:
    module = ModuleType("fake")
    module.flash_attn_func, module.flash_attn_varlen_func = dense, fake_varlen  # type: ignore[attr-defined]
    return module


def importer(*present: str) -> Callable[[str], ModuleType]:
    def load(name: str) -> ModuleType:
        if name not in present:
            raise ImportError(name)
        return fake_module(fake_dense)

    return load


def test_finds_what_is_installed_the_preferred_first() -> None:
    assert installed_packages(importer()) == ()
    found = installed_packages(importer("flash_attn", "flash_attn.cute", "flash_attn_interface"))
    assert [package.generation for package in found] == [3, 4, 2]
    assert [package.generation for package in installed_packages(importer("flash_attn"))] == [2]


def test_a_package_without_the_two_functions_is_not_one() -> None:
    assert installed_packages(ModuleType) == ()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("generation", "dense"), [(2, fake_dense), (3, without_dropout), (3, with_lse), (4, with_lse)])
def test_every_generation_is_called_as_it_wants(generation: int, dense: Callable[..., Tensor], causal: bool) -> None:
    package = FlashPackage(generation=generation, dense=dense, varlen=fake_varlen)
    q, k, v = (torch.randn(2, 3, tokens, 8) for tokens in (4, 6, 6))
    seen = package.attend(q, k, v, causal=causal, dropout_p=0.0)
    torch.testing.assert_close(seen, attend(q, k, v, backend="reference", causal=causal, dropout_p=0.0))
    queries, keys = make_packing([1, 4], device=CPU), make_packing([3, 5], device=CPU)
    packed = [torch.randn(total, 3, 8) for total in (5, 8, 8)]
    seen = package.attend_packed(tuple(packed), packings=(queries, keys), causal=causal, dropout_p=0.0)
    wanted = fake_varlen(*packed, queries.offsets, keys.offsets, 4, 5, causal=causal)
    torch.testing.assert_close(seen, wanted)


def test_only_generation_2_has_dropout_and_the_others_say_so() -> None:
    zeros, ones = torch.zeros(8, 2, 16, 8), torch.ones(8, 2, 16, 8)
    torch.manual_seed(0)
    package = FlashPackage(generation=2, dense=fake_dense, varlen=fake_varlen)
    assert package.attend(zeros, zeros, ones, causal=False, dropout_p=0.5).std() > 0.1
    for generation in (3, 4):
        package = FlashPackage(generation=generation, dense=with_lse, varlen=fake_varlen)
        with pytest.raises(ValueError, match=f"'flash' has no dropout in generation {generation}"):
            package.attend(zeros, zeros, ones, causal=False, dropout_p=0.5)


def test_generations_know_their_gpus() -> None:
    runs = {
        generation: [
            FlashPackage(generation=generation, dense=fake_dense, varlen=fake_varlen).runs_on(capability)
            for capability in ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0))
        ]
        for generation in (2, 3, 4)
    }
    assert runs[2] == [False, True, True, True, True]
    assert runs[3] == [False, False, False, True, False]
    assert runs[4] == [False, False, False, True, True]


def test_no_package_and_no_gpu_are_named() -> None:
    q = torch.zeros(1, 1, 2, 8, dtype=torch.float16)
    with pytest.raises(ValueError, match="'flash' is not installed"):
        choose_package(q, ())
    with pytest.raises(ValueError, match="'flash' does not run on cpu"):
        choose_package(q, installed_packages(importer("flash_attn")))
