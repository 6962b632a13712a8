"""Every key table: names go in and come out the same, fill a model, and one too many or too few is refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.vit import VideoViT
from framefeed_models.weights.config_json import ModelConfig, build_model
from framefeed_models.weights.key_table import WeightsMismatchError, export_weights, fill_model, import_weights
from framefeed_models.weights.tables import Source, choose_table
from tests.unit.models import foreign_checkpoints as foreign
from tests.unit.models.foreign_checkpoints import Shapes, random_weights

CASES: dict[str, tuple[Source, ModelConfig, Shapes]] = {
    "open_clip": ("clip", foreign.VIT_DUAL, foreign.openai_clip()),
    "avion": ("avion", foreign.VIT_DUAL, foreign.avion(flash=False, fast=False)),
    "avion flash": ("avion", foreign.VIT_DUAL, foreign.avion(flash=True, fast=False)),
    "avion flash, fast patches": ("avion", foreign.VIT_DUAL, foreign.avion(flash=True, fast=True)),
    "avion classifier": ("avion", foreign.VIT_CLASSIFIER, foreign.avion_classifier()),
    "lavila": ("lavila", foreign.TIMESFORMER_DUAL, foreign.lavila()),
    "lavila classifier": ("lavila", foreign.TIMESFORMER_CLASSIFIER, foreign.lavila_classifier()),
    "videomae": ("videomae", foreign.MAE, foreign.videomae()),
    "videomae flash": ("videomae", foreign.MAE, foreign.videomae(flash=True)),
    "videomae classifier": ("videomae", foreign.MAE_CLASSIFIER, foreign.videomae_classifier()),
    "transformers clip": ("transformers", foreign.VIT_DUAL, foreign.transformers_clip()),
    "transformers": ("transformers", foreign.MAE, foreign.transformers_videomae()),
    "transformers classifier": ("transformers", foreign.MAE_CLASSIFIER, foreign.transformers_classifier()),
    "transformers encoder": ("transformers", foreign.MAE.vit, foreign.transformers_encoder("", "layernorm")),
}
E_OTHER = foreign.E + 8
each_table = pytest.mark.parametrize(("source", "config", "shapes"), CASES.values(), ids=CASES.keys())


@each_table
def test_in_and_out_again_is_the_identity(source: Source, config: ModelConfig, shapes: Shapes) -> None:
    theirs = random_weights(shapes)
    table = choose_table(config, theirs, source=source)
    ours = import_weights(theirs, table)
    model = build_model(config)
    fill_model(model, ours)
    back = export_weights(model.state_dict(), table)
    assert back.keys() == theirs.keys()
    for name, tensor in back.items():
        assert torch.equal(tensor, theirs[name]), name
        assert tensor.is_contiguous()


@each_table
def test_one_missing_or_one_extra_key_is_refused_by_name(source: Source, config: ModelConfig, shapes: Shapes) -> None:
    theirs = random_weights(shapes)
    for name in theirs:
        fewer = {other: tensor for other, tensor in theirs.items() if other != name}
        with pytest.raises(WeightsMismatchError) as caught:
            import_weights(fewer, choose_table(config, fewer, source=source))
        assert name in caught.value.missing
        assert name in str(caught.value) or " more" in str(caught.value)
    more = theirs | {"visual.stranger": torch.zeros(1)}
    with pytest.raises(WeightsMismatchError, match=r"has no place for visual\.stranger$") as caught:
        import_weights(more, choose_table(config, more, source=source))
    assert (caught.value.missing, caught.value.extra) == ((), ("visual.stranger",))


@each_table
def test_a_tensor_of_another_shape_is_refused_by_name(source: Source, config: ModelConfig, shapes: Shapes) -> None:
    theirs = random_weights(shapes)
    table = choose_table(config, theirs, source=source)
    model = build_model(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for rule in table.rules:
        for name in rule.theirs:
            wrong = theirs | {name: torch.zeros(*theirs[name].shape, 2)}
            with pytest.raises(WeightsMismatchError) as caught:
                fill_model(model, import_weights(wrong, table))
            assert name in str(caught.value) or any(own in str(caught.value) for own in rule.ours)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_many_names_are_counted_not_printed() -> None:
    names = [f"n{i:03}" for i in range(100)]
    error = WeightsMismatchError("model", missing=names)
    assert str(error).endswith("n011 and 88 more")
    assert error.missing == tuple(names)


def test_clip_inflated_keeps_fresh_projections_when_the_joint_space_is_another() -> None:
    theirs = random_weights(foreign.openai_clip(joint=E_OTHER))
    table = choose_table(foreign.VIT_DUAL, theirs, source="clip")
    assert table.left == {"visual.proj", "text_projection", "logit_scale"}
    model = DualEncoder(foreign.VIT_DUAL)
    projection = model.video_projection_DE.clone()
    fill_model(model, import_weights(theirs, table), fresh=table.fresh)
    assert torch.equal(model.video_projection_DE, projection)
    assert not model.video.embedding.temporal_UD.any()
    with pytest.raises(WeightsMismatchError, match="leaves weights out"):
        export_weights(model.state_dict(), table)


def test_clip_into_a_timesformer_gives_clips_features_of_a_still_clip() -> None:
    """Its time attention starts such that it adds nothing: LaViLa's start."""
    theirs = random_weights(foreign.openai_clip())
    scaled = {name: tensor / 8 for name, tensor in theirs.items()}
    timesformer, vit = DualEncoder(foreign.TIMESFORMER_DUAL).eval(), DualEncoder(one_frame(foreign.VIT_DUAL)).eval()
    for model in (timesformer, vit):
        table = choose_table(model.config, scaled, source="clip")
        fill_model(model, import_weights(scaled, table), fresh=table.fresh)
    image = torch.randn(2, 3, 1, 32, 32)
    with torch.no_grad():
        still = timesformer.video(image.expand(-1, -1, foreign.F, -1, -1))
        wanted = vit.video(image)
        for t in range(foreign.F):
            torch.testing.assert_close(
                still[:, 1 + t * foreign.G :][:, : foreign.G], wanted[:, 1:], atol=1e-4, rtol=1e-4
            )


def one_frame(config: DualEncoderConfig) -> DualEncoderConfig:
    return replace(config, video=replace(config.video, grid=replace(config.video.grid, frames=1)))


def test_an_image_kernel_is_inflated_to_cubes() -> None:
    """A still clip gives what the image gave, whatever the cube's length."""
    theirs = random_weights(foreign.openai_clip())
    cubes = replace(
        foreign.VIT_DUAL,
        video=replace(foreign.VIT_DUAL.video, grid=replace(foreign.FRAMES, frames=4, tubelet_frames=2)),
    )
    embedded = []
    for config, frames in ((one_frame(foreign.VIT_DUAL), 1), (cubes, 4)):
        model = DualEncoder(config)
        table = choose_table(config, theirs, source="clip")
        fill_model(model, import_weights(theirs, table))
        assert torch.equal(
            export_weights(model.state_dict(), table)["visual.conv1.weight"], theirs["visual.conv1.weight"]
        )
        image = torch.randn(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        embedded.append(model.video.embedding(image.expand(-1, -1, frames, -1, -1))[:, : 1 + foreign.G])
    torch.testing.assert_close(*embedded, atol=1e-4, rtol=1e-4)


def test_a_video_model_is_no_image_checkpoint() -> None:
    model = DualEncoder(foreign.VIT_DUAL)
    table = choose_table(foreign.VIT_DUAL, {}, source="clip")
    assert "visual.conv1.weight" in export_weights(model.state_dict(), table)
    nn.init.normal_(model.video.embedding.temporal_UD)
    with pytest.raises(WeightsMismatchError, match=r"temporal_UD \(3, 48\) cannot become .*it is not zero"):
        export_weights(model.state_dict(), table)


def test_the_encoder_of_a_pretrained_videomae_leaves_the_decoder() -> None:
    theirs = random_weights(foreign.videomae())
    table = choose_table(foreign.MAE.vit, theirs, source="videomae")
    assert {name.partition(".")[0] for name in table.left} == {"decoder", "encoder_to_decoder", "mask_token"}
    vit = VideoViT(foreign.MAE.vit)
    fill_model(vit, import_weights(theirs, table))
    assert torch.equal(vit.norm.weight, theirs["encoder.norm.weight"])
    with pytest.raises(WeightsMismatchError, match=r"no place for stranger"):
        import_weights(theirs | {"stranger": torch.zeros(1)}, table)


@pytest.mark.parametrize(
    ("source", "config", "complaint"),
    [
        ("avion", foreign.TIMESFORMER_DUAL, "TimeSformer, wanted a ViT"),
        ("lavila", foreign.VIT_DUAL, "wanted TimeSformerConfig"),
        ("clip", foreign.MAE, "source clip has no VideoMAE"),
        ("avion", foreign.MAE, "source avion has no VideoMAE"),
        ("transformers", foreign.TIMESFORMER_DUAL, "TimeSformer, wanted a ViT"),
        ("transformers", foreign.TEXT, "source transformers has no Text"),
        ("videomae", foreign.VIT_CLASSIFIER, "positions is 'learned', wanted 'flat'"),
        ("videomae", replace(foreign.MAE_CLASSIFIER, heads={"a": 1, "b": 2}), "heads are a, b, wanted one"),
        ("hub", foreign.MAE, "source is 'hub', wanted one of clip"),
    ],
)
def test_weights_that_are_not_for_a_model_are_refused(source: Source, config: ModelConfig, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        choose_table(config, {}, source=source)


class OpenAIBlock(nn.Module):
    """CLIP's block in torch's own parts: what OpenAI's names stand for."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(foreign.D, 4, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(foreign.D, eps=1e-6), nn.LayerNorm(foreign.D, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(foreign.D, foreign.HIDDEN), "c_proj": nn.Linear(foreign.HIDDEN, foreign.D)}
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


@pytest.mark.parametrize(("flash", "fast"), [(False, False), (True, True)])
def test_avions_video_tower_computes_what_its_parts_do(flash: bool, fast: bool) -> None:
    """Convolution, torch's attention, tables tiled over time, against our tower with the same weights."""
    theirs = {name: tensor / 4 for name, tensor in random_weights(foreign.avion(flash=flash, fast=fast)).items()}
    model = DualEncoder(foreign.VIT_DUAL).eval()
    table = choose_table(foreign.VIT_DUAL, theirs, source="avion")
    fill_model(model, import_weights(theirs, table))
    names = {
        "attn.Wqkv.weight": "attn.in_proj_weight",
        "attn.Wqkv.bias": "attn.in_proj_bias",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    clips = torch.randn(2, 3, foreign.F, 32, 32)
    with torch.no_grad():
        kernel = theirs["visual.conv1.weight"].reshape(foreign.D, 3, foreign.P, foreign.P)
        frames = clips.transpose(1, 2).flatten(0, 1)
        patches = (
            nn.functional.conv2d(frames, kernel, stride=foreign.P).flatten(2).transpose(1, 2).reshape(2, -1, foreign.D)
        )
        spatial, temporal = theirs["visual.positional_embedding"], theirs["visual.temporal_embedding"]
        patches = patches + spatial[1:].repeat(foreign.F, 1) + temporal.repeat_interleave(foreign.G, 0)
        x = torch.cat(((theirs["visual.class_embedding"] + spatial[0]).expand(2, 1, -1), patches), dim=1)
        x = nn.functional.layer_norm(
            x, (foreign.D,), theirs["visual.ln_pre.weight"], theirs["visual.ln_pre.bias"], 1e-6
        )
        for i in range(foreign.DEPTH):
            block, prefix = OpenAIBlock().eval(), f"visual.transformer.resblocks.{i}."
            state = {name.removeprefix(prefix): tensor for name, tensor in theirs.items() if name.startswith(prefix)}
            for old, new in names.items():
                state = {name.replace(old, new): tensor for name, tensor in state.items()}
            block.load_state_dict(state)
            x = block(x)
        x = nn.functional.layer_norm(
            x[:, 0], (foreign.D,), theirs["visual.ln_post.weight"], theirs["visual.ln_post.bias"], 1e-6
        )
        wanted = nn.functional.normalize(x @ theirs["visual.image_projection"], dim=-1)
        torch.testing.assert_close(model.encode_video(clips), wanted, atol=1e-4, rtol=1e-4)
