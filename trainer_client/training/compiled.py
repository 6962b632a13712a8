"""Transformer blocks as compiled code, block by block; it knows modules by name, no tasks.

A block at a time compiles in seconds and once for all blocks alike, and leaves between blocks what hooks and
checkpointing need; names of weights stay as they are.
"""

from __future__ import annotations

import re

import torch
from torch import nn

BLOCK = re.compile(r"(^|\.)blocks\.\d+$")
"""Names of transformer blocks of either kind."""

_RATES = 128  # blocks differ in their rate of drop path, so each may be code of its own


def compile_blocks(model: nn.Module) -> int:
    """Have every block compiled at its first call, in place; how many there are. Call it before ranks divide them.

    More kinds of blocks than torch keeps code of is an error, where torch would go on without compiling.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RATES)
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    blocks = [module for name, module in model.named_modules() if BLOCK.search(name)]
    for block in blocks:
        block.compile()
    return len(blocks)
