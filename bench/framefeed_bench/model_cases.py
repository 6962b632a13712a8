"""The models of the paper's figures 3 and 4: two video encoders, three ways to save memory. It measures nothing.

Zhao & Krähenbühl 2023, arXiv 2309.16669.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from framefeed_models.attention import Backend
from framefeed_models.block import Checkpointing
from framefeed_models.dual_encoder import DualEncoderConfig, avion
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.vit import ViTConfig

ENCODERS = ("ViT-B", "TimeSformer-B")
VARIANTS = ("plain", "+flash", "+checkpointing", "+checkpointing √L")
# Figure 4, an A5000 of 24 GB, float16, 4 frames: largest batch and videos/s of plain, + flash-attn, + grad-ckpt.
PAPER_BATCH = {"ViT-B": (22, 68, 304), "TimeSformer-B": (28, 31, 180)}
PAPER_SPEED = {"ViT-B": (45.8, 78.1, 62.8), "TimeSformer-B": (39.4, 44.8, 30.3)}
PAPER_GPU_BYTES = 24e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCase:
    """One bar of a figure. `flash` is the backend that stands for flash attention: torch's kernel, on CPU and GPU."""

    encoder: str
    variant: str
    frames: int
    flash: Backend = "sdpa-flash"

    @property
    def title(self) -> str:
        """For tables and axes."""
        return f"{self.encoder}, {self.frames} frames, {self.variant}"

    def config(self) -> DualEncoderConfig:
        """The dual encoder: CLIP's text tower beside the video encoder, both checkpointed if one is (AVION)."""
        attention: Backend = "reference" if self.variant == "plain" else self.flash
        checkpointing: Checkpointing = "none"
        if self.variant.startswith("+checkpointing"):
            checkpointing = "sqrt" if self.variant.endswith("√L") else "block"
        config = avion("CLIP_VITB16", frames=self.frames)
        assert isinstance(config.video, ViTConfig)
        stack = replace(config.video.stack, attention=attention, checkpointing=checkpointing)
        text = replace(config.text, stack=replace(config.text.stack, attention=attention, checkpointing=checkpointing))
        video: ViTConfig | TimeSformerConfig = replace(config.video, stack=stack)
        if self.encoder == "TimeSformer-B":
            video = TimeSformerConfig(grid=config.video.grid, stack=stack)
        return replace(config, video=video, text=text)


def all_cases() -> list[ModelCase]:
    """Every bar, the paper's order: encoder, frames, variant."""
    return [
        ModelCase(encoder=encoder, frames=frames, variant=variant)
        for encoder in ENCODERS
        for frames in (4, 16)
        for variant in VARIANTS
    ]
