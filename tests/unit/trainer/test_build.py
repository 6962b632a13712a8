"""From a recipe to its task: parts that fit each other, labels that heads have, first weights or why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from framefeed.errors import BadInput
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.cmae import CMAEConfig
from framefeed_models.dual_encoder import DualEncoderConfig
from framefeed_models.weights.saved_model import save_model
from tests.unit.trainer.small_run import make_batch
from trainer_client.clip_policy import ClipPolicy
from trainer_client.datasets.annotation import Annotation, text_of
from trainer_client.samples import Sample
from trainer_client.training.recipes.build import Built, build, fill
from trainer_client.training.recipes.model_spec import Kernels, MaeModel, TowersModel, VideoEncoder
from trainer_client.training.recipes.overrides import changed
from trainer_client.training.recipes.recipe import Init, Recipe
from trainer_client.training.recipes.run_data import RunData
from trainer_client.training.recipes.tiny import classify_tiny, cmae_tiny, contrastive_tiny, mae_tiny, ranking_tiny

PLACES = {"root": Path("/r"), "out": Path("/o"), "annotations": Path("/a")}
TEXTS = ("a red circle moves left", "a blue ring moves up")
DATA = RunData(
    dataset=[
        Sample(video="v", start_s=0.0, end_s=1.0, target=Annotation(row=0, texts=TEXTS, labels={"label": 3})),
    ],
    texts=lambda: TEXTS,
    labels={"label": 3}.get,
    classes={"label": 4},
)


def built(recipe: Recipe, data: RunData = DATA) -> Built:
    return build(recipe.what, data)


def one_shape(of: Built) -> tuple[int, ...]:
    policy = of.policy()
    assert isinstance(policy, ClipPolicy)
    return policy.shape


def test_classes_are_the_data_sets_unless_the_recipe_says_them() -> None:
    recipe = classify_tiny(**PLACES)
    for changes, heads in (((), {"label": 4}), (('heads={"label": 9}',), {"label": 9})):
        config = built(changed(recipe, *changes)).model
        assert isinstance(config, ClassifierConfig)
        assert dict(config.heads) == heads


@pytest.mark.parametrize(
    ("heads", "data", "says"),
    [
        ('{"label": 3}', DATA, "label 'label' of the data set goes up to 3, wanted 0 to 2, as heads say"),
        ('{"verb": 97}', DATA, "heads have 'verb', which is no label of the data set; it has label"),
        ("{}", replace(DATA, classes={}), "heads are {} and the data set names no classes"),
        ("{}", replace(DATA, classes={"label": 1}, labels=lambda _: 0), "label has one class, wanted two or more"),
        ('{"label": 0}', DATA, "wanted at least one of at least 1 class"),
    ],
)
def test_labels_out_of_their_heads_range_are_refused_before_the_first_step(
    heads: str, data: RunData, says: str
) -> None:
    with pytest.raises(BadInput) as refused:
        built(changed(classify_tiny(**PLACES), f"heads={heads}"), data)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_model_that_fits_in_no_memory_is_one_line() -> None:
    made = built(changed(classify_tiny(**PLACES), f'heads={{"label": {10**13}}}'))
    with pytest.raises(BadInput, match=r"recipe: the model does not fit in memory \(.*\); wanted a smaller one"):
        made.task(kernels=Kernels(), device=torch.device("cpu"))


@pytest.mark.parametrize("make", [contrastive_tiny, ranking_tiny, cmae_tiny])
def test_a_task_that_compares_clips_wants_two_in_a_batch(make: Callable[..., Recipe]) -> None:
    with pytest.raises(BadInput, match="--batch-clips is 1, and this task compares the clips of a batch"):
        built(changed(make(**PLACES), "batch_clips=1"))


def test_a_task_and_a_model_that_do_not_fit_are_refused() -> None:
    recipe = classify_tiny(**PLACES)
    with pytest.raises(BadInput, match="task is ClassifySpec and model MaeModel, which do not fit"):
        build(replace(recipe.what, model=MaeModel(preset="tiny")), DATA)


@pytest.mark.parametrize(
    ("make", "change", "says"),
    [
        (mae_tiny, "buckets=true", "--buckets: this model's masks or attention are of one number of cubes"),
        (contrastive_tiny, "family=timesformer short=pad", "--short pad: this model's masks or attention"),
        (classify_tiny, "mixup=true short=pad", "--short pad with --mixup"),
        (classify_tiny, "shift_frames=1 short=pad", "--short pad with --shift-frames"),
        (classify_tiny, "short=loop sampling=segments", "--short is loop and --sampling segments"),
        (classify_tiny, "lengths=[4]", "--lengths is (4,) without --buckets"),
        (classify_tiny, "buckets=true crop=multi_scale", "--buckets with --crop multi_scale"),
    ],
)
def test_many_shapes_where_one_is_wanted_are_refused(make: Callable[..., Recipe], change: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        built(changed(make(**PLACES), *change.split()))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_adaptive_margin_needs_relevancies_and_is_by_those_of_the_text_that_is_drawn() -> None:
    class Rated(tuple[str, ...]):
        __slots__ = ()

        def relevancy(self, at: int) -> float:
            return (1.0, 0.5)[at]

    adaptive = changed(ranking_tiny(**PLACES), "adaptive=true", "margin=0.4")
    with pytest.raises(BadInput, match="--adaptive needs relevancies, which the data set has not"):
        built(adaptive)
    task = built(adaptive, replace(DATA, has_relevancies=True)).task(kernels=Kernels(), device=torch.device("cpu"))
    batch = make_batch(0, clips=8, frames=8, side_px=32)
    sample = replace(batch.samples[0], target=Annotation(row=0, texts=Rated(("open", "close"))))
    made = task.on_host(replace(batch, samples=(sample,) * 8))
    drawn = [text_of(sample.target, seed) for seed in batch.seeds.tolist()]
    assert set(drawn) == {"open", "close"}
    assert made["weight_B"].tolist() == [1.0 if text == "open" else 0.5 for text in drawn]


def test_towers_take_the_tokenizers_vocabulary_and_a_clips_text_follows_its_seed() -> None:
    for make in (contrastive_tiny, ranking_tiny):
        found = built(make(**PLACES))
        assert found.tokenizer is not None
        assert isinstance(found.model, DualEncoderConfig)
        assert found.model.text.vocabulary == found.tokenizer.layout.vocabulary > 256
    target = DATA.dataset[0].target
    assert isinstance(target, Annotation)
    assert {target.text(seed) for seed in range(20)} == set(TEXTS)
    assert target.text(7) == target.text(7)


def test_no_text_to_learn_a_tokenizer_from_is_one_line() -> None:
    with pytest.raises(BadInput, match="there is no text in the narrations"):
        built(contrastive_tiny(**PLACES), replace(DATA, texts=tuple))


def test_clips_are_the_models_and_longer_where_views_are_shifted() -> None:
    assert one_shape(built(mae_tiny(**PLACES))) == (8, 48, 32)
    found = built(cmae_tiny(**PLACES))
    assert isinstance(found.model, CMAEConfig)
    assert (found.model.mae.grid.frames, one_shape(found)) == (8, (9, 48, 32))


def test_first_weights_follow_what_they_were_trained_with_or_are_refused_in_a_line(tmp_path: Path) -> None:
    """Activation, eps and pixels contradicted: refused, unless it is named; the model stays as it was."""
    found = built(classify_tiny(**PLACES))
    assert isinstance(found.model, ClassifierConfig)
    other = replace(found.model, encoder=replace(found.model.encoder, stack=_quick(found.model)))
    torch.manual_seed(3)
    save_model(tmp_path / "quick", Classifier(other).state_dict(), other)
    model = found.task(kernels=Kernels(), device=torch.device("cpu")).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for init in (Init(init_from=tmp_path / "quick"), Init(init_from=tmp_path / "nothing")):
        with pytest.raises(BadInput) as refused:
            fill(model, init, norm=found.norm)
        assert "\n" not in str(refused.value)
        assert _equal(model.state_dict(), before)
    report = fill(model, Init(init_from=tmp_path / "quick", accept=("activation", "norm_eps")), norm=found.norm)
    assert report is not None
    assert "accepted: activation of the video encoder is gelu" in str(report)
    assert not _equal(model.state_dict(), before)
    assert fill(model, Init(), norm=found.norm) is None


def _quick(config: ClassifierConfig) -> object:
    return replace(config.encoder.stack, activation="quick_gelu", norm_eps=1e-5)


def _equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (VideoEncoder(family="timesformer", patch_dropout=0.5), "patch_dropout is 0.5, wanted 0"),
        (VideoEncoder(size_px=100), "--size-px is 100, wanted a multiple of 16"),
        (VideoEncoder(drop_path=1.5), "drop_path is 1.5"),
    ],
)
def test_values_that_make_no_network_are_one_line(spec: VideoEncoder, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        TowersModel(encoder=spec).config(built(contrastive_tiny(**PLACES)).tokenizer.layout)  # type: ignore[union-attr]
