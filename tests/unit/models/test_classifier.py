"""Linear heads: one or several on one feature, dropout in training only, started as the papers do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from framefeed_models.block import StackConfig
from framefeed_models.classifier import EPIC_VERBS_NOUNS_ACTIONS, Classifier, ClassifierConfig
from framefeed_models.timesformer import TimeSformerConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import ViTConfig, clip_vit

STACK = StackConfig(width=32, depth=2, heads=2, mlp_ratio=2.0)
VIT = ViTConfig(grid=TubeletGrid(frames=4, height_px=16, width_px=16, patch_px=8), stack=STACK)
CONFIG = ClassifierConfig(encoder=VIT, heads={"verb": 3, "noun": 5}, dropout=0.5)


def make_model(config: ClassifierConfig = CONFIG) -> Classifier:
    torch.manual_seed(0)
    return Classifier(config)


def make_clips(b: int = 3) -> Tensor:
    return torch.randn(b, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("encoder", [VIT, clip_vit(STACK, frames=4, size_px=16, patch_px=8)])
def test_every_head_reads_the_same_feature(encoder: ViTConfig) -> None:
    model = make_model(replace(CONFIG, encoder=encoder)).eval()
    with torch.no_grad():
        logits, feature = model(make_clips()), model.encoder(make_clips(), pooled=True)
        assert {name: x.shape for name, x in logits.items()} == {"verb": (3, 3), "noun": (3, 5)}
        for name, head in model.heads.items():
            torch.testing.assert_close(logits[name], feature @ head.weight.T + head.bias)


def test_a_timesformer_has_heads_too() -> None:
    grid = TubeletGrid(frames=4, height_px=16, width_px=16, tubelet_frames=1, patch_px=8)
    model = make_model(replace(CONFIG, encoder=TimeSformerConfig(grid=grid, stack=STACK)))
    assert model(make_clips())["noun"].shape == (3, 5)


def test_dropout_acts_in_training_only_and_follows_the_seed() -> None:
    model, clips = make_model(), make_clips()
    assert torch.equal(model.eval()(clips)["verb"], model(clips)["verb"])
    model.train()
    torch.manual_seed(1)
    first, second = model(clips)["verb"], model(clips)["verb"]
    torch.manual_seed(1)
    assert torch.equal(model(clips)["verb"], first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("std", [0.01, 2e-5])
def test_heads_start_small(std: float) -> None:
    head = make_model(replace(CONFIG, heads={"label": 2000}, head_std=std)).heads["label"]
    assert head.weight.std().item() == pytest.approx(std, rel=0.05)
    assert not head.bias.any()


def test_epic_kitchens_heads() -> None:
    assert EPIC_VERBS_NOUNS_ACTIONS == {"verb": 97, "noun": 300, "action": 3806}
    assert ClassifierConfig(encoder=VIT).heads == {"action": 3806}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": {}}, "at least one"), ({"heads": {"verb": 0}}, "at least 1 class"), ({"dropout": 1.0}, "dropout is 1")],
)
def test_config_refuses_what_makes_no_network(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
