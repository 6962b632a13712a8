"""Every number of every published recipe, with its source: a recipe that says another, or one more, fails here.

AVION is zhaoyue-zephyrus/AVION's code and docs/MODEL_ZOO.md; where its paper says otherwise that is named in the
recipe's docstring, which has command, cost, score and sources.
"""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from framefeed_models.dual_encoder import avion
from framefeed_models.videomae import PRESETS
from framefeed_models.weights.traits import encoder_of
from trainer_client.samples import Sample
from trainer_client.text.tokens import TokenLayout
from trainer_client.training.augment.rule import AugmentOptions
from trainer_client.training.recipes.catalogue import RECIPES, find_recipe
from trainer_client.training.recipes.model_spec import ClassifierModel, CmaeModel, MaeModel, TowersModel
from trainer_client.training.recipes.overrides import changed, fields_of
from trainer_client.training.recipes.recipe import Recipe, decides

Said = tuple[object, str]

# What is no number of a source: how clips travel, what is not used, places and seeds.
OURS = {"pixel_format", "seed", "steps", "init_from", "averaged", "absent", "classes", "split", "kind"}
OURS |= {"tokenizer_file", "vocabulary"}  # of a tokenizer that is trained, which none of these is
ZOO, DEFAULTS = "AVION docs/MODEL_ZOO.md", "AVION's defaults"
CLIP, VIDEOMAE, TUTORIAL = "Radford et al. 2021", "VideoMAE (Tong et al. 2022)", "VideoMAE tutorial (seed document)"
OFF = "no option of the authors' command"

TOWERS: dict[str, Said] = {
    "family": ("clip", DEFAULTS),
    "size": ("base", ZOO),
    "size_px": (224, DEFAULTS),
    "patch_px": (16, ZOO),
    "activation": ("gelu", "AVION's code drops use_quick_gelu"),
    "norm_eps": (1e-6, "AVION transformer.py; OpenAI has 1e-5"),
    "drop_path": (0.0, DEFAULTS),
    "drop_path_rule": ("linear", "not used without drop path"),
    "patch_dropout": (0.0, OFF),
    "pixel_norm": ("lavila", "LaViLa's and AVION's 108.33 for red, a typo of 122.77"),
    "text_width": (512, CLIP),
    "text_depth": (12, CLIP),
    "joint": (256, DEFAULTS),
    "learn_temperature": (False, f"{ZOO}: --freeze-temperature"),
    "tokenizer": ("clip", CLIP),
}
SPARSE: dict[str, Said] = {
    "sampling": ("avion_sparse", "AVION clip_dataset.py, get_frame_ids with jitter"),
    "crop": ("random_resized", f"{ZOO}: --fused-decode-crop"),
    "crop_scale": ([0.5, 1.0], "AVION's fused RandomResizedCrop"),
    "crop_ratio": ([3 / 4, 4 / 3], "torchvision's, as AVION's decoder draws it"),
    "hflip": (0.0, "never passed by AVION's code; the paper has one"),
}
FIXED: dict[str, Said] = {
    "optimizer": ("adamw", DEFAULTS),
    "lr": (3e-5, DEFAULTS),
    "start_lr": (3e-5, f"{ZOO}: --fix-lr"),
    "end_lr": (3e-5, f"{ZOO}: --fix-lr"),
    "warmup": (0.0, f"{ZOO}: --fix-lr"),
    "weight_decay": (0.01, DEFAULTS),
    "betas": ([0.9, 0.999], DEFAULTS),
    "layer_decay": (1.0, OFF),
    "clip_norm": (0.0, "off unless --grad-clip-norm"),
    "average_decay": (0.0, OFF),
}
MASKED: dict[str, Said] = {
    "preset": ("base", ZOO),
    "frames": (None, "the preset's 16, as in VideoMAE"),
    "size_px": (None, "the preset's 224, as in VideoMAE"),
    "mask_ratio": (0.9, VIDEOMAE),
    "mask_shape": ("tube", VIDEOMAE),
    "crop": ("multi_scale", "VideoMAE's GroupMultiScaleCrop; AVION's use_msc"),
    "hflip": (0.0, "no flip in VideoMAE's code, nor AVION's; VideoMAE's paper has one for Kinetics"),
    "base_lr": (1.5e-4, VIDEOMAE),
    "lr_clips": (256, f"{VIDEOMAE}: lr x B / 256"),
    "start_lr": (1e-6, "VideoMAE's warmup_lr, x B / 256"),
    "end_lr": (1e-5, "VideoMAE's min_lr, x B / 256"),
    "weight_decay": (0.05, VIDEOMAE),
    "betas": ([0.9, 0.95], VIDEOMAE),
    "layer_decay": (1.0, OFF),
    "clip_norm": (0.0, "off unless --clip_grad"),
    "average_decay": (0.0, OFF),
    "lr": (None, "base_lr x B / 256"),
    "accept": ([], OFF),
}
FINETUNE: dict[str, Said] = {
    "family": ("videomae", ZOO),
    "size": ("base", ZOO),
    "frames": (16, DEFAULTS),
    "size_px": (224, DEFAULTS),
    "patch_px": (16, ZOO),
    "activation": ("gelu", VIDEOMAE),
    "norm_eps": (1e-6, VIDEOMAE),
    "drop_path": (0.1, DEFAULTS),
    "drop_path_rule": ("linear", VIDEOMAE),
    "patch_dropout": (0.0, OFF),
    "pixel_norm": ("imagenet", VIDEOMAE),
    "dropout": (0.0, VIDEOMAE),
    "head_std": (2e-5, "VideoMAE: std .02, times init_scale .001"),
    "smoothing": (0.1, DEFAULTS),
    "crop": ("random_resized", DEFAULTS),
    "crop_scale": ([0.08, 1.0], DEFAULTS),
    "crop_ratio": ([0.75, 4 / 3], DEFAULTS),
    "hflip": (0.5, DEFAULTS),
    "optimizer": ("adamw", DEFAULTS),
    "start_lr": (1e-6, "x B / 256"),
    "end_lr": (1e-6, "x B / 256"),
    "weight_decay": (0.05, DEFAULTS),
    "betas": ([0.9, 0.999], DEFAULTS),
    "layer_decay": (0.75, DEFAULTS),
    "average_decay": (0.0, "optional, off"),
    "accept": ([], OFF),
}
MIXING: dict[str, Said] = {
    "mixup": (True, "AVION's mixup, prob 1"),
    "mixup_alpha": (0.8, DEFAULTS),
    "cutmix_alpha": (1.0, DEFAULTS),
    "cutmix_share": (0.5, DEFAULTS),
}
# What the device does to clips beside normalising them: nothing, but in fine-tuning on Kinetics.
PLAIN: dict[str, Said] = {
    name: (value, OFF) for name, value in fields_of(AugmentOptions()).items() if not isinstance(value, tuple)
}
PLAIN |= {"mix": ([], OFF), "buckets": (False, OFF), "short": ("hold", OFF)}
RAND: dict[str, Said] = {
    "rand_ops": (4, "rand-m7-n4-mstd0.5-inc1"),
    "rand_magnitude": (7.0, "rand-m7-n4-mstd0.5-inc1"),
    "rand_std": (0.5, "rand-m7-n4-mstd0.5-inc1"),
    "rand_share": (0.5, "timm's default"),
    "erase": (0.25, DEFAULTS),
    "erase_area": ([0.02, 1 / 3], "timm's RandomErasing, as VideoMAE and AVION call it"),
    "erase_noise": (True, "VideoMAE: --remode pixel"),
}
EGO4D = TOWERS | SPARSE | FIXED
EGO4D |= {
    "frames": (4, DEFAULTS),
    "epochs": (5, DEFAULTS),
    "local_loss": (False, "AVION gathers with gradient"),
    "accept": (["activation", "norm_eps", "pixels"], "AVION starts from OpenAI's CLIP and runs it otherwise"),
}
TABLE: dict[str, dict[str, Said]] = {
    "ego4d_contrastive_vitb": EGO4D | {"batch_clips": (256 * 8, ZOO)},
    "ego4d_contrastive_vitl": EGO4D
    | {
        "batch_clips": (112 * 8, ZOO),
        "size": ("large", ZOO),
        "patch_px": (14, CLIP),
        "text_width": (768, CLIP),
    },
    "lavila_tsf_baseline": EGO4D
    | {
        "batch_clips": (32 * 32, "LaViLa: 32 x 32 V100"),
        "family": ("timesformer", "LaViLa"),
        "activation": ("quick_gelu", "LaViLa"),
        "sampling": ("lavila_segments", "LaViLa"),
        "accept": (["norm_eps", "pixels"], "OpenAI's eps 1e-5 and 122.77"),
    },
    "ek100_mir_finetune": TOWERS
    | SPARSE
    | FIXED
    | {
        "frames": (16, DEFAULTS),
        "margin": (0.2, DEFAULTS),
        "adaptive": (False, "AVION's code, which passes relevances and does not use them; LaViLa has it with .4"),
        "epochs": (100, DEFAULTS),
        "batch_clips": (64 * 8, ZOO),
        "start_lr": (1e-6, DEFAULTS),
        "end_lr": (1e-5, DEFAULTS),
        "warmup": (1 / 100, "AVION: 1 epoch"),
        "drop_path": (0.0, "AVION's code; the paper has .1"),
        "accept": ([], OFF),
    },
    "ek100_cls_finetune": {name: said for name, said in (TOWERS | SPARSE).items() if name in FINETUNE | SPARSE}
    | MIXING
    | {
        "frames": (16, DEFAULTS),
        "heads": ({"action": 3806}, "verb:noun pairs of EPIC-Kitchens-100"),
        "dropout": (0.5, DEFAULTS),
        "head_std": (0.01, DEFAULTS),
        "drop_path": (0.1, DEFAULTS),
        "drop_path_rule": ("constant", "AVION transformer.py"),
        "smoothing": (0.1, DEFAULTS),
        "optimizer": ("sgd", DEFAULTS),
        "lr": (None, "3e-3 x B / 128"),
        "base_lr": (3e-3, DEFAULTS),
        "lr_clips": (128, DEFAULTS),
        "start_lr": (1e-6, "x B / 128"),
        "end_lr": (1e-5, "x B / 128"),
        "warmup": (2 / 100, "AVION's code: 2 epochs; the paper has 1"),
        "weight_decay": (4e-5, "AVION's code and issue 9; the paper has 5e-4"),
        "betas": ([0.9, 0.999], "the first is momentum .9"),
        "layer_decay": (1.0, OFF),
        "clip_norm": (0.0, "off unless --grad-clip-norm"),
        "average_decay": (0.0, OFF),
        "epochs": (100, DEFAULTS),
        "batch_clips": (64 * 8, ZOO),
        "accept": ([], OFF),
    },
    "k400_mae_pretrain": MASKED
    | {
        "optimizer": ("lion", f"{ZOO}: --optimizer lion; VideoMAE has AdamW"),
        "batch_clips": (64 * 4, ZOO),
        "epochs": (800, DEFAULTS),
        "warmup": (40 / 800, "AVION and VideoMAE: 40 epochs"),
        "sampling": ("avion_dense", "AVION classification_dataset.py"),
        "stride_frames": (4, VIDEOMAE),
    },
    "ssv2_mae_pretrain": MASKED
    | {
        "optimizer": ("adamw", VIDEOMAE),
        "batch_clips": (32 * 64, "VideoMAE's script: 64 GPUs"),
        "epochs": (2400, "VideoMAE's script: 2401, which saves the last"),
        "warmup": (40 / 2400, "VideoMAE's script"),
        "sampling": ("videomae_dense", VIDEOMAE),
        "stride_frames": (2, "VideoMAE's script: --sampling_rate 2"),
    },
    "cmae_pretrain": MASKED
    | {
        "optimizer": ("adamw", "CMAE (Huang et al. 2022)"),
        "batch_clips": (1024, "ours: no source at hand has it"),
        "epochs": (800, VIDEOMAE),
        "warmup": (40 / 800, "CMAE: 40 epochs"),
        "start_lr": (1.5e-4 * 1e-4, "CMAE: a ten-thousandth of the peak"),
        "end_lr": (0.0, "CMAE: cosine to 0"),
        "sampling": ("videomae_dense", VIDEOMAE),
        "stride_frames": (4, VIDEOMAE),
        "feature_width": (512, "CMAE's configuration of ViT-B"),
        "feature_depth": (2, "CMAE's configuration of ViT-B"),
        "feature_heads": (16, "CMAE's configuration of ViT-B"),
        "hidden": (1536, "CMAE's configuration of ViT-B"),
        "joint": (256, "CMAE's configuration of ViT-B"),
        "temperature": (0.07, "CMAE's configuration of ViT-B"),
        "contrastive_weight": (1.0, "CMAE: ct_weight"),
        "scaled_by_temperature": (True, "CMAE's code: 2 τ; its formula has none"),
        "longest_shift": (2, "ours: no source at hand has it"),
        "momentum": (0.996, "CMAE's configuration of ViT-B"),
    },
    "k400_finetune": FINETUNE
    | MIXING
    | RAND
    | {
        "heads": ({"label": 400}, "Kinetics-400"),
        "lr": (None, "1.5e-3 x B / 256"),
        "base_lr": (1.5e-3, "AVION; VideoMAE has 1e-3"),
        "lr_clips": (256, DEFAULTS),
        "warmup": (5 / 100, "AVION: 5 epochs"),
        "epochs": (100, DEFAULTS),
        "batch_clips": (32 * 8, ZOO),
        "clip_norm": (0.0, OFF),
        "sampling": ("videomae_finetune", "VideoMAE and AVION"),
        "stride_frames": (4, DEFAULTS),
    },
    "k700_finetune": FINETUNE
    | {
        "heads": ({"label": 700}, "Kinetics-700"),
        "lr": (1.5e-4, TUTORIAL),
        "start_lr": (1e-6, "the end's: the tutorial says none"),
        "end_lr": (1e-6, TUTORIAL),
        "warmup": (10 / 200, f"{TUTORIAL}: 10 epochs"),
        "epochs": (200, f"{TUTORIAL}: 200 to 400"),
        "batch_clips": (16, f"{TUTORIAL}: 8 to 16"),
        "clip_norm": (1.0, TUTORIAL),
        "sampling": ("segments", f"{TUTORIAL}: uniform, with temporal jitter"),
        "mixup": (False, f"not in the {TUTORIAL}"),
        "jitter": (1.0, f"{TUTORIAL}: colour jitter"),
    },
}
PUBLISHED = [name for name in RECIPES if name != "mae" and not name.endswith("_tiny")]


def unused(said: dict[str, object]) -> set[str]:
    """Fields that another one switches off."""
    off = set[str]()
    if said["lr"] is not None:
        off |= {"base_lr", "lr_clips"}
    if said["sampling"] in ("segments", "avion_sparse", "lavila_segments", "tsn_segments"):
        off |= {"stride_frames"}
    if said["crop"] != "random_resized":
        off |= {"crop_scale", "crop_ratio"}
    if not said["buckets"]:
        off |= {"lengths", "longest_px", "frames_per_s"}
    if not said["erase"]:
        off |= {"erase_area"}
    if not said["blur"]:
        off |= {"blur_px"}
    if said.get("mixup") is False:
        off |= {"mixup_alpha", "cutmix_alpha", "cutmix_share"}
    return off


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_number_is_its_sources(name: str) -> None:
    said = decides(find_recipe(name))
    table = PLAIN | TABLE[name]
    assert {field: value for field, value in said.items() if field in table} == {
        field: value for field, (value, _) in table.items()
    }
    assert said.keys() - table.keys() - OURS - unused(said) == set(), "each has a source, or is no number of one"
    assert all(len(source) > 3 for _, source in table.values())


@pytest.mark.parametrize("name", RECIPES)
def test_its_docstring_has_command_cost_score_and_sources(name: str) -> None:
    text = inspect.getdoc(RECIPES[name]) or ""
    assert f"framefeed train {name} " in text
    for word in ("Score: ", "cost" if name == "mae" else "Cost: "):
        assert word.lower() in text.lower(), word
    if name in PUBLISHED:
        assert "Source" in text
        assert "Deviation" in text or "deviations" in text


@pytest.mark.parametrize(
    ("name", "samples", "at", "rate"),
    [
        ("ego4d_contrastive_vitb", 4_000_000, 0.0, 3e-5),
        ("ego4d_contrastive_vitb", 4_000_000, 1.0, 3e-5),
        ("ek100_mir_finetune", 67_217, 0.0, 1e-6),
        ("ek100_mir_finetune", 67_217, 0.01, 3e-5),
        ("ek100_mir_finetune", 67_217, 1.0, 1e-5),
        ("ek100_cls_finetune", 67_217, 0.0, 4e-6),
        ("ek100_cls_finetune", 67_217, 0.02, 0.012),
        ("ek100_cls_finetune", 67_217, 1.0, 4e-5),
        ("k400_mae_pretrain", 241_258, 0.05, 1.5e-4),
        ("k400_finetune", 241_258, 0.05, 1.5e-3),
        ("k700_finetune", 545_317, 0.05, 1.5e-4),
        ("ssv2_mae_pretrain", 168_913, 40 / 2400, 1.2e-3),
        ("ssv2_mae_pretrain", 168_913, 1.0, 8e-5),
        ("cmae_pretrain", 241_258, 0.0, 6e-8),
        ("cmae_pretrain", 241_258, 0.05, 6e-4),
        ("cmae_pretrain", 241_258, 1.0, 0.0),
    ],
)
def test_the_rate_is_theirs_at_its_corners(name: str, samples: int, at: float, rate: float) -> None:
    what = find_recipe(name).what
    steps = what.length.steps_over(samples)
    learning = what.learning.build(torch.nn.Linear(2, 2), steps=steps, batch_clips=what.length.batch_clips)
    assert math.isclose(learning.schedule.at(round(at * steps)), rate, rel_tol=1e-9, abs_tol=1e-15)


def test_steps_of_an_epoch_are_all_samples_and_half_a_clip_no_more() -> None:
    length = find_recipe("k400_mae_pretrain").what.length
    assert length.steps_over(241_258) == 800 * 943  # ⌈241,258 / 256⌉
    assert find_recipe("ek100_mir_finetune").what.length.steps_over(67_217) == 100 * 132


def test_models_are_those_that_weights_are_published_for() -> None:
    layout = TokenLayout(vocabulary=49_408)
    vitb, vitl = (find_recipe(f"ego4d_contrastive_{size}").what.model for size in ("vitb", "vitl"))
    assert isinstance(vitb, TowersModel)
    assert isinstance(vitl, TowersModel)
    for model, name in ((vitb, "CLIP_VITB16"), (vitl, "CLIP_VITL14")):
        wanted = avion(name)
        found = changed(model, "learn_temperature=true").config(layout)
        assert found == wanted
    mae, cmae = (find_recipe(f"{name}_pretrain").what.model for name in ("k400_mae", "cmae"))
    assert isinstance(mae, MaeModel)
    assert isinstance(cmae, CmaeModel)
    assert mae.config() == cmae.config().mae == PRESETS["base"]
    finetune = find_recipe("k400_finetune").what.model
    assert isinstance(finetune, ClassifierModel)
    encoder = encoder_of(finetune.config({}))
    assert (encoder.grid, encoder.stack.width) == (PRESETS["base"].grid, 768)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_clips_and_a_policy(name: str) -> None:
    """Frames and sizes of its model, without data; towers need a vocabulary, which any layout is."""
    recipe: Recipe = find_recipe(name)
    model = recipe.what.model
    config = (
        model.config(TokenLayout(vocabulary=49_408))
        if isinstance(model, TowersModel)
        else model.config({"label": 4})
        if isinstance(model, ClassifierModel)
        else model.config()
    )
    grid = encoder_of(config).grid
    policy = recipe.what.clips.policy(frames=grid.frames, height_px=grid.height_px, width_px=grid.width_px)
    request = policy.request(Sample(video="v", start_s=0.0, end_s=10.0), seed=1)
    assert (request.width_px, request.hflip_probability) == (grid.width_px, recipe.what.clips.hflip)


@pytest.mark.parametrize(
    ("name", "epochs", "best"),
    [
        ("ek100_mir_finetune", 5, "max:val/mAP"),  # AVION: --eval-freq 5, best_acc1 is the average mAP
        ("ek100_cls_finetune", 5, "max:val/action_top1"),
        ("k400_finetune", 1, "max:val/top1"),
    ],
)
def test_fine_tunings_are_scored_as_often_as_published(name: str, epochs: int, best: str) -> None:
    how = find_recipe(name).how
    assert (how.evaluation.eval_epochs, how.session.keep_best) == (epochs, best)
    assert (how.evaluation.views.windows, how.evaluation.views.boxes) == (1, 1)
