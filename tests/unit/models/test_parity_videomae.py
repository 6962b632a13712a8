"""VideoMAE against `transformers`, same weights: outputs within 1e-4, gradients within 1e-3 (float32, CPU)."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.functional import cross_entropy

from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.videomae import VideoMAE, VideoMAEConfig
from framefeed_models.vit import VideoViT
from framefeed_models.weights.key_table import import_weights
from framefeed_models.weights.transformers_videomae import transformers_table
from framefeed_models.weights.videomae import AnyVideoMAE
from tests.unit.models.parity import Weights, gradients, largest_difference, randomise

GRID = TubeletGrid(frames=4, height_px=32, width_px=32, patch_px=8)
ENCODER = StackConfig(width=48, depth=3, heads=4, mlp_ratio=2.0)
# transformers builds the decoder's last norm, and the classifier's, with torch's eps of 1e-5, the authors with 1e-6.
DECODER = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0)
MAE = VideoMAEConfig(grid=GRID, encoder=ENCODER, decoder=DECODER)
THEIRS = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "tubelet_size": 2,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-6,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
    "hidden_act": "gelu",
    "qkv_bias": True,
}
MEAN, STD = (torch.tensor(x).view(3, 1, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def make_clips() -> Tensor:
    """Normalised clips whose pixels lie between 0 and 1 before that, as the target of theirs wants."""
    pixels = torch.rand(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    return (pixels - MEAN) / STD


def make_mask(masked: int) -> Tensor:
    return torch.rand(2, GRID.tokens, generator=torch.Generator().manual_seed(2)).argsort(dim=1) < masked


def our_names(theirs: Weights, config: AnyVideoMAE) -> Weights:
    """Weights or gradients of theirs under our names; version 5 has other names for two biases than every file has."""
    published = {
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): tensor for name, tensor in theirs.items()
    }
    return import_weights(published, transformers_table(config))


@pytest.mark.parametrize("masked", [16, 29])
def test_pre_training_loss_and_gradients(masked: int) -> None:
    config = transformers.VideoMAEConfig(**THEIRS, use_mean_pooling=False)
    theirs = transformers.VideoMAEForPreTraining(config).train()
    randomise(theirs)
    ours = VideoMAE(MAE)
    ours.load_state_dict(our_names(dict(theirs.state_dict()), MAE))
    clips, mask = make_clips(), make_mask(masked)
    output = ours(clips, mask)
    wanted = theirs(clips.transpose(1, 2), bool_masked_pos=mask)
    assert abs(output.loss.item() - wanted.loss.item()) <= 1e-4
    predictions_BMV = output.predictions_BMPC.flatten(2)
    assert (predictions_BMV - wanted.logits).abs().max() <= 1e-4
    output.loss.backward()
    wanted.loss.backward()
    assert largest_difference(gradients(ours), our_names(gradients(theirs), MAE)) <= 1e-3


def test_classification_and_gradients() -> None:
    config = transformers.VideoMAEConfig(**THEIRS, use_mean_pooling=True, num_labels=5)
    theirs = transformers.VideoMAEForVideoClassification(config).train()
    randomise(theirs)
    classifier = ClassifierConfig(encoder=MAE.vit, heads={"label": 5})
    ours = Classifier(classifier).train()
    ours.load_state_dict(our_names(dict(theirs.state_dict()), classifier))
    clips, labels = make_clips(), torch.tensor([4, 1])
    logits = ours(clips)["label"]
    wanted = theirs(clips.transpose(1, 2)).logits
    assert (logits - wanted).abs().max() <= 1e-4
    cross_entropy(logits, labels).backward()
    cross_entropy(wanted, labels).backward()
    assert largest_difference(gradients(ours), our_names(gradients(theirs), classifier)) <= 1e-3


def test_all_tokens_are_encoded_as_theirs() -> None:
    config = transformers.VideoMAEConfig(**THEIRS, use_mean_pooling=False)
    theirs = transformers.VideoMAEModel(config).eval()
    randomise(theirs)
    ours = VideoViT(MAE.vit).eval()
    ours.load_state_dict(our_names(dict(theirs.state_dict()), MAE.vit))
    with torch.no_grad():
        wanted = theirs(make_clips().transpose(1, 2)).last_hidden_state
        assert (ours(make_clips()) - wanted).abs().max() <= 1e-4
