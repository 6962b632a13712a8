"""How a model is spread over the processes of a run: alone, DDP or FSDP2; knows modules and gradients, not losses.

torch.distributed's default group is joined by whoever starts the run.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from framefeed.errors import BadInput
from framefeed_models.own_part import own_part
from trainer_client.training.compiled import BLOCK, compile_blocks
from trainer_client.training.ranks import Ranks

ParallelName = Literal["ddp", "fsdp2", "fsdp2-keep"]


@dataclass(slots=True, kw_only=True)
class Parallel:
    """`ddp`: every rank has all weights. `fsdp2`: weights, gradients and optimizer are divided among ranks, and a
    block's weights are there while it computes (Zhao et al. 2023). `fsdp2-keep`: they stay from forward to backward, so
    that only gradients and optimizer are divided. On one rank each is the plain model. `compiled`: its blocks are.
    """

    name: ParallelName = "ddp"
    ranks: Ranks = field(default_factory=Ranks)
    compiled: bool = False
    _alone: tuple[nn.Parameter, ...] = ()
    _wrapper: nn.Module | None = None

    def spread(self, model: nn.Module, trunk: nn.Module) -> nn.Module:
        """Divide `trunk` among the ranks and give what to call in its place; call it before making the optimizer.

        What of `model` is not in `trunk` stays whole on each rank, and its gradients are averaged.
        """
        if self.compiled:
            compile_blocks(trunk)
        if self.ranks.world == 1:
            return trunk
        inside = {id(parameter) for parameter in trunk.parameters()}
        self._alone = tuple(p for p in model.parameters() if p.requires_grad and id(p) not in inside)
        for tensor in [*self._alone, *model.buffers()]:
            dist.broadcast(tensor.detach(), src=0)
        if self.name == "ddp":
            self._wrapper = _replicated(trunk)
        else:
            self._wrapper = self._shard(trunk)
        return self._wrapper

    def _shard(self, trunk: nn.Module) -> nn.Module:
        device = next(trunk.parameters()).device.type
        mesh = init_device_mesh(device, (self.ranks.world,))
        reshard = self.name == "fsdp2"
        # Nothing changes an output in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        for block in [module for name, module in trunk.named_modules() if BLOCK.search(name)]:
            fully_shard(block, mesh=mesh, reshard_after_forward=reshard)
        fully_shard(trunk, mesh=mesh, reshard_after_forward=reshard)  # in place: its class is another now
        return trunk

    @contextlib.contextmanager
    def gradients(self, *, last: bool) -> Iterator[None]:
        """Around forward and backward of one part of a batch: ranks average their sums with the last part only."""
        with contextlib.ExitStack() as stack:
            if isinstance(self._wrapper, DistributedDataParallel) and not last:
                stack.enter_context(self._wrapper.no_sync())
            if isinstance(self._wrapper, FSDPModule):
                self._wrapper.set_requires_gradient_sync(last)
            yield

    @torch.no_grad()
    def average_alone(self) -> None:
        """Average the gradients of what is whole on each rank; every rank has computed them of the same rows."""
        gradients = [p.grad for p in self._alone if p.grad is not None]
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            flat /= self.ranks.world
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    @torch.no_grad()
    def clip(self, parameters: Iterable[nn.Parameter], *, max_norm: float | None) -> Tensor:
        """Scale all gradients so that their common L2 norm is at most `max_norm`; the norm before that, a scalar.

        With None the norm is measured only. Does not wait for the device.
        Raises BadInput if no parameter has a gradient, or `max_norm` is not positive.
        """
        if max_norm is not None and not max_norm > 0.0:
            raise BadInput(f"gradient clipping: max_norm is {max_norm}, wanted a number > 0, or None not to clip")
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            raise BadInput("gradient clipping: no parameter has a gradient, wanted a backward pass first")
        norm = _total_norm(gradients)
        if max_norm is not None:
            scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([own_part(gradient) for gradient in gradients], scale)
        return norm


def _replicated(trunk: nn.Module) -> nn.Module:
    with warnings.catch_warnings():  # the name of the option is new in torch 2.13; buffers are tables, the same on all
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(trunk, broadcast_buffers=False, gradient_as_bucket_view=True)


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of gradients of which some may be divided among ranks."""
    divided = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    norms = [get_total_norm(group) for group in (divided, whole) if group]
    full = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    return full[0] if len(full) == 1 else torch.linalg.vector_norm(torch.stack(full))
