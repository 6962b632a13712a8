"""Gives the classes of annotations the numbers that a model was trained with, or says that nobody knows them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from framefeed.errors import BadInput
from framefeed_models.classifier import Classifier
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.class_file import CLASSES_NAME, find_class_file


def number_as_trained(dataset: AnnotatedDataset, weights: Path, model: nn.Module) -> None:
    """Number classes by the names that lie beside the weights; without such, as the annotations do.

    Raises BadInput for a class that the model does not know, and where classes have names, but others or fewer than the
    model has: their order would be another one.
    """
    if (classes := find_class_file(weights)) is not None:
        dataset.number_as(classes)
        return
    heads = model.config.heads if isinstance(model, Classifier) else {}
    for head in sorted(heads.keys() & dataset.classes.keys()):
        names = dataset.classes[head]
        if len(names) != heads[head] and names != tuple(map(str, range(len(names)))):
            raise BadInput(
                f"{dataset.name} names {len(names)} classes of {head}, of {heads[head]} that the model has, and no "
                f"{CLASSES_NAME} beside {weights} says which; wanted that, or --data.classes with all of them in the "
                "model's order"
            )
