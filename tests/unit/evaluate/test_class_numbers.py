"""The numbers of classes: by names where these are known, as the annotations have them where that can be right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from framefeed.errors import BadInput
from framefeed_models.classifier import Classifier, ClassifierConfig
from tests.manifests import manifest_of
from tests.unit.trainer.small_tasks import CPU, TASKS
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.class_file import write_class_file
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.evaluate.class_numbers import number_as_trained


def annotated(folder: Path, *labels: str) -> AnnotatedDataset:
    rows = [json.dumps({"video": "a", "start": at, "end": at + 1, "label": label}) for at, label in enumerate(labels)]
    path = folder / f"{'-'.join(labels)}.jsonl"
    path.write_text("\n".join(rows))
    return open_dataset(DataSpec(kind="table", path=path, cache=folder / "cache"), manifest_of({"a": 10.0}))


def classifier(classes: int) -> Classifier:
    config = TASKS["classify"](CPU).model.config
    assert isinstance(config, ClassifierConfig)
    return Classifier(replace(config, heads={"label": classes}))


def test_names_beside_the_weights_decide(tmp_path: Path) -> None:
    write_class_file(tmp_path, {"label": ("ring", "dot", "cross")})
    dataset = annotated(tmp_path, "cross", "ring")
    number_as_trained(dataset, tmp_path, classifier(3))
    assert dataset.label_array("label").tolist() == [2, 0]


@pytest.mark.parametrize("labels", [("b", "a"), ("1", "0")])
def test_without_them_the_order_is_the_annotations_where_it_may_be_the_models(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    dataset = annotated(tmp_path, *labels)
    number_as_trained(dataset, tmp_path, classifier(2 if labels == ("b", "a") else 7))
    assert dataset.label_array("label").tolist() == [1, 0]


def test_names_of_a_part_of_the_models_classes_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"names 2 classes of label, of 5 that the model has, and no classes\.json"):
        number_as_trained(annotated(tmp_path, "cross", "ring"), tmp_path, classifier(5))
