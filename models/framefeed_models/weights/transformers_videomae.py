"""VideoMAE as `transformers` names and configures it: the way in from the hub, and out to it.

It knows names and configurations, not values, and does not import transformers.
"""

from __future__ import annotations

from framefeed_models.block import StackConfig
from framefeed_models.classifier import ClassifierConfig
from framefeed_models.pixel_norm import PixelNorm
from framefeed_models.videomae import VideoMAEConfig
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.forms import FUSED_QKV, QV_BIAS, rename
from framefeed_models.weights.key_table import KeyTable, Rule
from framefeed_models.weights.videomae import AnyVideoMAE, decoder_rules, only_head, patch_rules, videomae_encoder

_BLOCK = {
    "layernorm_before": "norm_attention",
    "attention.output.dense": "attention.out",
    "layernorm_after": "norm_mlp",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2",
}


def transformers_table(config: AnyVideoMAE) -> KeyTable:
    """`VideoMAEForPreTraining`, `VideoMAEForVideoClassification`, or for a ViT alone `VideoMAEModel`.

    Biases are `q_bias` and `v_bias`, as in every published file: version 4 of transformers knows no other names, and
    version 5 renames them. Raises ValueError for a model that VideoMAE is not.
    """
    vit = videomae_encoder(config)
    alone, finetuned = isinstance(config, ViTConfig), isinstance(config, ClassifierConfig)
    theirs, ours = ("" if alone else "videomae."), ("" if alone else "encoder.")
    norm = "fc_norm" if finetuned else f"{theirs}layernorm"
    rules = [
        *patch_rules(vit, theirs=f"{theirs}embeddings.patch_embeddings.projection", ours=ours),
        *rename({norm: f"{ours}norm"}),
        *_blocks(vit.stack, theirs=f"{theirs}encoder.layer", ours=f"{ours}stack.blocks"),
    ]
    if isinstance(config, ClassifierConfig):
        rules += rename({"classifier": f"heads.{only_head(config)}"})
    if isinstance(config, VideoMAEConfig):
        rules += decoder_rules()
        rules += _blocks(config.decoder, theirs="decoder.decoder_layers", ours="decoder.blocks")
    return KeyTable(title="transformers' VideoMAE", rules=tuple(rules))


def transformers_config(config: AnyVideoMAE) -> dict[str, object]:
    """The config.json under which `transformers` builds this model.

    Raises ValueError for a model that its VideoMAE cannot be: other positions than the flat table, pictures that are
    not square, heads that are not one. Its decoder's and classifier's last norms have an eps of 1e-5 that no option
    changes, ours 1e-6: outputs differ by some 1e-6.
    """
    vit, grid = videomae_encoder(config), videomae_encoder(config).grid
    if grid.height_px != grid.width_px:
        raise ValueError(f"transformers' VideoMAE is square, seen {grid.height_px} x {grid.width_px} pixels")
    saved: dict[str, object] = {
        "model_type": "videomae",
        "architectures": [_architecture(config)],
        "image_size": grid.height_px,
        "patch_size": grid.patch_px,
        "num_channels": grid.channels,
        "num_frames": grid.frames,
        "tubelet_size": grid.tubelet_frames,
        "hidden_size": vit.stack.width,
        "num_hidden_layers": vit.stack.depth,
        "num_attention_heads": vit.stack.heads,
        "intermediate_size": int(vit.stack.width * vit.stack.mlp_ratio),
        "hidden_act": vit.stack.activation,
        "layer_norm_eps": vit.stack.norm_eps,
        "qkv_bias": True,
        "norm_pix_loss": True,
        "use_mean_pooling": isinstance(config, ClassifierConfig),
    }
    if isinstance(config, VideoMAEConfig):
        saved |= {
            "decoder_hidden_size": config.decoder.width,
            "decoder_num_hidden_layers": config.decoder.depth,
            "decoder_num_attention_heads": config.decoder.heads,
            "decoder_intermediate_size": int(config.decoder.width * config.decoder.mlp_ratio),
        }
    if isinstance(config, ClassifierConfig):
        classes = config.heads[only_head(config)]
        saved |= {"id2label": {str(i): f"LABEL_{i}" for i in range(classes)}}
        saved |= {"label2id": {f"LABEL_{i}": i for i in range(classes)}}
    return saved


def transformers_pixels(config: AnyVideoMAE, pixels: PixelNorm) -> dict[str, object]:
    """The preprocessor_config.json under which its image processor makes such clips of frames: the short side resized,
    the middle cropped, normalised as the weights were trained. Raises ValueError for a model that VideoMAE is not."""
    side_px = videomae_encoder(config).grid.height_px
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side_px},
        "do_center_crop": True,
        "crop_size": {"height": side_px, "width": side_px},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pixels.mean),
        "image_std": list(pixels.std),
    }


def _architecture(config: AnyVideoMAE) -> str:
    if isinstance(config, VideoMAEConfig):
        return "VideoMAEForPreTraining"
    return "VideoMAEForVideoClassification" if isinstance(config, ClassifierConfig) else "VideoMAEModel"


def _blocks(stack: StackConfig, *, theirs: str, ours: str) -> list[Rule]:
    rules = []
    for i in range(stack.depth):
        old, new = f"{theirs}.{i}", f"{ours}.{i}"
        attention = f"{old}.attention.attention"
        parts = tuple(f"{attention}.{part}.weight" for part in ("query", "key", "value"))
        rules += [
            *rename(_BLOCK, theirs=f"{old}.", ours=f"{new}."),
            Rule(theirs=parts, ours=(f"{new}.attention.qkv.weight",), form=FUSED_QKV),
            Rule(
                theirs=(f"{attention}.q_bias", f"{attention}.v_bias"),
                ours=(f"{new}.attention.qkv.bias",),
                form=QV_BIAS,
            ),
        ]
    return rules
