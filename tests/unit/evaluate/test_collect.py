"""Rows by the place of their sample: views averaged, stand-ins and the begun second epoch left out; and each scorer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from framefeed.errors import BadInput
from framefeed_models.block import StackConfig
from framefeed_models.classifier import Classifier, ClassifierConfig
from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig
from framefeed_models.pixel_norm import CLIP, IMAGENET, LAVILA
from framefeed_models.text import TextConfig
from framefeed_models.tubelets import TubeletGrid
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.saved_model import save_model
from tests.manifests import manifest_of
from tests.unit.trainer.small_run import make_batch
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.collect import Collected, collect
from trainer_client.evaluate.model_file import ModelChoice, open_model
from trainer_client.evaluate.scorers import Encoders, classifier_scorer, dual_scorer
from trainer_client.evaluate.tokenizer_file import open_tokenizer
from trainer_client.feed.batch import Batch
from trainer_client.feed.stand_ins import StandIn
from trainer_client.samples import Sample
from trainer_client.text.narration_bpe import NarrationTokenizer
from trainer_client.training.device_feed import DeviceBatch, to_device
from trainer_client.training.precision import Precision
from trainer_client.training.ranks import Ranks

CPU = torch.device("cpu")
STACK = StackConfig(width=32, depth=1, heads=2)
VIDEO = ViTConfig(grid=TubeletGrid(frames=2, height_px=16, width_px=16, tubelet_frames=1, patch_px=16), stack=STACK)
TEXTS = ("opens a door", "cuts an onion", "opens a door")


def batch_of(step: int, *, indices: list[int], epochs: list[int], stand_ins: tuple[StandIn, ...] = ()) -> Batch:
    made = make_batch(step, clips=len(indices), frames=2, side_px=16)
    return dataclasses.replace(
        made,
        positions=np.arange(len(indices)) + step * len(indices),
        indices=np.array(indices),
        epochs=np.array(epochs),
        stand_ins=stand_ins,
    )


def means(batch: DeviceBatch) -> torch.Tensor:
    return batch.pixels.float().mean(dim=(1, 2, 3))[:, None]


def test_views_are_averaged_and_what_is_no_planned_clip_is_left_out() -> None:
    sample = Sample(video="v", start_s=0.0, end_s=1.0)
    lost = StandIn(position=4, failed=(4,), draw=0, index=0, seed=1, sample=sample, reason="corrupt_media")
    again = dataclasses.replace(lost, position=6)
    batches = [
        batch_of(0, indices=[0, 1, 2, 3], epochs=[0] * 4),
        batch_of(1, indices=[0, 5, 0, 1], epochs=[0, 0, 1, 1], stand_ins=(lost, again)),
    ]
    rows = np.concatenate([means(to_device(batch, CPU)).numpy().astype(float) for batch in batches])[:, 0]
    found = collect(batches, means, samples=3, views=2, ranks=Ranks(), device=CPU)
    assert found.views_N.tolist() == [2, 2, 1]
    assert found.mean_NR[:, 0].tolist() == [rows[:2].mean(), rows[2:4].mean(), rows[5]]
    assert (found.stood_in, found.missing_clips, found.found.tolist()) == (1, 1, [True] * 3)


def opened(tmp_path: Path, rows: list[dict[str, object]]) -> AnnotatedDataset:
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"video": "v", **row}) + "\n" for row in rows))
    spec = DataSpec(kind="table", path=tmp_path / "t.jsonl", cache=tmp_path / "cache")
    return open_dataset(spec, manifest_of({"v": 9.0}))


def collected(rows: np.ndarray[tuple[int, int], np.dtype[np.float64]], *, missing: tuple[int, ...] = ()) -> Collected:
    views = np.ones(len(rows), np.int64)
    views[list(missing)] = 0
    return Collected(mean_NR=rows, views_N=views, views=1, stood_in=0)


def test_a_saved_classifier_is_scored_whole_and_its_fingerprint_is_of_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ClassifierConfig(encoder=VIDEO, heads={"label": 3})
    weights = Classifier(config).state_dict()
    save_model(tmp_path / "one", weights, config)
    save_model(tmp_path / "same", weights, config)
    weights["heads.label.bias"] = weights["heads.label.bias"] + 1e-6
    save_model(tmp_path / "other", weights, config)
    one, same, other = (open_model(tmp_path / name, ModelChoice(), CPU) for name in ("one", "same", "other"))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert isinstance(one.model, Classifier)
    dataset = opened(tmp_path, [{"label": at} for at in (0, 1, 2)])
    scorer = classifier_scorer(one.model, dataset, norm=one.norm, precision=Precision("fp32", device=CPU), subsets=None)
    rows = scorer.rows_of(to_device(make_batch(0, frames=2, side_px=16), CPU))
    assert torch.allclose(rows[:, 3:].sum(dim=1), torch.ones(3))
    says = np.concatenate([np.eye(3), np.eye(3)], axis=1)
    says[2] = says[1]
    assert scorer.score(collected(says))["top1"] == pytest.approx(2 / 3)
    assert scorer.score(collected(says, missing=(2,)))["top1"] == 1.0, "a missing sample is in no mean"
    many = opened(tmp_path, [{"label": at} for at in (0, 3)])
    with pytest.raises(BadInput, match="class 3 is unknown to the model, which has 0 to 2"):
        classifier_scorer(one.model, many, norm=CLIP, precision=Precision("fp32", device=CPU), subsets=None)


def test_a_model_is_scored_on_the_pixels_that_it_was_trained_on(tmp_path: Path) -> None:
    config = ClassifierConfig(encoder=VIDEO, heads={"label": 3})
    weights = Classifier(config).state_dict()
    save_model(tmp_path / "told", weights, config, pixels=LAVILA)
    save_model(tmp_path / "untold", weights, config)
    told, untold = (open_model(tmp_path / name, ModelChoice(), CPU) for name in ("told", "untold"))
    assert (told.norm, untold.norm) == (LAVILA, CLIP)
    assert told.fingerprint != untold.fingerprint, "it is of what the model says of a clip"
    assert open_model(tmp_path / "told", ModelChoice(pixels="imagenet"), CPU).norm == IMAGENET
    path = tmp_path / "told" / "config.json"
    path.write_text(path.read_text().replace(str(LAVILA.std[0]), "0.0"))
    with pytest.raises(BadInput, match=r"config\.json is damaged: pixel norm: .* wanted 3 numbers and 3 positive"):
        open_model(tmp_path / "told", ModelChoice(), CPU)


def test_a_dual_encoder_finds_texts_and_classes_by_its_own_tokenizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = NarrationTokenizer.train(TEXTS, vocabulary=300, context=16)
    text = TextConfig(stack=dataclasses.replace(STACK, causal=True), vocabulary=tokenizer.layout.vocabulary, context=16)
    config = DualEncoderConfig(video=VIDEO, text=text, joint=8)
    save_model(tmp_path / "dual", DualEncoder(config).state_dict(), config)
    with pytest.raises(BadInput, match="wanted --tokenizer"):
        open_tokenizer(None, tmp_path / "dual", text)
    tokenizer.save(tmp_path / "dual" / "tokenizer.json")
    scored = open_model(tmp_path / "dual", ModelChoice(), CPU)
    assert isinstance(scored.model, DualEncoder)
    own = open_tokenizer(None, tmp_path / "dual", text)
    encoders = Encoders(scored.model, own, scored.norm, Precision("fp32", device=CPU))
    rows = encoders.clips(to_device(make_batch(0, frames=2, side_px=16), CPU))
    assert torch.allclose(rows.norm(dim=1), torch.ones(3), atol=1e-5)
    retrieval = dual_scorer("table", encoders, opened(tmp_path, [{"text": one} for one in TEXTS]), ("{}",))
    assert retrieval.score(collected(encoders.texts(TEXTS)))["R@1_v2t"] == 1.0
    labels = opened(tmp_path, [{"label": one} for one in TEXTS])
    zero_shot = dual_scorer("table", encoders, labels, ("{}",))
    assert zero_shot.score(collected(encoders.texts(TEXTS)))["top1"] == 1.0
    with pytest.raises(BadInput, match="neither labels nor texts"):
        dual_scorer("ego4d", encoders, opened(tmp_path, [{"text": None, "label": None}]), ("{}",))
    other = NarrationTokenizer.train(TEXTS, vocabulary=260, context=16)
    with pytest.raises(BadInput, match="wanted the one that it was trained with"):
        Encoders(scored.model, other, CLIP, Precision("fp32", device=CPU))
