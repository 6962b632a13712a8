"""The samples that a recipe learns from, and what is said of all of them together; knows no model and no batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from framefeed.manifest import read_manifest
from framefeed.quarantine import read_quarantine
from trainer_client.datasets.spec import DataSpec
from trainer_client.samples import Dataset, VideoWindows
from trainer_client.training.recipes.recipe import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """A data set; `texts` gives all of its texts, to learn a tokenizer from, and `classes` are how many each of its
    labels has, by name."""

    dataset: Dataset
    texts: Callable[[], Iterable[str]] = tuple
    classes: Mapping[str, int] = field(default_factory=dict)


def open_data(data: DataSpec | Windows, root: Path) -> RunData:
    """Open what a recipe names. Blocks for as long as annotations take to convert, the first time.

    Raises BadInput for a root that is not indexed, and for annotations that are not what they are said to be.
    """
    manifest, quarantine = read_manifest(root), read_quarantine(root)
    assert isinstance(data, Windows)
    return RunData(dataset=VideoWindows(manifest, window_s=data.window_s, quarantine=quarantine))
