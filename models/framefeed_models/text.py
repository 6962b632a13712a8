"""CLIP's text transformer: token numbers in, one feature of the text out. It knows no words and no video.

Axes: B texts, L tokens of a text, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framefeed_models.block import Stack, StackConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """A causal transformer over at most `context` tokens of a vocabulary; the defaults are CLIP's ViT-B/16.

    Raises ValueError for values that make no network.
    """

    stack: StackConfig
    vocabulary: int = 49_408
    context: int = 77

    def __post_init__(self) -> None:
        if not self.stack.causal:
            raise ValueError("text: stack is not causal, wanted causal=True")
        for name in ("vocabulary", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"text: {name} is {getattr(self, name)}, wanted at least 1")


class TextTransformer(nn.Module):
    """Token and position embeddings, causal pre-norm blocks, final norm (Radford et al. 2021, §2.4).

    A text's feature is the token at its end, which has the largest number of the vocabulary.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config, width = config, config.stack.width
        self.token_embedding = nn.Embedding(config.vocabulary, width)
        self.position_LD = nn.Parameter(torch.empty(config.context, width))
        self.stack = Stack(config.stack)
        self.norm = nn.LayerNorm(width, eps=config.stack.norm_eps)
        self.reset_parameters()

    def forward(self, tokens_BL: Tensor, *, seeds_B: Tensor | None = None) -> Tensor:
        """The feature (B, D) of each text, int64 token numbers (B, L ≤ context), 0 after the end.

        What stands after the end changes nothing: attention is causal. Drop path follows `seeds_B`, int64.
        Raises ValueError if the tokens are not (B, L) or longer than the context.
        """
        if tokens_BL.ndim != 2 or not 0 < tokens_BL.shape[1] <= self.config.context:
            raise ValueError(f"tokens are {tuple(tokens_BL.shape)}, wanted (B, L) with 1 <= L <= {self.config.context}")
        x_BLD = self.token_embedding(tokens_BL) + self.position_LD[: tokens_BL.shape[1]]
        x_BLD = self.stack(x_BLD, seeds_B=seeds_B)
        rows_B = torch.arange(tokens_BL.shape[0], device=tokens_BL.device)
        feature_BD: Tensor = self.norm(x_BLD[rows_B, tokens_BL.argmax(dim=1)])
        return feature_BD

    def reset_parameters(self) -> None:
        """Weights as CLIP starts them: deviations fall with the width, on the residual path with the depth too."""
        width, depth = self.config.stack.width, self.config.stack.depth
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_LD, std=0.01)
        residual_std = width**-0.5 * (2 * depth) ** -0.5
        deviations = {
            "attention.qkv": width**-0.5,
            "attention.out": residual_std,
            "mlp.0": (2 * width) ** -0.5,
            "mlp.2": residual_std,
        }
        for block in self.stack.blocks:
            for layer, std in deviations.items():
                nn.init.normal_(block.get_parameter(f"{layer}.weight"), std=std)
                nn.init.zeros_(block.get_parameter(f"{layer}.bias"))
