"""CLIP's towers against `transformers`, same weights: vision at one frame, text, and the two together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from torch import Tensor

from framefeed_models.block import Activation, StackConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.text import TextConfig
from framefeed_models.vit import VideoViT, clip_vit
from framefeed_models.weights.key_table import import_weights
from framefeed_models.weights.transformers_clip import transformers_clip_table
from tests.unit.models.parity import Weights, gradients, largest_difference, randomise

VISION = StackConfig(width=48, depth=3, heads=4, mlp_ratio=2.0, activation="quick_gelu", norm_eps=1e-5)
TEXT = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0, activation="quick_gelu", norm_eps=1e-5, causal=True)
VOCABULARY, CONTEXT, JOINT = 60, 12, 24
TEMPORAL = "video.embedding.temporal_UD"


def make_theirs(activation: Activation = "quick_gelu") -> transformers.CLIPModel:
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "hidden_size": 32, "num_hidden_layers": 2}
    config = transformers.CLIPConfig(
        vision_config={**vision, "intermediate_size": 96, "hidden_act": activation},
        text_config={
            **text,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "hidden_act": activation,
            "eos_token_id": VOCABULARY - 1,
            "bos_token_id": VOCABULARY - 2,
        },
        projection_dim=JOINT,
    )
    theirs = transformers.CLIPModel(config).train()
    randomise(theirs)
    return theirs


def make_ours(activation: Activation = "quick_gelu") -> DualEncoder:
    video = clip_vit(replace(VISION, activation=activation), frames=1, size_px=32, patch_px=8)
    text = TextConfig(stack=replace(TEXT, activation=activation), vocabulary=VOCABULARY, context=CONTEXT)
    return DualEncoder(DualEncoderConfig(video=video, text=text, joint=JOINT)).train()


def our_names(theirs: Weights) -> Weights:
    """Weights or gradients of theirs under our names; images have no temporal embedding: ours is 0."""
    return import_weights(theirs, transformers_clip_table(make_ours().config))


def make_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    tokens = torch.zeros(3, CONTEXT, dtype=torch.int64)
    for row, length in zip(tokens, (4, 9, CONTEXT), strict=True):
        row[0], row[length - 1] = VOCABULARY - 2, VOCABULARY - 1
        row[1 : length - 1] = torch.randint(1, VOCABULARY - 2, (length - 2,), generator=generator)
    return images, tokens


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_logits_features_and_gradients_of_both_towers(activation: Activation) -> None:
    theirs, ours = make_theirs(activation), make_ours(activation)
    ours.load_state_dict(our_names(dict(theirs.state_dict())))
    images, tokens = make_inputs()
    encoding = ours(images[:, :, None], tokens)
    wanted = theirs(pixel_values=images, input_ids=tokens)
    assert (encoding.video_BE - wanted.image_embeds).abs().max() <= 1e-4
    assert (encoding.text_BE - wanted.text_embeds).abs().max() <= 1e-4
    logits = encoding.logits()
    torch.testing.assert_close(logits, wanted.logits_per_image, atol=1e-4, rtol=0)
    target = torch.arange(3)
    torch.nn.functional.cross_entropy(logits, target).backward()
    torch.nn.functional.cross_entropy(wanted.logits_per_image, target).backward()
    seen = gradients(ours)
    temporal_gradient = seen.pop(TEMPORAL)
    torch.testing.assert_close(temporal_gradient[0], seen["video.embedding.position_cells_GD"].sum(dim=0))
    wanted_gradients = our_names(gradients(theirs))
    del wanted_gradients[TEMPORAL]
    assert largest_difference(seen, wanted_gradients) <= 1e-3


def test_each_tower_alone() -> None:
    theirs, ours = make_theirs().eval(), make_ours().eval()
    ours.load_state_dict(our_names(dict(theirs.state_dict())))
    images, tokens = make_inputs()
    with torch.no_grad():
        assert isinstance(ours.video, VideoViT)
        wanted = theirs.vision_model(images)
        assert (ours.video(images[:, :, None], pooled=True) - wanted.pooler_output).abs().max() <= 1e-4
        normed = theirs.vision_model.post_layernorm(wanted.last_hidden_state)
        assert (ours.video(images[:, :, None]) - normed).abs().max() <= 1e-4
        assert (ours.text(tokens) - theirs.text_model(tokens).pooler_output).abs().max() <= 1e-4


def test_gelu_in_place_of_quick_gelu_is_another_function() -> None:
    """AVION's code runs OpenAI's weights with exact GELU: close, but not the same, so it has to be chosen."""
    theirs, ours = make_theirs("quick_gelu"), make_ours("gelu")
    ours.load_state_dict(our_names(dict(theirs.state_dict())))
    images, tokens = make_inputs()
    difference = ours(images[:, :, None], tokens).video_BE - theirs(pixel_values=images, input_ids=tokens).image_embeds
    assert difference.abs().max() > 1e-3


def test_inflated_weights_do_not_tell_the_frames_of_a_still_video_apart() -> None:
    """The temporal embedding starts at 0: what the weights know of time, they learn."""
    video = VideoViT(clip_vit(VISION, frames=3, size_px=32, patch_px=8)).eval()
    images, _ = make_inputs()
    with torch.no_grad():
        assert not video.embedding.temporal_UD.any()
        still = video(images[:, :, None].expand(-1, -1, 3, -1, -1))[:, 1:].unflatten(1, (3, 16))
        torch.testing.assert_close(still[:, 1], still[:, 0])
        torch.nn.init.normal_(video.embedding.temporal_UD)
        told = video(images[:, :, None].expand(-1, -1, 3, -1, -1))[:, 1:].unflatten(1, (3, 16))
        assert (told[:, 1] - told[:, 0]).abs().max() > 0.1
