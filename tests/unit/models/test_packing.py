"""Packed sequences: where each lies, there and back, and attention that does not cross from one into another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from framefeed_models.attention import Backend, PackedHeads, attend, attend_packed
from framefeed_models.packing import Packing, make_packing, pack, unpack

CPU = torch.device("cpu")


def make_heads(queries: list[int], keys: list[int]) -> PackedHeads:
    generator = torch.Generator().manual_seed(sum(queries) * 100 + sum(keys))
    q, k, v = (torch.randn(sum(lengths), 2, 8, generator=generator) for lengths in (queries, keys, keys))
    return PackedHeads(
        q_AHK=q, k_AHK=k, v_AHK=v, queries=make_packing(queries, device=CPU), keys=make_packing(keys, device=CPU)
    )


def one_by_one(heads: PackedHeads, *, causal: bool) -> Tensor:
    out, q_start, k_start = [], 0, 0
    for n, m in zip(heads.queries.lengths, heads.keys.lengths, strict=True):
        q = heads.q_AHK[q_start : q_start + n]
        k, v = (x[k_start : k_start + m] for x in (heads.k_AHK, heads.v_AHK))
        logits = torch.einsum("nhk,mhk->hnm", q, k) / 8**0.5
        if causal:
            allowed = torch.arange(m)[None, :] <= torch.arange(n)[:, None] + m - n
            logits = logits.masked_fill(~allowed, -torch.inf)
        out.append(torch.einsum("hnm,mhk->nhk", logits.softmax(-1), v))
        q_start, k_start = q_start + n, k_start + m
    return torch.cat(out)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=4),
    backend=st.sampled_from(["reference", "sdpa", "sdpa-flash"]),
    causal=st.booleans(),
)
def test_each_sequence_attends_to_itself_alone(lengths: list[tuple[int, int]], backend: Backend, causal: bool) -> None:
    heads = make_heads([n for n, _ in lengths], [n + more for n, more in lengths])
    seen = attend_packed(heads, backend=backend, causal=causal, dropout_p=0.0)
    torch.testing.assert_close(seen, one_by_one(heads, causal=causal), atol=1e-5, rtol=1e-4)


def test_one_sequence_is_attend() -> None:
    heads = make_heads([7], [9])
    dense = attend(
        *(x.transpose(0, 1)[None] for x in (heads.q_AHK, heads.k_AHK, heads.v_AHK)),
        backend="sdpa",
        causal=True,
        dropout_p=0.0,
    )
    packed = attend_packed(heads, backend="sdpa", causal=True, dropout_p=0.0)
    torch.testing.assert_close(packed, dense[0].transpose(0, 1))


def test_packed_attention_refuses_what_attend_refuses() -> None:
    with pytest.raises(ValueError, match="3 queries over 2 keys"):
        attend_packed(make_heads([1, 3], [4, 2]), backend="sdpa", causal=True, dropout_p=0.0)
    with pytest.raises(ValueError, match="dropout_p"):
        attend_packed(make_heads([1], [1]), backend="sdpa", causal=True, dropout_p=1.0)
    with pytest.raises(ValueError, match=r"'flash' (is not installed|does not run on cpu)"):
        attend_packed(make_heads([1], [1]), backend="flash", causal=False, dropout_p=0.0)


def test_heads_must_fit_their_packings() -> None:
    heads = make_heads([2, 3], [2, 3])
    with pytest.raises(ValueError, match=r"5 queries and 5 keys, wanted queries \(2, 2\)"):
        PackedHeads(
            q_AHK=heads.q_AHK,
            k_AHK=heads.k_AHK,
            v_AHK=heads.v_AHK,
            queries=make_packing([2, 2], device=CPU),
            keys=heads.keys,
        )
    with pytest.raises(ValueError, match="dtype"):
        PackedHeads(
            q_AHK=heads.q_AHK.double(), k_AHK=heads.k_AHK, v_AHK=heads.v_AHK, queries=heads.queries, keys=heads.keys
        )
    with pytest.raises(ValueError, match="attention got"):
        PackedHeads(
            q_AHK=heads.q_AHK[:, 0], k_AHK=heads.k_AHK, v_AHK=heads.v_AHK, queries=heads.queries, keys=heads.keys
        )


def test_a_packing_says_where_each_sequence_lies() -> None:
    packing = make_packing([3, 1, 4], device=CPU)
    assert (packing.longest, packing.total) == (4, 8)
    assert packing.offsets.tolist() == [0, 3, 4, 8]
    assert packing.offsets.dtype == torch.int32


@pytest.mark.parametrize("lengths", [[], [2, 0]])
def test_a_packing_has_no_empty_sequence(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="packing: lengths are"):
        make_packing(lengths, device=CPU)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=1, max_size=4))
def test_unpack_undoes_pack(rows: list[list[bool]]) -> None:
    valid = torch.tensor(rows)
    x = torch.arange(valid.numel() * 3.0).view(*valid.shape, 3) + 1
    packed, packing = pack(x, valid)
    assert packing.lengths == tuple(sum(row) for row in rows)
    assert torch.equal(packed, x[valid])
    assert torch.equal(unpack(packed, valid), x * valid[..., None])


def test_pack_refuses_masks_that_do_not_fit() -> None:
    x = torch.zeros(2, 3, 4)
    for valid in (torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 3)):
        with pytest.raises(ValueError, match=r"valid is .* wanted bool \(2, 3\)"):
            pack(x, valid)
    with pytest.raises(ValueError, match=r"lengths are \[3, 0\]"):
        pack(x, torch.tensor([[True] * 3, [False] * 3]))


def test_gradients_flow_back_through_pack_and_unpack() -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    valid = torch.tensor([[True, False, True], [True, True, True]])
    packed, _ = pack(x, valid)
    unpack(packed * 2, valid).sum().backward()
    assert torch.equal(x.grad, 2.0 * valid[..., None].expand(2, 3, 4))


def test_packings_are_values() -> None:
    assert Packing(lengths=(1,), offsets=torch.zeros(2)).total == 1
