"""The samples that a recipe learns from, and what is said of all of them together; knows no model and no batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from framefeed.errors import BadInput
from framefeed.manifest import Manifest, read_manifest
from framefeed.quarantine import read_quarantine
from trainer_client.datasets.annotated import AnnotatedDataset
from trainer_client.datasets.annotation import Annotation
from trainer_client.datasets.class_file import ClassNames
from trainer_client.datasets.mixture import Mixture
from trainer_client.datasets.open_dataset import open_dataset
from trainer_client.datasets.spec import DataSpec
from trainer_client.samples import Dataset, VideoWindows
from trainer_client.training.recipes.mixed_in import MixedIn
from trainer_client.training.recipes.recipe import Windows


def _none(name: str) -> None:
    """Windows have no labels."""
    del name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """A data set of a manifest's videos, and what is said of all of it.

    `texts` gives all of its texts, to learn a tokenizer from, `labels` the largest number of each of its labels by
    name, `classes` how many there are; `fingerprint` is a digest of the annotations, `note` a line about rows that are
    not used, if there are any; `has_relevancies` says that texts are not all equally right for their clip.
    """

    dataset: Dataset
    manifest: Manifest = field(default_factory=lambda: Manifest(videos={}))
    texts: Callable[[], Iterable[str]] = tuple
    labels: Callable[[str], int | None] = _none
    classes: Mapping[str, int] = field(default_factory=dict)
    class_names: ClassNames = field(default_factory=dict)
    fingerprint: str = ""
    note: str = ""
    has_relevancies: bool = False


def open_data(data: DataSpec | Windows, root: Path, mix: Sequence[MixedIn] = ()) -> RunData:
    """Open what a recipe names, with what is mixed in. Blocks for as long as annotations take to convert, the first
    time.

    Raises BadInput for a root that is not indexed, and for annotations that are not what they are said to be, or do not
    say what the others of a mixture do.
    """
    manifest = read_manifest(root)
    if isinstance(data, Windows):
        if mix:
            raise BadInput("mix: the recipe's own data are windows without annotations, wanted annotations to mix with")
        windows = VideoWindows(manifest, window_s=data.window_s, quarantine=read_quarantine(root))
        return RunData(dataset=windows, manifest=manifest)
    opened = [open_dataset(one, manifest) for one in (data, *(part.data for part in mix))]
    classes = _joint_classes(opened)
    return RunData(
        dataset=opened[0] if not mix else _mixed(opened, mix),
        manifest=manifest,
        texts=lambda: chain.from_iterable(map(_texts, opened)),
        labels=lambda name: _largest(opened, name) if name in classes else None,
        classes={name: len(names) for name, names in classes.items()},
        class_names=classes,
        fingerprint=_fingerprint(opened),
        note="; ".join(filter(None, map(_left_out, opened))),
        has_relevancies=not mix and data.kind == "ek100_mir" and data.split == "train",
    )


def _mixed(opened: Sequence[AnnotatedDataset], mix: Sequence[MixedIn]) -> Mixture:
    own, *others = (len(annotated) for annotated in opened)
    weights = [size if part.weight is None else part.weight * own for size, part in zip(others, mix, strict=True)]
    return Mixture(opened, weights=[own, *weights])


def _joint_classes(opened: Sequence[AnnotatedDataset]) -> ClassNames:
    """The classes of all labels, numbered alike in all data sets: those of the first keep their numbers."""
    own, *others = opened
    for other in others:
        if other.has_text != own.has_text or other.classes.keys() != own.classes.keys():
            raise BadInput(f"mix: {other.name} has {_says(other)}, wanted {_says(own)} as {own.name} has")
    if not others:
        return own.classes
    names = {name: [one for annotated in opened for one in annotated.classes[name]] for name in own.classes}
    classes = {name: tuple(dict.fromkeys(of)) for name, of in names.items()}
    for annotated in opened:
        annotated.number_as(classes)
    return classes


def _says(annotated: AnnotatedDataset) -> str:
    labels = ", ".join(annotated.classes) or "none"
    return f"{'texts' if annotated.has_text else 'no texts'} and labels {labels}"


def _largest(opened: Sequence[AnnotatedDataset], name: str) -> int:
    return max(int(annotated.label_array(name).max()) for annotated in opened)


def _fingerprint(opened: Sequence[AnnotatedDataset]) -> str:
    if len(opened) == 1:
        return opened[0].fingerprint
    whole = " ".join(annotated.fingerprint for annotated in opened)
    return f"v1-{hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()}"


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
