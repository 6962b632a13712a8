"""The names of VideoMAE's checkpoints as its authors publish them, and of AVION's flash variant of it.

It knows names and configurations, not values. The authors' from the state dicts that they publish.
"""

from __future__ import annotations

from collections.abc import Iterable

from framefeed_models.classifier import ClassifierConfig
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.forms import QV_BIAS, in_batch, kernel, one, rename
from framefeed_models.weights.key_table import KeyTable, Rule

AnyVideoMAE = VideoMAEConfig | ClassifierConfig | ViTConfig

_BLOCK = {
    "norm1": "norm_attention",
    "attn.proj": "attention.out",
    "norm2": "norm_mlp",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
_FLASH_BLOCK = {
    "norm1": "norm_attention",
    "attn.Wqkv": "attention.qkv",
    "attn.out_proj": "attention.out",
    "norm2": "norm_mlp",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
_DECODER = {"decoder.norm": "norm", "decoder.head": "head"}


def videomae_table(config: AnyVideoMAE, *, flash: bool = False) -> KeyTable:
    """The authors' pre-training and fine-tuning checkpoints, or with `flash` those of AVION's flash variant.

    For a ViT alone it takes a pre-trained encoder and leaves the decoder, as fine-tuning starts.
    Raises ValueError for a model that VideoMAE is not.
    """
    vit = videomae_encoder(config)
    block = _flash_block if flash else _authors_block
    finetuned = isinstance(config, ClassifierConfig)
    theirs, ours = ("" if finetuned else "encoder."), ("" if isinstance(config, ViTConfig) else "encoder.")
    rules = [
        *patch_rules(vit, theirs=f"{theirs}patch_embed.proj", ours=ours),
        *rename({"fc_norm" if finetuned else "encoder.norm": f"{ours}norm"}),
        *(rule for i in range(vit.stack.depth) for rule in block(f"{theirs}blocks.{i}.", f"{ours}stack.blocks.{i}.")),
    ]
    if isinstance(config, ClassifierConfig):
        return KeyTable(title="VideoMAE classifier", rules=(*rules, *rename({"head": f"heads.{only_head(config)}"})))
    if isinstance(config, VideoMAEConfig):
        depth = config.decoder.depth
        rules += [
            *decoder_rules(),
            *(rule for i in range(depth) for rule in block(f"decoder.blocks.{i}.", f"decoder.blocks.{i}.")),
        ]
    return KeyTable(title="VideoMAE" + (" (flash)" if flash else ""), rules=tuple(rules))


def videomae_encoder(config: AnyVideoMAE) -> ViTConfig:
    """The encoder of one of VideoMAE's models. Raises ValueError if it is none that VideoMAE has."""
    encoder = config.vit if isinstance(config, VideoMAEConfig) else config
    vit = encoder.encoder if isinstance(encoder, ClassifierConfig) else encoder
    if not isinstance(vit, ViTConfig):
        raise ValueError("VideoMAE: the encoder is a TimeSformer, wanted a ViT")
    wanted = ViTConfig(grid=vit.grid, stack=vit.stack)
    for name in ("positions", "class_token", "pool", "patch_bias", "norm_pre"):
        if getattr(vit, name) != getattr(wanted, name):
            raise ValueError(f"VideoMAE: {name} is {getattr(vit, name)!r}, wanted {getattr(wanted, name)!r}")
    return vit


def only_head(config: ClassifierConfig) -> str:
    """The name of a classifier's one head. Raises ValueError if there are more."""
    if len(config.heads) != 1:
        raise ValueError(f"VideoMAE: heads are {', '.join(config.heads)}, wanted one")
    return next(iter(config.heads))


def patch_rules(vit: ViTConfig, *, theirs: str, ours: str) -> list[Rule]:
    """The rules of the patch embedding, a convolution over time too."""
    return [
        one(f"{theirs}.weight", f"{ours}embedding.projection.weight", kernel(vit.grid, over_time=True)),
        one(f"{theirs}.bias", f"{ours}embedding.projection.bias"),
    ]


def decoder_rules() -> list[Rule]:
    """The rules of all that lies between the encoder and the loss, but for the decoder's blocks."""
    return [
        one("encoder_to_decoder.weight", "bridge.weight"),
        one("mask_token", "mask_token_D", in_batch(2)),
        *rename(_DECODER),
    ]


def _authors_block(theirs: str, ours: str) -> Iterable[Rule]:
    yield from rename(_BLOCK, theirs=theirs, ours=ours)
    yield one(f"{theirs}attn.qkv.weight", f"{ours}attention.qkv.weight")
    biases = (f"{theirs}attn.q_bias", f"{theirs}attn.v_bias")
    yield Rule(theirs=biases, ours=(f"{ours}attention.qkv.bias",), form=QV_BIAS)


def _flash_block(theirs: str, ours: str) -> Iterable[Rule]:
    yield from rename(_FLASH_BLOCK, theirs=theirs, ours=ours)
