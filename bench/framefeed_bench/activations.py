"""Bytes that a model keeps between forward and backward, by kind of layer, counted exactly and without computing.

It knows modules of ours and autograd's hooks, no figures and no devices: tensors are fake, shapes and dtypes are true.

How a byte gets its kind: by the module in whose forward it was saved, once for each storage.
`attention` are the weights of N queries over M keys, which are quadratic in a clip's tokens: what the paper's figure 3
shows as attention and flash attention removes. `projections` is the rest of an attention layer, linear in the tokens:
its input, queries, keys, values, output, and the log-sum-exp that a flash kernel keeps instead of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from framefeed_models.block import Block, SelfAttention
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.text import TextTransformer
from framefeed_models.timesformer import DividedBlock, FrozenInTimeBlock

_ATTENTION_OF = {Block: "attention", FrozenInTimeBlock: "space", DividedBlock: "space"}
_BLOCKS = tuple(_ATTENTION_OF)
KINDS = ("LayerNorm", "attention", "projections", "MLP", "text", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Bytes kept for one clip and its text by kind; `in_blocks` of them inside transformer blocks."""

    by_kind: dict[str, int]
    in_blocks: int

    def on_cuda(self) -> Saved:
        """A count under the CPU's autocast as CUDA's keeps it: the softmax in float32, and beside it its copy in bf16.

        That is three times the attention's bytes; the text's own, some 2 MB, is left as it is.
        """
        more = 2 * self.by_kind["attention"]
        by_kind = self.by_kind | {"attention": self.by_kind["attention"] + more}
        return Saved(by_kind=by_kind, in_blocks=self.in_blocks + more)

    @property
    def video_bytes(self) -> int:
        """Of the video tower alone, as the paper's figure 3 has it."""
        return sum(count for kind, count in self.by_kind.items() if kind != "text")

    @property
    def total_bytes(self) -> int:
        """Of both towers."""
        return sum(self.by_kind.values())


def count_saved(config: DualEncoderConfig, *, half: bool) -> Saved:
    """What one more clip and its text keep: the count for three pairs minus that for two, so that weights cancel out.

    (Not two minus one: copies that a larger batch needs are views of a single clip.)
    `half` counts under the CPU's autocast to bf16, which keeps the residual stream in float32 as CUDA's does; where the
    two differ, see `Saved.on_cuda`. Takes a second; no memory to speak of.
    """
    two, three = (_count(config, pairs, half=half) for pairs in (2, 3))
    by_kind = {kind: three.by_kind[kind] - two.by_kind[kind] for kind in KINDS}
    return Saved(by_kind=by_kind, in_blocks=three.in_blocks - two.in_blocks)


def _count(config: DualEncoderConfig, pairs: int, *, half: bool) -> Saved:
    with torch.device("meta"):
        model = DualEncoder(config)
    grid = config.video.grid
    ledger = _Ledger()
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        _fake_parameters(model)
        stack.enter_context(ledger.watching(model))
        clips = torch.empty(pairs, grid.channels, grid.frames, grid.height_px, grid.width_px)
        tokens = torch.zeros(pairs, config.text.context, dtype=torch.int64)
        stack.enter_context(torch.autocast("cpu", torch.bfloat16) if half else nullcontext())
        stack.enter_context(saved_tensors_hooks(ledger.pack, lambda x: x))
        model(clips, tokens).logits()
    return ledger.total()


def _fake_parameters(model: nn.Module) -> None:
    """Parameters of the same shapes in the fake mode that is on; a model cannot be initialised in it."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            fake = nn.Parameter(torch.empty(parameter.shape), requires_grad=parameter.requires_grad)
            module.register_parameter(name, fake)


class _Ledger:
    """Each storage that autograd keeps, with the kind of the module that is running when it is first saved."""

    def __init__(self) -> None:
        self._running: list[nn.Module] = []
        self._seen: dict[int, tuple[torch.UntypedStorage, str, bool]] = {}

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for module in model.modules():
                stack.callback(module.register_forward_pre_hook(lambda m, _: self._running.append(m)).remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            yield

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        in_block = any(isinstance(module, _BLOCKS) for module in self._running)
        # The storage is kept, so that its address is not another's.
        self._seen.setdefault(storage._cdata, (storage, self._kind(tensor), in_block))
        return tensor

    def _leave(self, module: nn.Module, _: object, __: object) -> None:
        left = self._running.pop()
        assert left is module, "modules end in the order they began"

    def total(self) -> Saved:
        by_kind = dict.fromkeys(KINDS, 0)
        for storage, kind, _ in self._seen.values():
            by_kind[kind] += storage.nbytes()
        in_blocks = sum(storage.nbytes() for storage, _, in_block in self._seen.values() if in_block)
        return Saved(by_kind=by_kind, in_blocks=in_blocks)

    def _kind(self, tensor: Tensor) -> str:
        if any(isinstance(module, TextTransformer) for module in self._running):
            return "text"
        for module in reversed(self._running):
            if isinstance(module, nn.LayerNorm):
                return "LayerNorm"
            if isinstance(module, nn.Sequential):
                return "MLP"
            if isinstance(module, SelfAttention | Block | FrozenInTimeBlock | DividedBlock):
                return "attention" if _is_weights(tensor, _attention(module)) else "projections"
        return "other"


def _attention(module: nn.Module) -> SelfAttention:
    """The attention layer that is at work: a divided block calls parts of its two, which are alike."""
    layer = module if isinstance(module, SelfAttention) else module.get_submodule(_ATTENTION_OF[type(module)])
    assert isinstance(layer, SelfAttention)
    return layer


def _is_weights(tensor: Tensor, layer: SelfAttention) -> bool:
    """Whether a tensor saved in an attention layer is (…, N queries, M keys): neither axis is a width or the heads."""
    width = layer.out.in_features
    widths = {width, 3 * width, width // layer.heads, layer.heads}
    return tensor.ndim > 2 and not widths & set(tensor.shape[-2:])
