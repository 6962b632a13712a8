"""The samples that a recipe learns from, and what is said of all of them together; knows no model and no batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from framefeed.manifest import read_manifest
from framefeed.quarantine import read_quarantine
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.annotation import Annotation
from trainer_client.datasets.class_file import ClassNames
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.samples import Dataset, VideoWindows
from trainer_client.training.recipes.recipe import Windows


def _none(name: str) -> None:
    """Windows have no labels."""
    del name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """A data set, and what is said of all of it.

    `texts` gives all of its texts, to learn a tokenizer from, `labels` the largest number of each of its labels by
    name, `classes` how many there are; `fingerprint` is a digest of the annotations, `note` a line about rows that are
    not used, if there are any; `has_relevancies` says that texts are not all equally right for their clip.
    """

    dataset: Dataset
    texts: Callable[[], Iterable[str]] = tuple
    labels: Callable[[str], int | None] = _none
    classes: Mapping[str, int] = field(default_factory=dict)
    class_names: ClassNames = field(default_factory=dict)
    fingerprint: str = ""
    note: str = ""
    has_relevancies: bool = False


def open_data(data: DataSpec | Windows, root: Path) -> RunData:
    """Open what a recipe names. Blocks for as long as annotations take to convert, the first time.

    Raises BadInput for a root that is not indexed, and for annotations that are not what they are said to be.
    """
    manifest = read_manifest(root)
    if isinstance(data, Windows):
        windows = VideoWindows(manifest, window_s=data.window_s, quarantine=read_quarantine(root))
        return RunData(dataset=windows)
    annotated = open_dataset(data, manifest)
    return RunData(
        dataset=annotated,
        texts=lambda: _texts(annotated),
        labels=lambda name: int(annotated.label_array(name).max()) if name in annotated.classes else None,
        classes={name: len(names) for name, names in annotated.classes.items()},
        class_names=annotated.classes,
        fingerprint=annotated.fingerprint,
        note=_left_out(annotated),
        has_relevancies=data.kind == "ek100_mir" and data.split == "train",
    )


def _left_out(annotated: AnnotatedDataset) -> str:
    if not annotated.left_out:
        return ""
    why = ", ".join(f"{count} {why}" for why, count in annotated.left_out.items())
    return f"{annotated.name}: {len(annotated)} of {annotated.annotated} rows are used; left out: {why}"


def _texts(annotated: AnnotatedDataset) -> Iterator[str]:
    for index in range(len(annotated)):
        target = annotated[index].target
        assert isinstance(target, Annotation)
        yield from target.texts
